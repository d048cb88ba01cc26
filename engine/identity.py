"""Who a run is, in ``run.json``: an identity of its own, its command, and its sessions (a start and every resumption).

Scores can be trusted only if it is known which code computed them. A run that is resumed with other code has sessions
with different commits.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from util.cli import UserError
from util.files import read_json, write_json

FILE = "run.json"
ROOT = Path(__file__).resolve().parent.parent

# The command line that was parsed last, with its script.
_parsed: dict[str, Any] = {"script": None, "command": None}


def remember_command(description: str | None, argv: Sequence[str] | None) -> None:
    """Keep the command line that a recipe parses, for the run that starts next.

    Args:
        description: The recipe's docstring, by which its module is found.
        argv: The flags; None takes those of the process.
    """
    modules = [module for module in list(sys.modules.values()) if module is not None]
    files = [getattr(module, "__file__", None) for module in modules if _describes(module, description)]
    path = next((Path(file).resolve() for file in files if file), None)
    script = None
    if path is not None:
        script = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
    words = [str(word) for word in (sys.argv[1:] if argv is None else argv)]
    _parsed.update(script=script, command=shlex.join(["python", script, *words]) if script else None)


def _describes(module, description):
    return description is not None and vars(module).get("__doc__") is description


def begin_session(folder: Path, args: Namespace, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``run.json`` of a new run, or add a session to that of a resumed one; returns its content.

    Args:
        folder: The run folder.
        args: Arguments with ``resume``.
        facts: What the session runs with: commit, versions, device.
    """
    known = identity_of(folder) if args.resume else {}
    if not known:
        # A run of an earlier version gets no identity afterwards: copies of it would get different ones.
        known = {"id": None if args.resume else uuid.uuid4().hex, "sessions": [], **({} if args.resume else _parsed)}
    session = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts}
    known = {**known, "sessions": [*known["sessions"], session]}
    write_json(folder / FILE, known)
    return known


def identity_of(folder: Path | str) -> dict[str, Any]:
    """Content of a run's ``run.json``, or {} for a run of an earlier version.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return {}
    known = read_json(path)
    sessions = known.get("sessions") if isinstance(known, dict) else None
    whole = isinstance(sessions, list) and all(
        isinstance(one, dict) and _are_texts(one, ("started", "git_commit", "changes")) for one in sessions
    )
    if not whole or not _are_texts(known, ("id", "script", "command")):
        raise UserError(f"{path} does not identify a run; restore the file or remove it")
    return known


def _are_texts(entries, names):
    return all(isinstance(entries.get(name), (str, type(None))) for name in names)


def search_identity(source: Path | str) -> dict[str, str]:
    """{"search_id": identity} of the search that an architecture comes from; {} if it comes from none with an identity.

    Args:
        source: A run folder, or a file in one.
    """
    path = Path(source)
    with contextlib.suppress(UserError):
        known = identity_of(path if path.is_dir() else path.parent).get("id")
        return {"search_id": known} if known else {}
    return {}
