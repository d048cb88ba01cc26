"""The search strategies by name. One of your own is a class derived from `search.relaxation.Relaxation` in a module of
yours; ``--strategy`` takes its name ``module:Class``, see ``docs/extend.md``."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.arguments import non_negative
from search.derive import RULES
from util.cli import UserError
from util.registry import Registry, is_own

if TYPE_CHECKING:
    import torch

    from search.relaxation import Relaxation

PUBLISHED = "published"  # `SoftmaxMixture` for BM-NAS, `SampledGates` for MMNas
# Others: name -> module and class. A module is imported on use.
STRATEGIES = {
    "drnas": "search.drnas:DrNAS",
    "gdas": "search.gdas:GDAS",
    "random-shared": "search.random_shared:RandomShared",
    "second-order": "search.second_order:SecondOrder",
}
_REGISTRY = Registry("strategy", {}, "search.relaxation:Relaxation")


def add_strategy_flags(group: argparse._ArgumentGroup) -> None:
    """Add ``--strategy`` and its options."""
    group.add_argument(
        "--strategy",
        type=strategy_name,
        metavar="NAME",
        default=PUBLISHED,
        help="search strategy: published, that of the paper; drnas, whose weights are drawn from a Dirichlet (BM-NAS); "
        "gdas, which draws one candidate in every step; random-shared, which draws one uniformly and takes the best of "
        "n architectures; second-order, whose architecture steps look one weight step ahead (BM-NAS); or module:Class "
        "for a strategy of your own",
    )
    group.add_argument(
        "--strategy_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the strategy, may be repeated; drnas: kl=0.001; gdas: temperature=(10.0,0.1), in the first "
        "and last epoch, gumbel_samples=1 (more: Gumbel-Rao), pairs=False (True: ordered pairs of edges, BM-NAS); "
        "random-shared: draws=100, architectures that are scored at the end",
    )
    group.add_argument(
        "--beta_regularization",
        type=non_negative,
        default=0.0,
        metavar="WEIGHT",
        help="beta-DARTS: architecture steps also decay strong candidates, by a weight that rises from 0 to WEIGHT "
        "over the epochs (the paper's: 50); 0: not at all",
    )
    group.add_argument(
        "--derive",
        choices=RULES,
        default="argmax",
        help="what makes the architecture: argmax: the largest probabilities; perturbation: what the trained supernet "
        "misses most on dev (DARTS-PT), after the last epoch",
    )


def strategy_of(args: argparse.Namespace, published: Callable[[torch.Generator], Relaxation]) -> Relaxation:
    """The relaxation that a search script's flags ask for.

    Args:
        args: Has what `add_strategy_flags` adds, and ``seed``.
        published: See `build_strategy`.

    Raises:
        UserError: see `build_strategy`.
    """
    relaxation = build_strategy(args.strategy, published, args.seed, args.strategy_option)
    if args.beta_regularization:
        if not relaxation.learns:
            raise UserError(
                f"--beta_regularization: --strategy {args.strategy} has no architecture steps; leave it out"
            )
        from search.regularizers import BetaDecay

        relaxation.regularizers.append(BetaDecay(args.beta_regularization))
    return relaxation


def strategy_name(text: str) -> str:
    """An argparse type: a name of `STRATEGIES`, ``published``, or ``module:Class``."""
    if text != PUBLISHED and text not in STRATEGIES and not is_own(text):
        known = ", ".join((PUBLISHED, *STRATEGIES))
        raise argparse.ArgumentTypeError(f"there is no strategy {text!r}; known: {known}, and module:Class")
    return text


def build_strategy(
    name: str, published: Callable[[torch.Generator], Relaxation], seed: int, options: Sequence[str] = ()
) -> Relaxation:
    """The relaxation that ``--strategy`` names.

    Args:
        name: ``published``, a key of `STRATEGIES`, or ``module:Class``.
        published: Function generator -> relaxation for the published strategy.
        seed: Seed of the draws.
        options: ``NAME=VALUE`` texts for keyword arguments of the strategy's class.

    Raises:
        UserError: the strategy has no such option, or does not accept its value.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    if name == PUBLISHED:
        if options:
            raise UserError(f"--strategy_option {options[0]}: the published strategy has no options; drop the flag")
        return published(generator)
    kind = _REGISTRY[STRATEGIES.get(name, name)]
    known = {
        key: parameter.default
        for key, parameter in inspect.signature(kind).parameters.items()
        if key != "generator" and parameter.default is not inspect.Parameter.empty
    }
    relaxation = kind(generator, **dict(_parse(option, name, known) for option in options))
    relaxation.name = name
    return relaxation


def _parse(option, strategy, known):
    key, _, text = option.partition("=")
    if key not in known:
        listed = ", ".join(f"{name}={value}" for name, value in known.items()) or "none"
        raise UserError(f"--strategy_option {option}: {strategy} has no {key!r}; its options and defaults: {listed}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if type(value) is not type(known[key]) and not (isinstance(known[key], float) and isinstance(value, int)):
        raise UserError(f"--strategy_option {option}: expected a value like {key}={known[key]}")
    if isinstance(value, tuple) and len(value) != len(known[key]):
        raise UserError(f"--strategy_option {option}: expected {len(known[key])} numbers, like {key}={known[key]}")
    return key, value
