"""The search strategies by name. To add one, write a `search.relaxation.Relaxation` and add a line here."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from util.cli import UserError

if TYPE_CHECKING:
    import torch

    from search.relaxation import Relaxation

# Name -> module and class, besides ``published``, which is `SoftmaxMixture` for BM-NAS and `SampledGates` for MMNas.
# Modules are imported on use, so that `--help` responds at once.
STRATEGIES = {"gdas": "search.gdas:GDAS"}


def add_strategy_flags(group: argparse._ArgumentGroup) -> None:
    """Add ``--strategy`` and its options."""
    group.add_argument(
        "--strategy",
        choices=("published", *STRATEGIES),
        default="published",
        help="search strategy; published: that of the paper; gdas: draws one candidate in every step",
    )
    group.add_argument(
        "--strategy_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the strategy, may be repeated; gdas: temperature=(10.0,0.1), in the first and last epoch",
    )


def build_strategy(
    name: str, published: Callable[[torch.Generator], Relaxation], seed: int, options: Sequence[str] = ()
) -> Relaxation:
    """The relaxation that ``--strategy`` names.

    Args:
        name: ``published``, or a key of `STRATEGIES`.
        published: Function generator -> relaxation for the published strategy.
        seed: Seed of the draws.
        options: ``NAME=VALUE`` texts for keyword arguments of the strategy's class.

    Raises:
        UserError: the strategy has no such option, or does not accept its value.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    if name == "published":
        if options:
            raise UserError(f"--strategy_option {options[0]}: the published strategy has no options; drop the flag")
        return published(generator)
    module, _, kind = STRATEGIES[name].partition(":")
    kind = getattr(importlib.import_module(module), kind)
    known = {
        key: parameter.default
        for key, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return kind(generator, **dict(_parse(option, name, known) for option in options))


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
