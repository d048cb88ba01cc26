"""Command-line flags: groups that recipes share, and the parser of a recipe.

Nothing here imports torch, since benchmarks and tools that only start other processes use it too.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import run_log
from engine.identity import remember_command
from engine.resuming import FREE, check_saved, resumed_arguments
from engine.tracking import TOOLS
from util.cli import OneLineParser, UserError
from util.files import read_json


class RecipeParser(OneLineParser):
    """A parser that shows defaults, keeps the layout of the docstring, and reports a usage error in one line.

    Args:
        description: The script's docstring.
        spellings: Alternative spelling of a flag -> the flag, e.g. ``{"--SEED": "--seed"}``.
        upgrade: Converts the arguments that an older version saved in a run folder to their current meaning; None: no
            conversion.

    Attributes:
        free: Names of the arguments that may change when a run is resumed, in addition to paths (see
            `engine.resuming`).
        given: The flags on the command line, set by `parse_args`; see `given_flags`.
    """

    def __init__(
        self,
        description: str,
        spellings: Mapping[str, str] | None = None,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            usage="%(prog)s [flags]",
            description=description,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        self.spellings = spellings or {}
        self.recipes: Mapping[str, Mapping[str, Any]] = {}
        self.free = set(FREE)
        self.given: dict[str, Any] = {}
        self.upgrade = upgrade or (lambda saved: saved)
        self.alternatives: list[tuple[str, str]] = []
        if self.spellings:
            pairs = ", ".join(f"{other} = {flag}" for other, flag in self.spellings.items())
            self.epilog = f"other spellings: {pairs}"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Replace alternative spellings by their flags, then parse."""
        words = [self._spell(word) for word in (sys.argv[1:] if args is None else args)]
        flags = {word.partition("=")[0] for word in words}
        for pair in self.alternatives:
            # argparse's mutually exclusive groups overlook a value that equals the default.
            if flags.issuperset(pair):
                self.error(f"{' and '.join(pair)} set the same value in two units; pass only one of them")
        return super().parse_known_args(words, namespace)

    def _spell(self, word):
        flag, sign, value = word.partition("=")
        return self.spellings.get(flag, flag) + sign + value


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog):
        super().__init__(prog, max_help_position=34, width=110)

    def _get_default_metavar_for_optional(self, action):
        return "TEXT" if action.type is None else "N"

    def _get_help_string(self, action):
        text = action.help or ""
        if action.default in (None, False, argparse.SUPPRESS) or action.nargs == 0:
            return text
        return f"{text} (default: %(default)s)"


