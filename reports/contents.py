"""The contents of a report: turns comparisons into tables of text, and these into Markdown, LaTeX and CSV."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from reports.comparing import CONFIDENCE, Comparison, Row, Statistic, parameters, search_seconds
from reports.reading import NOT_RECORDED, RunRecord
from reports.tables import Table, csv_text, latex, markdown
from util.cli import quoted

# Scores that are fractions, shown in percent.
_FRACTIONS = re.compile(r"f1|acc|iou|R@|recall|^yes/no$|^number$|^other$", re.IGNORECASE)
_KINDS = {"training": "trained networks", "search": "searches"}
ABOUT = (
    "A row is a set of runs that differ only in their seeds: mean ± sample standard deviation over n seeds. "
    f"Differences are paired by seed; the interval is Student's t interval at {CONFIDENCE:.0%}, not corrected for the "
    "number of comparisons."
)


@dataclasses.dataclass
class Section:
    """A comparison with its tables, in the order in which they are shown."""

    title: str
    comparison: Comparison
    tables: list[Table]


def sections_of(comparisons: Sequence[Comparison]) -> list[Section]:
    """The sections of a report."""
    return [Section(_title(one), one, _tables(one)) for one in comparisons]


def _title(comparison):
    return f"{comparison.task}: {_KINDS.get(comparison.kind, f'{comparison.kind} runs')}"


def _tables(comparison):
    tables = [_main_table(comparison)] if comparison.rows else []
    tables += [_difference_table(comparison)] if comparison.differences else []
    tables += [_published_table(table) for table in comparison.published]
    tables += [_left_out_table(comparison)] if comparison.left_out else []
    return tables


def as_markdown(sections: Sequence[Section]) -> str:
    """The whole report as Markdown, with the commands that reproduce each row."""
    parts = ["# Report", ABOUT]
    for section in sections:
        parts += [f"## {section.title}", *(markdown(table).rstrip() for table in section.tables)]
        commands = [
            f"{row.label}:\n\n" + "\n".join(f"    {line}" for line in commands_of(row))
            for row in section.comparison.rows
        ]
        parts += ["### Commands that repeat the rows", *commands] if commands else []
    return "\n\n".join(parts) + "\n"


def as_latex(sections: Sequence[Section]) -> str:
    """All tables as LaTeX."""
    head = "% Tables for \\usepackage{booktabs}.\n"
    return head + "\n".join(f"% {s.title}\n" + "\n".join(map(latex, s.tables)) for s in sections)


def as_csv(sections: Sequence[Section]) -> str:
    """All rows as CSV, with one line per score; scores are as in ``result.json``, times in seconds."""
    columns = ["task", "kind", "what", "strategy", "architecture", "settings", "split", "score", "mean"]
    columns += ["standard_deviation", "runs", "seeds", *(name for name, *_ in _FACTS), "data", "scored", "selection"]
    columns += ["precision", "commit", "not_comparable_with_published", "not_comparable_with_rows"]
    lines = []
    for section in sections:
        comparison = section.comparison
        for row in comparison.rows:
            about = [comparison.task, comparison.kind, *row.name, row.first.source, ", ".join(row.unlike)]
            facts = [_plain(row.fact(function)) for _, function, _ in _FACTS]
            ends = [*dataclasses.astuple(row.conditions), "; ".join(row.not_published), "; ".join(row.not_rows)]
            for split, name in comparison.columns:
                if (score := row.score(split, name)) is not None:
                    deviation = "" if math.isnan(score.deviation) else score.deviation
                    seeds = " ".join(map(str, row.seeds))
                    lines.append([*about, split, name, score.mean, deviation, score.count, seeds, *facts, *ends])
    return csv_text(columns, lines)


def _plain(value: Statistic | None) -> float | str:
    return "" if value is None else value.mean


def commands_of(row: Row) -> list[str]:
    """The commands of a row's runs, each preceded by those of its search."""
    lines = []
    for run in row.runs:
        for one in (run.search, run):
            if one is not None:
                lines += one.commands or [f"# {one.folder}: its command was not recorded; its flags are in args.json"]
                lines += _unrecorded(one)
    return list(dict.fromkeys(lines))


