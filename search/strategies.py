"""The search strategies by name, and their flags.

To add your own, derive a class from `search.relaxation.Relaxation` or `search.black_box.BlackBox` in a module of yours,
and pass its name ``module:Class`` to ``--strategy``. See ``docs/extend.md``.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.arguments import RecipeParser, non_negative, positive_int
from search.derive import RULES
from util.cli import UserError
from util.registry import Registry, import_class, is_own

if TYPE_CHECKING:
    import torch

    from search.black_box import BlackBox, GenotypeSpace
    from search.relaxation import Relaxation

PUBLISHED = "published"  # `SoftmaxMixture` for BM-NAS, `SampledGates` for MMNas
# Other strategies on a supernet: name -> module and class. A module is imported when it is used.
STRATEGIES = {
    "drnas": "search.drnas:DrNAS",
    "gdas": "search.gdas:GDAS",
    "random-shared": "search.random_shared:RandomShared",
    "second-order": "search.second_order:SecondOrder",
}
# Strategies that train candidates instead of a supernet: name -> module and class of a `search.black_box.BlackBox`.
BLACK_BOXES = {"evolution": "search.black_box:Evolution", "random": "search.black_box:RandomTrainings"}
# Costs for --cost and --objectives.
COSTS = ("parameters", "flops")
# Flags that only black-box searches read, and flags that they do not read.
TRAINING_FLAGS = ("budget", "training_epochs", "population", "tournament", "objectives")
_POPULATION = ("population", "tournament")  # passed to a strategy if its constructor has these arguments
SUPERNET_FLAGS = (
    *("epochs", "strategy_option", "beta_regularization", "cost_weight", "cost", "derive", "patience"),
    *("arch_learning_rate", "arch_weight_decay", "dev_metric", "reshape_layers", "backbone_mode"),
    *("alpha_start", "alpha_every", "alpha_mode", "alpha_lr", "alpha_init", "unsampled"),
)
# Further defaults under --demo.
DEMO = {"budget": 6, "training_epochs": 2, "population": 3, "tournament": 2}
_REGISTRY = Registry("strategy", {}, "search.relaxation:Relaxation")


def add_strategy_flags(group: argparse._ArgumentGroup) -> None:
    """Add ``--strategy`` and the flags of strategies on a supernet."""
    group.add_argument(
        "--strategy",
        type=strategy_name,
        metavar="NAME",
        default=PUBLISHED,
        help="search strategy: published, that of the paper; drnas, which draws mixture weights from a Dirichlet "
        "(BM-NAS); gdas, which draws one candidate in every step; random-shared, which draws one uniformly and selects "
        "the best of n architectures; second-order, whose architecture steps look one weight step ahead (BM-NAS); "
        "random and evolution, which train candidates from scratch, one by one; or module:Class for your own",
    )
    group.add_argument(
        "--strategy_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the strategy, may be repeated; drnas: kl=0.001; gdas: temperature=(10.0,0.1), in the first "
        "and last epoch, gumbel_samples=1 (more: Gumbel-Rao), pairs=False (True: ordered pairs of edges, BM-NAS); "
        "random-shared: draws=100, the number of architectures that are scored at the end",
    )
    group.add_argument(
        "--beta_regularization",
        type=non_negative,
        default=0.0,
        metavar="WEIGHT",
        help="beta-DARTS: architecture steps also decay strong candidates, with a weight that rises from 0 to WEIGHT "
        "over the epochs (50 in its paper); 0: off",
    )
    group.add_argument(
        "--cost_weight",
        type=non_negative,
        default=0.0,
        metavar="WEIGHT",
        help="architecture steps also minimise WEIGHT times the expected --cost, a fraction of the largest possible "
        "cost; 0: off",
    )
    group.add_argument("--cost", choices=COSTS, default="parameters", help="cost that --cost_weight penalises")
    group.add_argument(
        "--derive",
        choices=RULES,
        default="argmax",
        help="how to derive the architecture: argmax: from the largest probabilities; perturbation: from what the "
        "trained supernet misses most on dev (DARTS-PT), after the last epoch",
    )


def add_training_flags(parser: RecipeParser) -> None:
    """Add the flags of the strategies that train candidates one by one."""
    group = parser.add_argument_group("--strategy random and evolution")
    group.add_argument("--budget", type=positive_int, default=50, help="number of trainings")
    group.add_argument("--training_epochs", type=positive_int, default=5, help="epochs per training")
    group.add_argument("--population", type=positive_int, default=10, help="evolution: size of the population")
    group.add_argument("--tournament", type=positive_int, default=3, help="evolution: size of each tournament")
    group.add_argument(
        "--objectives",
        type=objectives,
        default="score",
        metavar="NAMES",
        help="score, or score with parameters, flops or both, separated by commas (of the fusion); with several "
        "objectives the result has the Pareto front",
    )
    parser.free.add("budget")  # more trainings continue a search


def objectives(text: str) -> str:
    """An argparse type: ``score``, then any of ``parameters`` and ``flops``, separated by commas."""
    names = text.split(",")
    if names[0] != "score" or not set(names[1:]) <= set(COSTS) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: expected score, score,parameters, score,flops or all three")
    return text


def objectives_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The names in ``--objectives``."""
    return tuple(args.objectives.split(","))


