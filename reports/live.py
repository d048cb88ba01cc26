"""The state of runs in progress, for `watch.py`: epoch, scores, and the current architecture."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from reports.page import figure_html, table_html
from reports.pictures import Picture, architecture_of, entropy_picture, probability_picture, scores_by_epoch
from reports.reading import RunRecord, find_run_folders
from reports.tables import Table
from util.cli import quoted
from util.hashes import short_hash
from util.plots import panels_svg

# Files whose change makes a page out of date.
_SIGNS = ("args.json", "log.jsonl", "result.json", "robustness.json")
# Runs in progress beyond this number are listed, but not drawn.
_MAX_DRAWN = 8
# Asks the server whether something has changed, and only then reloads the page.
_RELOAD = """<script>
const version = "VERSION";
setInterval(async () => {
  try {
    const now = await (await fetch("/version")).text();
    if (now !== version) location.reload();
  } catch (error) { /* the server has ended: keep what is shown */ }
}, 2000);
</script>"""


def reload_script(version: str) -> str:
    """HTML that reloads a page once another version of it is served.

    Args:
        version: Version of the page, from `version_of`.
    """
    return _RELOAD.replace("VERSION", version)


def version_of(places: Iterable[Path | str]) -> str:
    """A string that changes when a run in or below the folders has logged something, has ended, or is new."""
    facts = []
    for folder in find_run_folders(places):
        for name in _SIGNS:
            try:
                status = os.stat(folder / name)
            except OSError:
                continue
            facts.append([str(folder), name, status.st_size, status.st_mtime_ns])
    return short_hash(facts)


def under_way(records: Sequence[RunRecord]) -> str:
    """HTML about the runs without a result: a table, then curves and current architectures."""
    running = [record for record in records if not (record.folder / "result.json").exists()]
    if not running:
        return "<p>No run is in progress: all have a result.</p>"
    parts = [
        '<section aria-labelledby="now"><h2 id="now">Runs in progress or interrupted</h2>',
        table_html(_table(running)),
    ]
    for record in sorted(running, key=_last_sign, reverse=True)[:_MAX_DRAWN]:
        parts += [figure_html(picture) for picture in _pictures(record)]
    return "\n".join([*parts, "</section>"])


def present_architecture(record: RunRecord) -> str:
    """The architecture of the last epoch as text, and for how many epochs it has been the same."""
    if not record.epochs or record.epochs[-1].genotype is None:
        return "-"
    architecture = architecture_of(record.epochs[-1].genotype)
    stable = record.epochs[-1].stable_epochs or 0
    since = f"unchanged for {stable} epoch{'s' if stable != 1 else ''}" if stable else "changed in the last epoch"
    return f"{architecture if architecture else 'in an unknown format'}; {since}"


def _table(running):
    columns = ["run", "epochs done", "last scores", "current architecture", "last activity", "command to continue"]
    rows = []
    for record in running:
        last = record.epochs[-1].scores if record.epochs else {}
        shown = [f"{split} {name} {value:.4f}" for split, scores in last.items() for name, value in scores.items()]
        script = record.identity.get("script") or "<its script>"
        rows.append(
            [
                str(record.folder),
                f"{len(record.epochs)} of {record.arguments.get('epochs', '?')}",
                ", ".join(shown[:8]) or "-",
                present_architecture(record),
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_last_sign(record))),
                f"python {script} --resume {quoted(record.folder)}",
            ]
        )
    return Table("Runs without a result", columns, rows)


def _last_sign(record):
    """Time of the last change of the run's log."""
    for name in ("log.txt", "args.json"):
        try:
            return os.stat(record.folder / name).st_mtime
        except OSError:
            continue
    return 0.0


def _pictures(record):
    name = record.folder.name
    logged = dict.fromkeys((s, n) for epoch in record.epochs for s, scores in epoch.scores.items() for n in scores)
    if logged:
        panels = {f"{split} {score}": scores_by_epoch([record], split, score) for split, score in list(logged)[:12]}
        yield Picture(f"{name}: losses and scores by epoch", panels_svg(panels))
    yield from entropy_picture(name, [record])
    picture = probability_picture(record)
    if picture:
        yield Picture(f"{name}: {picture.caption}", picture.svg)
    drawn = record.folder / "architectures" / f"epoch_{len(record.epochs) - 1}.svg"
    if drawn.exists():
        yield Picture(f"{name}: {present_architecture(record)}", drawn.read_text(encoding="utf-8", errors="replace"))


def nothing_yet(places: Iterable[Path | str], version: str) -> str:
    """A page for folders without a run."""
    names = escape(", ".join(map(str, places)))
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>No runs yet</title></head>'
    return f"{head}<body><p>No run yet in {names}.</p>{reload_script(version)}</body></html>"
