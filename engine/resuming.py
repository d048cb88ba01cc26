"""What a resumed run may change: flags that decide nothing about its result, and the places where its inputs lie.

Nothing here imports torch: usage errors answer at once.
"""

from __future__ import annotations

import argparse
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from util.cli import UserError

if TYPE_CHECKING:
    from engine.arguments import RecipeParser

logger = logging.getLogger("mdarts")

# Flags of every script that say how long a run goes on, or how it is computed.
FREE = frozenset(
    {"epochs", "patience", "num_workers", "cache_features", "backbone_batch", "device", "estimate"},
)
# Flags with one of these metavars say where something lies. Data move, on clusters with every job: what must stay
# the same is compared by its content (`check_inputs`, and the digest of frozen weights), never by its path.
PLACES = frozenset({"DIR", "FILE", "RUN_DIR", "SOURCE"})


def resumed_arguments(parser: RecipeParser, argv: Sequence[str] | None, saved: dict[str, Any], path: Path) -> Namespace:
    """The arguments with which a run goes on: its own, with what the command line may change.

    Args:
        parser: The recipe's parser; ``parser.free`` names the flags that may change besides places.
        argv: Arguments; None takes the process's.
        saved: dict of the run's arguments, ``resume`` among them, as this version means them.
        path: The file that they come from, for messages.

    Raises:
        UserError: the run is another script's, its file is damaged, or the command line changes what may not change.
    """
    defaults, folder = {action.dest: action.default for action in parser._actions}, saved["resume"]
    known = vars(parser.parse_args(argv))
    if unknown := sorted(set(saved) - set(known)):
        raise UserError(
            f"--resume {folder}: that run was made by another script, or by a later version (flags"
            f" {', '.join(unknown)})"
        )
    # A run of an earlier version: what it could not choose is as it was then, which every default keeps up.
    added = {name: defaults[name] for name in sorted(set(known) - set(saved))}
    check_saved(parser, saved, path)
    saved = {**added, **saved}
    parser.set_defaults(**saved)
    args = parser.parse_args(argv)
    if added:
        values = ", ".join(f"{name} = {value}" for name, value in added.items())
        logger.info("%s is of an earlier version, which lacks some flags; they take their defaults: %s", path, values)
    _tell_changes(parser, args, saved)
    return args


def _tell_changes(parser, args, saved):
    """Log what the command line changes.

    Raises:
        UserError: something among it may not change.
    """
    free = parser.free | {action.dest for action in parser._actions if action.metavar in PLACES}
    changed = {name: value for name, value in saved.items() if getattr(args, name) != value}
    told = {name: f"--{name} {getattr(args, name)} (was {value})" for name, value in changed.items()}
    if refused := [text for name, text in told.items() if name not in free]:
        raise UserError(
            f"--resume {args.resume} continues with the run's own settings, but got {', '.join(refused)};"
            " drop these flags"
        )
    if told:
        logger.info("%s goes on with %s", args.resume, ", ".join(told.values()))


def check_saved(parser: RecipeParser, saved: dict[str, Any], path: Path | str) -> None:
    """Hold saved values against what flags can be set to: somebody may have edited the file."""
    pairs = [[flag.lstrip("-") for flag in pair] for pair in parser.alternatives]
    for pair in pairs:
        if saved.keys() >= set(pair) and sum(saved[name] is not None for name in pair) != 1:
            raise UserError(f"{path}: expected a value of either {' or '.join(pair)}, not of both; restore the file")
    for action in parser._actions:
        if action.dest not in saved or (saved[action.dest] is None and any(action.dest in pair for pair in pairs)):
            continue
        value = saved[action.dest]
        try:
            _check_value(parser, action, value)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            text = repr(value)[:40]
            raise UserError(f"{path}: {action.dest} is {text} ({error}); restore the file") from None


def _check_value(parser, action, value):
    """Raise ValueError, TypeError or ArgumentTypeError where a flag cannot have a value."""
    if isinstance(action, (argparse._StoreTrueAction, argparse.BooleanOptionalAction)):
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
    elif value is None:
        if parser.get_default(action.dest) is not None:
            raise ValueError("expected a value")
    else:
        listed = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
        if listed != isinstance(value, (list, tuple)):
            raise ValueError("expected a list" if listed else "expected a single value")
        for item in value if listed else [value]:
            if not isinstance(item, (str, int, float) if action.type else str) or isinstance(item, bool):
                raise ValueError("expected another type")
            if action.type is not None:
                action.type(str(item))
            if action.choices is not None and item not in action.choices:
                raise ValueError(f"expected one of {', '.join(map(str, action.choices))}")


def check_inputs(
    folder: Path | str, earlier: Mapping[str, str] | None, now: Mapping[str, str], flags: Mapping[str, str]
) -> None:
    """Compare what a run reads with what it began with.

    Args:
        folder: The run folder, for messages.
        earlier: Name of an input -> its identity, as the run noted them; None where an earlier version noted nothing.
        now: The same of what is read now.
        flags: Name of an input -> the flag that says where it lies.

    Raises:
        UserError: one differs.
    """
    if earlier is None:
        if now:
            logger.info("%s is of an earlier version, which did not note what it read: taken to be the same", folder)
        return
    for name, identity in earlier.items():
        if now.get(name) != identity:
            flag = f" with {flags[name]}" if name in flags else ""
            raise UserError(
                f"--resume {folder}: the {name} differs from what the run began with; name the right place{flag}, or "
                "begin a new run"
            )