def _unrecorded(run):
    """A comment on a run that earlier versions continued for longer, since they did not record the command."""
    given = re.search(r"--epochs[ =](\d+)", run.commands[-1]) if run.commands else None
    epochs, resumed = run.arguments.get("epochs"), len(run.identity.get("sessions") or []) > 1
    if given and resumed and epochs != int(given[1]):
        return [
            f"# then it was resumed, until epoch {epochs}: python {run.identity.get('script')} --resume "
            f"{quoted(run.folder)} --epochs {epochs}"
        ]
    return []


def in_percent(comparison: Comparison, split: str, name: str) -> bool:
    """Whether a score is a fraction, and so shown in percent."""
    scores = [row.score(split, name) for row in comparison.rows]
    return bool(_FRACTIONS.search(name)) and all(score is None or 0 <= score.mean <= 1 for score in scores)


def shown_score(value: Statistic | None, percent: bool) -> str:
    """A score's mean and deviation, as text."""
    if value is None:
        return "-"
    factor, digits = (100, 2) if percent else (1, 4)
    deviation = "" if math.isnan(value.deviation) else f" ± {factor * value.deviation:.{digits}f}"
    return f"{factor * value.mean:.{digits}f}{deviation}"


def _seconds(value: Statistic) -> str:
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (math.inf, 3600, "h")):
        if value.mean < limit:
            return f"{value.mean / unit:.1f} {name}"
    return NOT_RECORDED


def _count(value: Statistic) -> str:
    return f"{value.mean:,.0f}" + (f" ± {value.deviation:,.0f}" if value.deviation > 0 else "")


# Name of a fact, function that reads it from a run, and function that formats it.
_FACTS: list[tuple[str, Callable[[RunRecord], float | None], Callable[[Statistic], str]]] = [
    ("parameters", parameters, _count),
    ("search time", search_seconds, _seconds),
    ("run time", lambda run: run.result.get("seconds"), _seconds),
    ("peak memory, MiB", lambda run: run.result.get("peak_memory_mb"), _count),
]


def _fact(row, name, function, show):
    if name == "search time" and row.first.source != "searched":
        return "-"
    devices = {run.result.get("device") for run in row.runs}
    if "time" in name and len(devices) > 1:
        return "several devices"
    value = row.fact(function)
    return NOT_RECORDED if value is None else show(value)


def _main_table(comparison):
    rows = comparison.rows
    scores = {}
    for split, name in comparison.columns:
        percent = in_percent(comparison, split, name)
        title = f"{split} {name}{', %' if percent else ''}"
        scores[title] = [shown_score(row.score(split, name), percent) for row in rows]
    facts = {name: [_fact(row, name, function, show) for row in rows] for name, function, show in _FACTS}
    if comparison.kind == "search":
        del facts["run time"]
    columns: dict[str, list[str]] = {
        "what": [row.label for row in rows],
        **scores,
        "n": [str(len(row.runs)) for row in rows],
        "seeds": [", ".join(map(str, row.seeds)) or NOT_RECORDED for row in rows],
        **facts,
    }
    notes = _common_facts(rows, columns)
    notes = [*_reasons(rows, columns), *notes]
    numbers = frozenset([*scores, "n", *facts])
    if any(row.first.result.get("parameters", {}).get("backbones") for row in rows):
        notes.append(
            "Parameters are those of the fusion and the classifier, without backbones; for a single modality, all."
        )
    if beyond := [run.folder.name for row in rows for run in row.runs if run.search_went_on]:
        names = ", ".join(beyond[:5]) + (f" and {len(beyond) - 5} more" if len(beyond) > 5 else "")
        notes.append(
            f"The search continued beyond the epoch whose architecture was trained, so the search time shown is longer "
            f"than the time that led to that architecture: {names}."
        )
    body = [list(cells) for cells in zip(*columns.values(), strict=True)]
    return Table(f"{_title(comparison)}, means over seeds", list(columns), body, notes, numbers)