def number(kind: type, low: float, high: float = math.inf, *, open_high: bool = False) -> Callable[[str], Any]:
    """Return an argparse type: a number of type ``kind`` (int or float) from ``low`` to ``high``."""

    def parse(text):
        value = kind(text)
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not a finite number")
        if not low <= value <= high or (open_high and value == high):
            limit = f" and {'below' if open_high else 'at most'} {high}" if high != math.inf else ""
            raise argparse.ArgumentTypeError(f"{text} is out of range; expected at least {low}{limit}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse


def device_name(text: str) -> str:
    """An argparse type: the name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; expected auto, cpu, cuda or cuda:N")
    return text


def file_name(text: str) -> str:
    """An argparse type: part of a file name."""
    if not re.fullmatch(r"[\w.+-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be part of a folder's name; use letters, digits, . _ + -")
    return text


positive_int = number(int, 1)
non_negative_int = number(int, 0)
fraction = number(float, 0.0, 1.0, open_high=True)
positive = number(float, 1e-300)
non_negative = number(float, 0.0)


def add_run_flags(parser: RecipeParser, data_parallel: bool = True) -> None:
    """Add flags for seed, folders, device and precision.

    Args:
        parser: The recipe's parser.
        data_parallel: Whether to offer torch's DataParallel.
    """
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=2, help="seed of all random number generators")
    group.add_argument(
        "--save", type=file_name, default="EXP", metavar="NAME", help="part of the folder's name, <kind>-<save>-<time>"
    )
    group.add_argument("--out_dir", metavar="DIR", help="folder in which run folders are created")
    group.add_argument(
        "--resume", metavar="RUN_DIR", help="continue an interrupted run; the result does not depend on interruptions"
    )
    group.add_argument("--demo", action="store_true", help="small settings on demo data, which are made if missing")
    group.add_argument("--device", type=device_name, metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N")
    if data_parallel:
        group.add_argument(
            "--parallel",
            "--use_dataparallel",
            action="store_true",
            help="use torch's DataParallel over all visible GPUs (torchrun needs no flag)",
        )
    group.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision")
    group.add_argument(
        "--num_workers", "--j", type=non_negative_int, default=32, help="data loading processes, at most one per core"
    )
    group.add_argument("--track", choices=TOOLS, help="also send the scores of every epoch to this tool")
    group.add_argument("--estimate", action="store_true", help="print an estimate of memory and time, and exit")


def add_data_flags(parser: RecipeParser) -> None:
    """Add flags for the data folder and the feature cache."""
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", metavar="DIR", help="folder of the prepared data")
    text = "use only the first 64 samples of every split"
    group.add_argument("--small_dataset", action=argparse.BooleanOptionalAction, default=False, help=text)
    group.add_argument(
        "--cache_features",
        choices=("auto", "ram", "disk", "off"),
        default="auto",
        help="where to cache features of frozen backbones, computed once per sample; auto chooses by size",
    )
    group.add_argument("--cache_dir", metavar="DIR", help="folder of cached features (default: <datadir>/features)")


def add_training_flags(parser: RecipeParser) -> None:
    """Add flags for epochs, batches, and the schedule and optimiser of the weights."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive_int, help="number of epochs")
    add_batch_flags(parser, group, number(int, 2))
    group.add_argument(
        "--micro_batch",
        type=non_negative_int,
        default=0,
        help="samples per forward and backward pass; gradients are accumulated up to --batchsize; batch norm sees this "
        "many samples at a time; 0: the full batch",
    )
    group.add_argument("--weight_decay", type=non_negative, help="L2 weight decay")
    group.add_argument("--eta_max", type=positive, help="largest learning rate")
    group.add_argument("--eta_min", type=non_negative, help="smallest learning rate")
    group.add_argument("--Ti", type=positive_int, help="length of the first cosine cycle in epochs")
    group.add_argument("--Tm", type=positive_int, help="factor by which each cycle is longer than the previous one")
    group.add_argument(
        "--lr_restarts",
        choices=("original", "sgdr"),
        default="original",
        help="original: restart only if a step hits the minimum exactly; sgdr: restart after every cycle",
    )


def add_recipe_flag(parser: RecipeParser, recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Add ``--recipe``, a preset whose values `parse_args` uses as defaults.

    Args:
        parser: The recipe's parser.
        recipes: Name of a preset -> {name of a flag: value}.
    """
    parser.recipes = recipes
    parser.add_argument(
        "--recipe",
        choices=tuple(recipes),
        help="use the settings of a row of the paper's Table 8, not the released scripts'; other flags override it",
    )


class Assignments(argparse.Action):
    """Collects ``NAME=VALUE`` words. A later word replaces an earlier or inherited one of the same name."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs="+", type=assignment, **kwargs)

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        earlier = getattr(namespace, self.dest, None)
        merged = as_dict(earlier if isinstance(earlier, list) else []) | as_dict(values)
        setattr(namespace, self.dest, [f"{name}={value}" for name, value in merged.items()])


def assignment(text: str) -> str:
    """An argparse type: ``NAME=VALUE``."""
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return text


def as_dict(assignments: Sequence[str] | None) -> dict[str, str]:
    """Convert the words that `Assignments` collects to a dict, name -> value."""
    return {word.partition("=")[0]: word.partition("=")[2] for word in assignments or ()}


class _InsteadOf(argparse.Action):
    """Stores a value, and clears the flag that sets the same thing in another unit."""

    def __init__(self, *args, other, **kwargs):
        super().__init__(*args, **kwargs)
        self.other = other

    def __call__(self, parser, namespace, value, option=None):
        setattr(namespace, self.dest, value)
        setattr(namespace, self.other, None)


def add_batch_flags(parser: RecipeParser, group: argparse._ArgumentGroup, kind: Callable[[str], Any]) -> None:
    """Add flags for the batch size, in total or per process. One of the two arguments is always None.

    Args:
        parser: The recipe's parser.
        group: The argument group to add to.
        kind: The argparse type of both flags.
    """
    parser.alternatives.append(("--batchsize", "--batchsize_per_process"))
    group.add_argument(
        "--batchsize",
        type=kind,
        action=_InsteadOf,
        other="batchsize_per_process",
        help="samples per batch, over all processes and devices together",
    )
    group.add_argument(
        "--batchsize_per_process",
        type=kind,
        action=_InsteadOf,
        other="batchsize",
        help="instead of --batchsize: samples per batch on each process",
    )


def given_flags(parser: RecipeParser, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse only the flags on the command line: name of the argument -> value, without defaults."""
    unset, names = object(), {action.dest for action in parser._actions}
    # A flag that may be repeated appends to a list.
    lists: dict[str, list] = {
        action.dest: [] for action in parser._actions if isinstance(action, argparse._AppendAction)
    }
    args = parser.parse_args(argv, argparse.Namespace(**{**dict.fromkeys(names, unset), **lists}))
    return {name: value for name, value in vars(args).items() if value is not unset and value is not lists.get(name)}


def run_folder_of(path: Path | str) -> Path | None:
    """The run folder that ``path`` names: the folder itself, or the folder of a file; None if there is none.

    Any folder is accepted, since those of the original code have no ``args.json``. A file must have an ``args.json``
    next to it.
    """
    path = Path(path)
    if path.is_dir():
        return path
    return path.parent if path.is_file() and (path.parent / "args.json").is_file() else None


def set_defaults_of(parser: RecipeParser, values: Mapping[str, Any]) -> None:
    """Use ``values`` (name of a flag -> value) as defaults, as far as the parser has these flags.

    A value for one of two alternative flags removes the default of the other.
    """
    flags = [action.dest for action in parser._actions]
    chosen = {name: value for name, value in values.items() if name in flags}
    for pair in parser.alternatives:
        names = [flag.lstrip("-") for flag in pair]
        if any(chosen.get(name) is not None for name in names):
            chosen.update({name: chosen.get(name) for name in names})
    parser.set_defaults(**chosen)


def earlier_arguments(folder: Path | str) -> dict[str, Any]:
    """Read the arguments saved in a run folder; empty for folders of the original code.

    Raises:
        UserError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the run folder {folder} does not exist; name the folder that the run printed")
    path = folder / "args.json"
    return read_arguments(path) if path.exists() else {}


def read_arguments(path: Path | str) -> dict[str, Any]:
    """Read an ``args.json``.

    Raises:
        UserError: the file does not contain a run's arguments.
    """
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise UserError(f"{path} does not hold the arguments of a run")
    return saved


def parse_args(
    parser: RecipeParser,
    argv: Sequence[str] | None = None,
    *,
    demo: Mapping[str, Any] | None = None,
    inherit: Callable[[Namespace], dict[str, Any]] | None = None,
) -> Namespace:
    """Parse the command line of a recipe.

    Explicit flags always win. All other values come from the first of these that has them: the run named by
    ``--resume``, the earlier run that ``inherit`` reads, the presets of ``--demo`` or ``--recipe``, and the parser's
    defaults.

    Args:
        parser: The recipe's parser.
        argv: Command line; None: that of the process.
        demo: Defaults under ``--demo``.
        inherit: Function from the arguments to defaults from an earlier run; or None.

    Raises:
        UserError: flags contradict the settings of a resumed run, or ``--recipe`` and ``--demo`` are combined.
    """
    run_log.hold()
    remember_command(parser.description, argv)
    parser.given = given_flags(parser, argv)
    args = argparse.Namespace(**{**{action.dest: action.default for action in parser._actions}, **parser.given})
    if args.resume:
        return _resumed(parser, argv, args.resume)
    inherited = inherit(args) if inherit is not None else {}
    if inherited:
        check_saved(parser, inherited, "the arguments of the earlier run")
    is_demo = demo and (args.demo or inherited.get("demo"))
    recipe = getattr(args, "recipe", None)
    if is_demo and recipe:
        raise UserError(f"--recipe {recipe} is for the paper's data, but --demo has its own settings; drop one of them")
    set_defaults_of(parser, (demo or {}) if is_demo else parser.recipes.get(recipe or "", {}))
    set_defaults_of(parser, inherited)
    return parser.parse_args(argv)


def _resumed(parser, argv, folder):
    path = Path(folder) / "args.json"
    if not path.exists():
        raise UserError(f"--resume {folder}: no args.json there; name the folder that the run printed at its start")
    saved = parser.upgrade({**read_arguments(path), "resume": str(folder)})
    return resumed_arguments(parser, argv, saved, path)
