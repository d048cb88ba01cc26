"""Checks that the result of a run matches its log and its arguments: a file may have been edited, or be outdated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.report import checksum, scores_of, with_present_names

# `Run.log_scores` writes scores into the log with four digits.
_DIGITS = 5.1e-5
# Entries of a result that a report reads, and their types; any may be missing.
_ENTRIES: dict[str, Any] = {
    "task": str,
    "kind": str,
    "protocol": str,
    "trained_on": str,
    "modality": str,
    "fusion": str,
    "git_commit": str,
    "device": str,
    "selected_epoch": int,
    "epochs": int,
    "seconds": (int, float),
    "peak_memory_mb": (int, float),
    "parameters": dict,
    "data": dict,
    "batch": dict,
    "architecture": dict,
    "backbones_started_from": dict,
    "training": dict,
    "genotype": dict,
    "run": dict,
    "arguments": dict,
}


def faults_of(
    folder: Path,
    result: Mapping[str, Any],
    arguments: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    identity: Mapping[str, Any] | None = None,
) -> list[str]:
    """Why a run must not be averaged with others: a list of sentences, [] if it may be.

    Args:
        folder: The run folder.
        result: Content of ``result.json``; empty if there is none.
        arguments: Content of ``args.json``.
        log: Records of ``log.jsonl``.
        identity: Content of ``run.json``; None or empty if there is none.
    """
    if not result:
        done = f"{len(log)} of {arguments['epochs']} epochs" if arguments.get("epochs") else f"{len(log)} epochs"
        return [f"interrupted or still running: no result, {done} done"]
    if "epochs" in result and len(log) > result["epochs"]:
        return [f"continued after its result (epoch {result['epochs']}) and not finished: {len(log)} epochs are logged"]
    changed = [*_checksum_fault(result), *_identity_faults(result, identity or {})]
    result = with_present_names(result)
    differences = [*changed, *_log_faults(result, log), *_text_faults(folder, result)]
    differences += _argument_faults(result, arguments)
    return [f"result.json does not match the run: {'; '.join(dict.fromkeys(differences))}"] if differences else []


def damaged_entries(result: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """Names of entries of a result and its arguments that have the wrong type; a report cannot use such a file."""
    if not result:
        return []
    entries = {name: result[name] for name in _ENTRIES if result.get(name) is not None}
    damaged = [name for name, value in entries.items() if not isinstance(value, _ENTRIES[name])]
    scores = result.get("metrics")
    if not isinstance(scores, dict) or not all(isinstance(values, dict) for values in scores.values()):
        damaged.append("metrics")
    parts: dict[str, Any] = {"parameters": (int, float), "backbones_started_from": str}
    for name, kind in parts.items():
        if name not in damaged and not all(isinstance(value, kind) for value in entries.get(name, {}).values()):
            damaged.append(name)
    if arguments.get("seed") is not None and type(arguments["seed"]) is not int:
        damaged.append("seed")
    sessions = entries.get("run", {}).get("sessions", []) if "run" not in damaged else []
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        damaged.append("run")
    data = entries.get("data", {}) if "data" not in damaged else {}
    if not all(isinstance(data.get(name) or {}, dict) for name in ("identity", "samples")):
        damaged.append("data")
    return damaged


def _checksum_fault(result):
    if "checksum" in result and checksum(result) != result["checksum"]:
        yield "it was changed after the run"
    elif "checksum" not in result and "run" in result:  # every version that wrote "run" also wrote a checksum
        yield "its checksum was removed"


def _identity_faults(result, identity):
    """What differs between the run that the result names and ``run.json``."""
    named = result.get("run") or {}
    if not identity.get("id"):
        return  # a run of an earlier version
    if named.get("id") != identity["id"]:
        yield "run.json belongs to another run" if named else "it does not name its run, although run.json does"
    else:
        sessions = named.get("sessions", [])
        if sessions != identity.get("sessions", [])[: len(sessions)]:
            yield "run.json has other sessions"


def _log_faults(result, log):
    """What differs between the result and the epoch that it selects."""
    if "epochs" not in result:
        return  # an evaluation has no epochs
    if len(log) != result["epochs"]:
        yield f"it records {result['epochs']} epochs, log.jsonl has {len(log)}"
    chosen = [record for record in log if record["epoch"] == result.get("selected_epoch")]
    if not chosen:
        yield f"log.jsonl lacks the selected epoch {result.get('selected_epoch')}"
        return
    logged = scores_of(chosen[0])
    for split, scores in result["metrics"].items():
        for name, value in scores.items() if isinstance(scores, dict) else ():
            if split in logged and name in logged[split] and not _equal(value, logged[split][name]):
                yield f"{split} {name} is {value}, log.jsonl has {logged[split][name]}"
    best = [record["epoch"] for record in log if record.get("best")]
    if best and best[-1] != result.get("selected_epoch"):
        yield f"it selects epoch {result.get('selected_epoch')}, log.jsonl epoch {best[-1]}"


def _text_faults(folder, result):
    """What differs between the final scores and those in ``log.txt``, which have four digits."""
    try:
        text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for split, scores in result["metrics"].items():
        lines = re.findall(rf"INFO {re.escape(split)}: (.*)", text)
        if not lines or not isinstance(scores, dict):
            continue
        told = dict(part.rsplit(" ", 1) for part in lines[-1].split(", ") if " " in part)
        for name, value in scores.items():
            if name in told and not _near(value, told[name]):
                yield f"{split} {name} is {value}, log.txt has {told[name]}"


def _argument_faults(result, arguments):
    said = result.get("arguments")
    if isinstance(said, dict):
        for name in sorted((said.keys() | arguments.keys()) - {"resume"}):
            if said.get(name) != arguments.get(name):
                yield f"--{name} is {said.get(name)}, args.json has {arguments.get(name)}"


def _equal(value, logged):
    if value is None:  # NaN, in JSON
        return math.isnan(logged)
    return value == logged


def _near(value, text):
    try:
        told = float(text)
    except ValueError:
        return True  # another line
    if value is None or not isinstance(value, (int, float)):
        return math.isnan(told)
    return abs(value - told) <= _DIGITS