def _reasons(rows, columns):
    """Why rows cannot be compared: return notes with the reasons that all rows share, add columns with the others."""
    notes = []
    for other, reasons in {
        "published": [row.not_published for row in rows],
        "other": [row.not_rows for row in rows],
    }.items():
        shared = [reason for reason in reasons[0] if all(reason in own for own in reasons)]
        if shared:
            notes.append(f"Not comparable with {other} rows, all rows: {'; '.join(shared)}.")
        further = [[reason for reason in own if reason not in shared] for own in reasons]
        if any(further):
            columns[f"not comparable with {other} rows"] = ["; ".join(own) or "-" for own in further]
    return notes


def _common_facts(rows, columns):
    """Return notes with the facts that all rows share, and add columns with the others."""
    facts: dict[str, list[str]] = {
        "architecture from": [row.first.source for row in rows],
        "data": [row.conditions.data for row in rows],
        "split": [row.conditions.split for row in rows],
        "selection": [row.conditions.selection for row in rows],
        "precision": [row.conditions.precision for row in rows],
        "commit": [row.conditions.commit for row in rows],
        "device": [
            ", ".join(sorted({str(run.result.get("device", NOT_RECORDED)) for run in row.runs})) for row in rows
        ],
    }
    notes = []
    for name, values in facts.items():
        if len(set(values)) == 1:
            notes.append(f"All rows, {name}: {values[0]}.")
        else:
            columns[name] = values
    return notes


def _difference_table(comparison):
    rows = []
    percent = in_percent(comparison, *comparison.columns[0])
    factor, digits, unit = (100, 2, "percentage points") if percent else (1, 4, "of the score")
    for one in comparison.differences:
        low, high = one.low, one.high
        interval = (
            f"none: {one.no_interval}"
            if one.no_interval
            else f"{factor * low:+.{digits}f} to {factor * high:+.{digits}f}"
        )
        certain = "-" if one.no_interval else "no" if low <= 0 <= high else "yes"
        rows.append(
            [one.first.label, one.second.label, f"{factor * one.mean:+.{digits}f}", interval, str(one.count), certain]
        )
    columns = ["first", "second", "first minus second", f"{CONFIDENCE:.0%} interval", "n", "interval excludes 0"]
    notes = [f"In {unit}, over the seeds that both rows have. Only rows with equal conditions are compared."]
    caption = f"{comparison.task}: paired differences of {comparison.differences[0].score}"
    return Table(caption, columns, rows, notes, frozenset(["first minus second", f"{CONFIDENCE:.0%} interval", "n"]))


def _published_table(table: dict[str, Any]) -> Table:
    rows = []
    for row in table["rows"]:
        cells = [
            _published_cell(v, table["digits"].get(n)) for v, n in zip(row["values"], table["columns"], strict=True)
        ]
        rows.append([*cells, f"{row['source']} ({row['status']})"])
    caption = f"Published, not run here: {table['title']}"
    return Table(caption, [*table["columns"], "source"], rows, list(table["notes"]), frozenset(table["digits"]))


def _published_cell(value, digits):
    if value is None:
        return "-"
    if isinstance(value, list):  # mean and deviation
        return " ± ".join(_published_cell(part, digits) for part in value)
    if isinstance(value, str):
        return value
    return f"{value:.{digits}f}" if digits is not None else f"{value:,}"


def _left_out_table(comparison):
    rows = [
        [str(run.folder), run.what, NOT_RECORDED if run.seed is None else str(run.seed), reason]
        for run, reason in comparison.left_out
    ]
    caption = f"{_title(comparison)} that are in no average"
    return Table(caption, ["folder", "what", "seed", "reason"], rows)
