"""The search strategies by name. A new one is a file with a `search.relaxation.Relaxation` and a line here."""

import ast
import importlib
import inspect

from engine.arguments import non_negative
from search.derive import RULES
from util.cli import UserError

# Beside ``published``, which is the family's own: `SoftmaxMixture` or `SampledGates`. Name -> module and class; the
# module is imported when it is used, so that `--help` answers at once.
STRATEGIES = {
    "drnas": "search.drnas:DrNAS",
    "gdas": "search.gdas:GDAS",
    "random-shared": "search.random_shared:RandomShared",
    "second-order": "search.second_order:SecondOrder",
}


def add_strategy_flags(group):
    """``--strategy`` and its options."""
    group.add_argument(
        "--strategy",
        choices=("published", *STRATEGIES),
        default="published",
        help="how undecided candidates act together and learn; drnas: weights drawn from a Dirichlet (BM-NAS); gdas: "
        "one of them is drawn in every step; random-shared: one is drawn uniformly, then the best of n architectures; "
        "second-order: architecture steps look one weight step ahead (BM-NAS)",
    )
    group.add_argument(
        "--strategy_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the strategy, may be repeated; drnas: kl=0.001; gdas: temperature=(10.0,0.1), of the first "
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


def strategy_of(args, published):
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


def build_strategy(name, published, seed, options=()):
    """The relaxation that ``--strategy`` names.

    Args:
        name: ``published``, or a key of `STRATEGIES`.
        published: The family's own: generator -> relaxation.
        seed: Seed of what is drawn.
        options: ``NAME=VALUE`` texts for keyword arguments of the strategy's class.

    Raises:
        UserError: the strategy has no such option, or its value is none.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    if name == "published":
        if options:
            raise UserError(f"--strategy_option {options[0]}: the published strategy has no options; leave it out")
        return published(generator)
    module, _, kind = STRATEGIES[name].partition(":")
    kind = getattr(importlib.import_module(module), kind)
    known = {
        key: parameter.default
        for key, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not inspect.Parameter.empty
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
