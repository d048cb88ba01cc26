"""The ``README.md`` of a run folder: what the run is, its command and result, and how to go on. One screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.scripts import next_commands

FILE = "README.md"
# Longer lists of scores stand in result.json.
MAX_SCORES = 8


def run_readme(folder: Path | str, identity: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    """Text of the file.

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