def black_box_class(name: str) -> type[BlackBox] | None:
    """The class of a strategy that trains candidates one by one; None for a strategy on a supernet.

    Args:
        name: Value of ``--strategy``. The module of ``module:Class`` is imported.

    Raises:
        UserError: there is no such module or class.
    """
    if name in BLACK_BOXES:
        return import_class(BLACK_BOXES[name], "strategy")
    if name in (PUBLISHED, *STRATEGIES) or not is_own(name):
        return None
    from search.black_box import BlackBox

    found = import_class(name, "strategy")
    return found if isinstance(found, type) and issubclass(found, BlackBox) else None


def is_black_box(args: argparse.Namespace) -> bool:
    """Whether ``--strategy`` trains candidates one by one."""
    return black_box_class(args.strategy) is not None


def black_box_of(args: argparse.Namespace, space: GenotypeSpace) -> BlackBox:
    """Build the `search.black_box.BlackBox` that a search script's flags describe.

    Args:
        args: The arguments, with ``strategy``, ``seed`` and what `add_training_flags` adds.
        space: The space of genotypes to search.

    Raises:
        UserError: the strategy rejects its arguments.
    """
    kind: Any = black_box_class(args.strategy)
    known = inspect.signature(kind).parameters
    return kind(space, args.seed, **{name: getattr(args, name) for name in _POPULATION if name in known})


def check_black_box(args: argparse.Namespace, given: Mapping[str, object]) -> None:
    """Check the flags of strategies that train candidates, and set ``args.epochs`` to the total of all trainings.

    Args:
        args: The arguments.
        given: The arguments on the command line.

    Raises:
        UserError: a flag has no effect with this strategy.
    """
    if not is_black_box(args):
        if wrong := [name for name in TRAINING_FLAGS if name in given]:
            known = " and ".join(sorted(BLACK_BOXES))
            raise UserError(f"--{wrong[0]} is for --strategy {known}, not for {args.strategy}; drop the flag")
        return
    if wrong := [name for name in SUPERNET_FLAGS if name in given]:
        instead = "; use --training_epochs and --budget" if wrong[0] == "epochs" else "; drop the flag"
        raise UserError(f"--{wrong[0]}: --strategy {args.strategy} trains candidates and no supernet{instead}")
    if args.strategy == "evolution" and args.tournament > args.population:
        raise UserError(
            f"--tournament {args.tournament} is more than the --population of {args.population}; use at most that many"
        )
    args.epochs = args.budget * args.training_epochs


def strategy_of(args: argparse.Namespace, published: Callable[[torch.Generator], Relaxation]) -> Relaxation:
    """Build the relaxation that a search script's flags describe, with its regularisers.

    Args:
        args: The arguments, with ``seed`` and what `add_strategy_flags` adds.
        published: See `build_strategy`.

    Raises:
        UserError: see `build_strategy`; or a regulariser is requested for a strategy without architecture steps.
    """
    relaxation = build_strategy(args.strategy, published, args.seed, args.strategy_option)
    if args.beta_regularization:
        if not relaxation.learns:
            raise UserError(
                f"--beta_regularization: --strategy {args.strategy} has no architecture steps; leave it out"
            )
        from search.regularizers import BetaDecay

        relaxation.regularizers.append(BetaDecay(args.beta_regularization))
    if args.cost_weight:
        if not relaxation.learns:
            raise UserError(f"--cost_weight: --strategy {args.strategy} has no architecture steps; leave it out")
        from search.regularizers import CostPenalty

        relaxation.regularizers.append(CostPenalty(args.cost_weight, args.cost))
    return relaxation


def strategy_name(text: str) -> str:
    """An argparse type: a name of `STRATEGIES` or `BLACK_BOXES`, ``published``, or ``module:Class``."""
    if text not in (PUBLISHED, *STRATEGIES, *BLACK_BOXES) and not is_own(text):
        known = ", ".join((PUBLISHED, *STRATEGIES, *BLACK_BOXES))
        raise argparse.ArgumentTypeError(f"there is no strategy {text!r}; known: {known}, and module:Class")
    return text


def build_strategy(
    name: str, published: Callable[[torch.Generator], Relaxation], seed: int, options: Sequence[str] = ()
) -> Relaxation:
    """Build the relaxation that ``--strategy`` names.

    Args:
        name: ``published``, a key of `STRATEGIES`, or ``module:Class``.
        published: Builds the published strategy from a generator.
        seed: Seed of the generator of all draws.
        options: Keyword arguments of the strategy's class, as ``NAME=VALUE`` texts.

    Raises:
        UserError: the strategy has no such option, does not accept its value, or trains candidates one by one.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    if name == PUBLISHED:
        if options:
            raise UserError(f"--strategy_option {options[0]}: the published strategy has no options; drop the flag")
        return published(generator)
    if black_box_class(name):
        raise UserError(f"--strategy {name} trains candidates one by one, which this script does not; take another")
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
    if isinstance(value, tuple) and (len(value) != len(known[key]) or not all(map(_is_number, value))):
        raise UserError(f"--strategy_option {option}: expected {len(known[key])} numbers, like {key}={known[key]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--strategy_option {option}: expected a finite number, like {key}={known[key]}")
    return key, value


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
