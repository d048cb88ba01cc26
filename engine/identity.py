"""How a run describes itself: ``run.json`` for programs, ``README.md`` for people.

``run.json`` contains a unique id of the run, its command, and its sessions (the start and every resumption). Scores can
only be trusted if it is known which code computed them: a run that was resumed with other code has sessions with
different commits. ``README.md`` summarises the run on one screen: its command, its result, and the next commands.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.scripts import next_commands, stage_of
from util.cli import UserError, quoted
from util.files import read_json, write_json, write_text
from util.hashes import short_hash

if TYPE_CHECKING:
    import torch

FILE, README = "run.json", "README.md"
# The README shows at most this many scores per split; all are in result.json.
MAX_SCORES = 8
ROOT = Path(__file__).resolve().parent.parent

# The command line that was parsed last, and its script.
_parsed: dict[str, Any] = {"script": None, "command": None}
# Whether that script has started its processes by itself.
_starts_itself = False
# Whether that command line continues a run for longer than it was to last before.
_lengthens = False


def remember_command(description: str | None, argv: Sequence[str] | None) -> None:
    """Remember the command line that a recipe parses, for the run that starts next.

    Args:
        description: The recipe's docstring, which identifies its module.
        argv: The flags; None: those of the process.
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
    global _lengthens
    _lengthens = False
    _parsed.update(script=script, command=f"{_start()} {shlex.join([script, *words])}" if script else None)


def remember_launch() -> None:
    """Remember that the script starts its processes by itself (``--GPU``), so that its command needs no torchrun."""
    global _starts_itself
    _starts_itself = True


def _start():
    """How the command starts that started this process: ``python``, or ``torchrun`` and its flags."""
    places = os.environ
    processes = int(places["WORLD_SIZE"]) if "RANK" in places and "WORLD_SIZE" in places else 1
    return "python" if _starts_itself else start_of(processes, int(places.get("LOCAL_WORLD_SIZE", processes)))


def start_of(processes: int, local: int | None = None) -> str:
    """How a command starts that runs a script in several processes: ``python``, or ``torchrun`` and its flags.

    Args:
        processes: Number of processes.
        local: Number of processes per machine; None: all.
    """
    local = local or processes
    if processes == 1:
        return "python"
    if local == processes:
        return f"torchrun --nproc_per_node {processes}"
    machines = f"--nnodes {-(-processes // local)} --nproc_per_node {local}"
    return f"torchrun {machines} --rdzv_backend c10d --rdzv_endpoint HOST:29500"


def resume_command(folder: Path | str, identity: Mapping[str, Any], processes: int = 1) -> str:
    """The command that continues a run, in as many processes as before.

    Args:
        folder: The run folder.
        identity: Content of its ``run.json``.
        processes: Number of its processes, for runs whose recorded command does not tell (those of earlier versions).
    """
    script = identity.get("script")
    start, found, _ = (identity.get("command") or "").partition(f" {shlex.quote(script)}" if script else "\n")
    if not found or (start == "python" and "--GPU" not in identity["command"]):
        start = start_of(processes)
    return f"{start} {quoted(script) if script else '<its script>'} --resume {quoted(folder)}"


def parsed_script() -> str | None:
    """Path of the script whose command line was parsed last, relative to the project's folder; None if unknown."""
    return _parsed["script"]


def remember_longer() -> None:
    """Remember that the command line changes how long the run lasts, so that repeating the run requires it, too."""
    global _lengthens
    _lengthens = True


def begin_session(folder: Path, args: Namespace, device: torch.device) -> dict[str, Any]:
    """Write the ``run.json`` and the README of a new run, or add a session to those of a resumed run.

    Args:
        folder: The run folder.
        args: Arguments with ``resume``.
        device: Device of the session.

    Returns:
        Content of ``run.json``.
    """
    known = identity_of(folder) if args.resume else {}
    if not known:
        # A run of an earlier version is not given an id afterwards, since copies of it would have different ids.
        known = {"id": None if args.resume else uuid.uuid4().hex, "sessions": [], **({} if args.resume else _parsed)}
    session = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **_session_facts(device)}
    if args.resume and _lengthens and _parsed["command"]:
        session["command"] = _parsed["command"]
    known = {**known, "sessions": [*known["sessions"], session]}
    readme = readme_text(folder, known, None)
    write_json(folder / FILE, known)
    write_text(folder / README, readme)
    return known


