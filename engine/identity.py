"""What a run says of itself: ``run.json`` for programs, ``README.md`` for people.

``run.json`` holds an identity of the run's own, its command, and its sessions (a start and every resumption). Scores
can be trusted only if it is known which code computed them. A run that is resumed with other code has sessions with
different commits. ``README.md`` says in one screen what the run is, its command and result, and how to go on.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.scripts import next_commands
from util.cli import UserError
from util.files import read_json, write_json, write_text
from util.hashes import short_hash

if TYPE_CHECKING:
    import torch

FILE, README = "run.json", "README.md"
# Longer lists of scores stand in result.json.
MAX_SCORES = 8
ROOT = Path(__file__).resolve().parent.parent

# The command line that was parsed last, with its script.
_parsed: dict[str, Any] = {"script": None, "command": None}


def remember_command(description: str | None, argv: Sequence[str] | None) -> None:
    """Keep the command line that a recipe parses, for the run that starts next.

    Args:
        description: The recipe's docstring, by which its module is found.
        argv: The flags; None takes those of the process.
    """
    files = [
        getattr(module, "__file__", None)
        for module in list(sys.modules.values())
        if module is not None and description is not None and vars(module).get("__doc__") is description
    ]
    path = next((Path(file).resolve() for file in files if file), None)
    script = None
    if path is not None:
        script = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
    words = [str(word) for word in (sys.argv[1:] if argv is None else argv)]
    _parsed.update(script=script, command=shlex.join(["python", script, *words]) if script else None)


def begin_session(folder: Path, args: Namespace, device: torch.device) -> dict[str, Any]:
    """Write ``run.json`` of a new run, or add a session to that of a resumed one, and the README; returns the former.

    Args:
        folder: The run folder.
        args: Arguments with ``resume``.
        device: Device of the session.
    """
    known = identity_of(folder) if args.resume else {}
    if not known:
        # A run of an earlier version gets no identity afterwards: copies of it would get different ones.
        known = {"id": None if args.resume else uuid.uuid4().hex, "sessions": [], **({} if args.resume else _parsed)}
    session = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **_session_facts(device)}
    known = {**known, "sessions": [*known["sessions"], session]}
    readme = readme_text(folder, known, None)
    write_json(folder / FILE, known)
    write_text(folder / README, readme)
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


def git_commit() -> str | None:
    """Commit of the project, followed by "-dirty" if tracked files were changed; None outside a checkout."""
    text = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return text.strip() if text is not None else None


def _session_facts(device: torch.device) -> dict[str, Any]:
    """What a start of a run computes with: commit, a hex string of its uncommitted changes or None, torch, device."""
    import torch

    changes = _git("diff", "HEAD")
    return {
        "git_commit": git_commit(),
        "changes": short_hash(changes) if changes else None,
        "torch": torch.__version__,
        "device": device.type,
    }


def _git(*words):
    """Output of a git command in the project's checkout; None outside a checkout."""
    command = ["git", "-C", str(ROOT), *words]
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "timeout": 10}
    try:
        return subprocess.run(command, capture_output=True, check=True, **options).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def readme_text(folder: Path | str, identity: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    """Text of ``README.md``.

    Args:
        folder: The run folder.
        identity: Content of ``run.json``.
        result: Content of ``result.json``; None while the run goes on.
    """
    folder = Path(folder)
    script, command = identity.get("script"), identity.get("command")
    state = "finished" if result else "under way, or interrupted"
    lines = [f"# {folder.name}", "", f"A run of `{script or 'a script of this suite'}`: {state}."]
    if result:
        lines += ["", *_facts(result)]
    lines += ["", *(["Its command:", "", f"    {command}", ""] if command else [])]
    if result:
        lines += ["Scores:", "", *_scores(result), ""]
    resume = f"python {script or '<its script>'} --resume {folder}"
    steps = [("continue it" if result is None else "make it longer", resume + (" --epochs N" if result else ""))]
    steps = (next_commands(script, folder) if script and result else []) + steps
    steps.append(("see it as a page", f"python report.py {folder} --out report.html"))
    lines += ["How to go on:", "", *(f"- {what}: `{command}`" for what, command in steps), ""]
    if result:
        lines += ["`result.json` holds everything about the scores, `log.jsonl` one line per epoch."]
    else:
        lines += ["`log.txt` says how far it is, `log.jsonl` has one line per finished epoch."]
    return "\n".join(lines) + "\n"


def _facts(result):
    data = result.get("data") or {}
    kind = "synthetic data" if data.get("synthetic") else "data"
    shown = {
        kind: data.get("description"),
        "selected": "selected_epoch" in result and f"epoch {result['selected_epoch']}: {result.get('protocol')}",
        "time": f"{result['seconds']:,.0f} s on {result['device']}",
        "commit": result.get("git_commit"),
    }
    return [f"- {name}: {text}" for name, text in shown.items() if text]


def _scores(result):
    lines = ["| split | scores |", "|---|---|"]
    for split, scores in (result.get("metrics") or {}).items():
        shown = [f"{name} {value:.4f}" for name, value in scores.items() if isinstance(value, float)]
        more = f", and {len(shown) - MAX_SCORES} more" if len(shown) > MAX_SCORES else ""
        lines.append(f"| {split} | {', '.join(shown[:MAX_SCORES])}{more} |")
    return lines if len(lines) > 2 else ["none: the split has no answers"]
