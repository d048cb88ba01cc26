"""What a resumed run may change: flags that do not affect its result, and the paths of its inputs."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.identity import identity_of, parsed_script, remember_longer, resume_command
from engine.scripts import stage_of
from util.cli import UserError
from util.files import json_text, read_json

if TYPE_CHECKING:
    from engine.arguments import RecipeParser

logger = logging.getLogger("mdarts")

# Flags of every script that only set how long a run continues, or how it is computed.
FREE = frozenset(
    {"epochs", "patience", "num_workers", "cache_features", "backbone_batch", "device", "estimate", "track"},
)
# Flags that set how long a run continues.
LENGTH = frozenset({"epochs", "patience", "budget"})
# Flags with one of these metavars are paths. Data may move (on clusters, with every job), so inputs that must stay the
# same are compared by content (`check_inputs`, and the digest of frozen weights), never by path.
PLACES = frozenset({"DIR", "FILE", "RUN_DIR", "SOURCE"})


def resumed_arguments(parser: RecipeParser, argv: Sequence[str] | None, saved: dict[str, Any], path: Path) -> Namespace:
    """Arguments of a resumed run: the saved ones, with the changes that the command line is allowed to make.

    Args:
        parser: The recipe's parser. Paths and the flags in ``parser.free`` may change.
        argv: Command line; None: that of the process.
        saved: The run's arguments, including ``resume``, converted to their current meaning.
        path: The file from which they were read, for messages.

    Raises:
        UserError: another script made the run, its file is damaged, or the command line changes a flag that must not
            change.
    """
    defaults, folder = {action.dest: action.default for action in parser._actions}, saved["resume"]
    known = vars(parser.parse_args(argv))
    unknown = sorted(set(saved) - set(known))
    _check_script(Path(folder), bool(unknown))
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UserError(
            f"--resume {folder}: another script or a later version made that run (flags {', '.join(unknown[:5])}{more})"
        )
    # A run of an earlier version lacks some flags. Their defaults reproduce the behaviour of that version.
    added = {name: defaults[name] for name in sorted(set(known) - set(saved))}
    check_saved(parser, saved, path)
    saved = {**added, **saved}
    parser.set_defaults(**saved)
    args = parser.parse_args(argv)
    if added:
        values = ", ".join(f"{name} = {value}" for name, value in added.items())
        text = "%s was made by an earlier version, which lacks some flags; they have their defaults: %s"
        logger.info(text, path, values)
    _check_unchanged(parser, saved, path)
    _log_changes(parser, args, saved)
    return args


def _check_script(folder, unlike):
    """Check that this script made a run; another one may have made it if it has other flags (``unlike``).

    Raises:
        UserError: another script made the run.
    """
    known = identity_of(folder)
    made, now = known.get("script"), parsed_script()
    if not made or not now or made == now:
        return
    places = [stage_of(script) for script in (made, now)]
    if unlike or (None not in places and places[0] != places[1]):
        raise UserError(
            f"--resume {folder}: another script made that run; continue it with `{resume_command(folder, known)}`"
        )


def _may_change(parser):
    """Names of the arguments that may differ when a run is resumed."""
    return parser.free | {action.dest for action in parser._actions if action.metavar in PLACES}


def _check_unchanged(parser, saved, path):
    """Check that ``args.json`` was not edited: the run would continue with other settings than it began with.

    Raises:
        UserError: a setting differs from the one that the run has used so far.
    """
    used = _used_arguments(path.parent)
    if not used:
        return
    used = parser.upgrade({**used, "resume": saved["resume"]})
    names = sorted((used.keys() & saved.keys()) - _may_change(parser))
    if changed := [name for name in names if _as_json(saved[name]) != _as_json(used[name])]:
        texts = ", ".join(f"{name} is {saved[name]}, but the run used {used[name]}" for name in changed)
        raise UserError(
            f"--resume {path.parent}: {path} was changed after the run began: {texts}; restore the earlier values in "
            "that file, or start a new run with the others"
        )


def _used_arguments(folder):
    """The arguments that a run has used: those in its last checkpoint, or for earlier versions in its result; or {}."""
    from util.checkpoint import glance_at_checkpoint

    state, result = glance_at_checkpoint(folder / "last.pth"), None
    if isinstance(state, dict) and isinstance(state.get("arguments"), str):
        with contextlib.suppress(ValueError):
            result = {"arguments": json.loads(state["arguments"])}
    elif (folder / "result.json").exists():
        with contextlib.suppress(UserError):
            result = read_json(folder / "result.json")
    used = result.get("arguments") if isinstance(result, dict) else None
    return used if isinstance(used, dict) else {}


def _as_json(value):
    return json.loads(json_text(value))


def _log_changes(parser, args, saved):
    """Log the flags that the command line changes.

    Raises:
        UserError: one of these flags must not change.
    """
    free = _may_change(parser)
    changed = {name: value for name, value in saved.items() if getattr(args, name) != value}
    described = {name: f"--{name} {getattr(args, name)} (was {value})" for name, value in changed.items()}
    if refused := [text for name, text in described.items() if name not in free]:
        raise UserError(
            f"--resume {args.resume} continues with the run's own settings, but got {', '.join(refused)};"
            " drop these flags"
        )
    if not changed.keys().isdisjoint(LENGTH):
        remember_longer()
    if described:
        logger.info("%s continues with %s", args.resume, ", ".join(described.values()))


def kept_genotype(args: Namespace, flags: Sequence[str]) -> Path | None:
    """The ``genotype.json`` of a resumed run, which applies even if its search went on, was moved or was removed.

    Args:
        args: The arguments.
        flags: Names of the arguments that determine the genotype.

    Returns:
        None for a run that is not resumed or has no finished epoch, or if the command line names another genotype.
    """
    folder = Path(getattr(args, "resume", None) or "")
    if folder == Path() or not (folder / "last.pth").is_file():
        return None
    path, saved = folder / "genotype.json", read_json(folder / "args.json")
    same = all(saved.get(name) == getattr(args, name) for name in flags)
    return path if same and path.is_file() else None


def check_saved(parser: RecipeParser, saved: dict[str, Any], path: Path | str) -> None:
    """Check that the flags accept the saved values, since the file may have been edited.

    Args:
        parser: The recipe's parser.
        saved: Name of a flag -> value.
        path: The file from which they were read, for messages.

    Raises:
        UserError: a flag does not accept its value.
    """
    pairs = [[flag.lstrip("-") for flag in pair] for pair in parser.alternatives]
    for pair in pairs:
        if saved.keys() >= set(pair) and sum(saved[name] is not None for name in pair) != 1:
            raise UserError(f"{path}: expected a value for exactly one of {' and '.join(pair)}; restore the file")
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
    """Raise ValueError, TypeError or ArgumentTypeError if a flag does not accept a value."""
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
    """Check that a resumed run reads the inputs that it started with.

    Args:
        folder: The run folder, for messages.
        earlier: Name of an input -> its identity, as the run recorded it; None if it recorded none (earlier versions).
        now: The same for the inputs that are read now.
        flags: Name of an input -> the flag that sets its path.

    Raises:
        UserError: an input differs.
    """
    if earlier is None:
        if now:
            text = "%s was made by an earlier version, which did not record its inputs: assumed to be the same"
            logger.info(text, folder)
        return
    for name, identity in earlier.items():
        if now.get(name) != identity:
            flag = f" with {flags[name]}" if name in flags else ""
            raise UserError(
                f"--resume {folder}: the {name} differs from what the run started with; pass the right path{flag}, or "
                "start a new run"
            )


def read_state(path: Path) -> dict[str, Any]:
    """Read a run's ``last.pth``.

    Raises:
        UserError: the file is damaged, or lacks a required entry.
    """
    from util.checkpoint import load_checkpoint

    kinds: dict[str, Any] = {
        "epoch": int,
        "stopped": bool,
        "device": str,
        "seconds": (int, float),
        "objects": dict,
        "random": list,
    }
    state = load_checkpoint(path)
    for name, kind in kinds.items():
        value = state.get(name) if isinstance(state, dict) else None
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise UserError(f"{path} has no valid {name}; restore the file")
    return state