def identity_of(folder: Path | str) -> dict[str, Any]:
    """Read a run's ``run.json``; {} for a run of an earlier version.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return {}
    known = read_json(path)
    sessions = known.get("sessions") if isinstance(known, dict) else None
    whole = isinstance(sessions, list) and all(
        isinstance(one, dict) and _are_texts(one, ("started", "git_commit", "changes", "command")) for one in sessions
    )
    if not whole or not _are_texts(known, ("id", "script", "command")):
        raise UserError(f"{path} does not identify a run; restore the file or remove it")
    return known


def _are_texts(entries, names):
    return all(isinstance(entries.get(name), (str, type(None))) for name in names)


def commands_of(identity: Mapping[str, Any]) -> list[str]:
    """The commands that repeat a run, in order: the first one, and those that resumed it to make it longer.

    Args:
        identity: Content of ``run.json``. The list is empty if it has no command.
    """
    sessions = [session.get("command") for session in identity.get("sessions") or []]
    return [command for command in (identity.get("command"), *sessions) if command] if identity.get("command") else []


def search_identity(source: Path | str, resumed: Path | str | None = None) -> dict[str, str]:
    """``{"search_id": id}`` of the search run that an architecture comes from; {} if it has no id.

    Args:
        source: A run folder, or a file in one.
        resumed: Folder of the training if it is resumed. If the source is not there any more, the id comes from the
            training's result, or from the search whose folder contains the training.
    """
    path = Path(source)
    with contextlib.suppress(UserError):
        if resumed is not None and not path.exists():
            return _search_around(Path(resumed))
        known = identity_of(path if path.is_dir() else path.parent).get("id")
        return {"search_id": known} if known else {}
    return {}


def _search_around(folder):
    result = read_json(folder / "result.json") if (folder / "result.json").exists() else {}
    origin = result.get("architecture") if isinstance(result, dict) else None
    if isinstance(origin, dict) and origin.get("search_id"):
        return {"search_id": origin["search_id"]}
    known = identity_of(folder.resolve().parent)
    place = stage_of(known.get("script") or "")
    return {"search_id": known["id"]} if place and place[1] == "search" and known.get("id") else {}


def git_commit() -> str | None:
    """Commit of the project, followed by "-dirty" if tracked files have changed; None outside a git checkout."""
    text = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return text.strip() if text is not None else None


def _session_facts(device: torch.device) -> dict[str, Any]:
    """What a session computes with: commit, hash of uncommitted changes (or None), torch version, and device."""
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
    """Text of a run folder's ``README.md``.

    Args:
        folder: The run folder.
        identity: Content of ``run.json``.
        result: Content of ``result.json``; None if the run is not finished.
    """
    folder = Path(folder)
    script = identity.get("script")
    state = "finished" if result else "under way, or interrupted"
    lines = [f"# {folder.name}", "", f"A run of `{script or 'a script of this suite'}`: {state}."]
    if result:
        lines += ["", *_facts(result)]
    commands = commands_of(identity)
    name = "Command" if len(commands) < 2 else "Commands, one after another"
    lines += ["", *([f"{name}:", "", *(f"    {one}" for one in commands), ""] if commands else [])]
    if result:
        lines += ["Scores:", "", *_scores(result), ""]
    resume = resume_command(folder, identity)
    steps = [("continue it" if result is None else "make it longer", resume + (" --epochs N" if result else ""))]
    steps = (next_commands(script, folder) if script and result else []) + steps
    steps.append(("report it on an HTML page", f"python report.py {quoted(folder)} --out report.html"))
    lines += ["Next:", "", *(f"- {what}: `{command}`" for what, command in steps), ""]
    if result:
        lines += ["`result.json` has all scores and their provenance, `log.jsonl` one line per epoch."]
    else:
        lines += ["`log.txt` shows the progress, `log.jsonl` has one line per finished epoch."]
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
