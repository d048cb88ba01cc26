"""Groups runs that differ only in their seed, and compares the groups.

Runs are averaged only if they agree in everything that a score depends on: what was trained, settings, data, split,
selection rule, precision and commit. Every other run has its own row, and each row explains what it cannot be compared
with.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from reports.conditions import Conditions, conditions_of, random_backbones, settings_of, unpublished
from reports.reading import NOT_RECORDED, RunRecord
from util.files import read_json
from util.hashes import short_hash

PUBLISHED = Path(__file__).resolve().parent.parent / "docs" / "paper_results.json"
# With more rows than this, only the differences from the first one are shown.
ALL_PAIRS = 8
CONFIDENCE = 0.95
# Differences of scores that are equal up to this are equal.
ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A mean over seeds; ``deviation`` is the sample standard deviation, NaN for a single run."""

    mean: float
    deviation: float
    count: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """Score of row ``first`` minus that of row ``second``, averaged over the seeds that both have.

    ``low`` and ``high`` are the ends of the confidence interval of the mean. They are NaN, and ``no_interval`` has the
    reason, for fewer than two seeds, or if all seeds differ by the same amount.
    """

    first: Row
    second: Row
    score: str
    mean: float
    low: float
    high: float
    count: int
    no_interval: str = ""


@dataclasses.dataclass
class Row:
    """Runs that differ only in their seeds.

    Attributes:
        runs: The runs, sorted by seed.
        conditions: See `Conditions`.
        settings: The arguments that scores depend on, without paths.
        unlike: The settings that distinguish it from rows with the same name.
        not_published: Why it cannot be compared with published rows, in words.
        not_rows: Why it cannot be compared with the other rows of its table, in words.
    """

    runs: list[RunRecord]
    conditions: Conditions
    settings: dict[str, Any]
    unlike: list[str] = dataclasses.field(default_factory=list)
    not_published: list[str] = dataclasses.field(default_factory=list)
    not_rows: list[str] = dataclasses.field(default_factory=list)

    @property
    def first(self) -> RunRecord:
        """One of the runs."""
        return self.runs[0]

    @property
    def name(self) -> tuple[str, str]:
        """What was trained, and the strategy."""
        return self.first.what, self.first.strategy

    @property
    def label(self) -> str:
        """The name and what distinguishes it from rows with the same name, as text."""
        strategy = f", {self.first.strategy}" if self.first.strategy != "-" else ""
        return self.first.what + strategy + (f" ({', '.join(self.unlike)})" if self.unlike else "")

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs, without runs that have none."""
        return [run.seed for run in self.runs if run.seed is not None]

    def score(self, split: str, name: str) -> Statistic | None:
        """Mean of a score; None if a run lacks it."""
        values = [run.metrics.get(split, {}).get(name) for run in self.runs]
        return statistic([value for value in values if value is not None]) if None not in values else None

    def fact(self, function: Any) -> Statistic | None:
        """Mean of ``function(run)`` over the runs; None if it returns None for one of them."""
        values = [function(run) for run in self.runs]
        return None if None in values else statistic(values)


@dataclasses.dataclass
class Comparison:
    """All runs of one kind and task: the content of a table.

    Attributes:
        task: Name of the task.
        kind: ``training``, ``search``, or an evaluation (``test``, ``val``).
        columns: The scores that are shown: pairs (split, score). Rows are compared by the first one.
        rows: The rows; those that are comparable with the others come first.
        left_out: Runs that are in no average: pairs (run, reason).
        differences: Paired differences of comparable rows.
        published: Tables of published figures, as in ``docs/paper_results.json``, with their sources.
    """

    task: str
    kind: str
    columns: list[tuple[str, str]]
    rows: list[Row]
    left_out: list[tuple[RunRecord, str]]
    differences: list[Difference]
    published: list[dict[str, Any]]


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Statistic(statistics.fmean(values), deviation, len(values))


def compare(records: Sequence[RunRecord], published: Path | str = PUBLISHED) -> list[Comparison]:
    """Group and compare the runs.

    Args:
        records: From `reports.reading.read_runs`.
        published: File of the published figures.

    Returns:
        One `Comparison` for each task and kind of run, sorted by task; trainings before searches before evaluations.
    """
    figures = read_json(published)
    tables: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        tables[record.task, record.kind].append(record)
    order = {"training": 0, "search": 1}
    keys = sorted(tables, key=lambda key: (key[0], order.get(key[1], 2), key[1]))
    return [_comparison(task, kind, tables[task, kind], figures) for task, kind in keys]


def _comparison(task, kind, records, figures):
    left_out = [(record, "; ".join(record.faults)) for record in records if record.faults]
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if not record.faults:
            groups[_group_key(record)].append(record)
    rows = []
    for members in groups.values():
        kept, repeats = _one_per_seed(members)
        left_out += repeats
        rows.append(Row(kept, conditions_of(kept[0]), settings_of(kept[0])))
    _name_settings(rows)
    _mark(rows, [count for count in figures["counts"] if count.get("task") == task])
    rows.sort(key=lambda row: (bool(row.not_rows), row.label))
    columns = columns_of(rows)
    tables = [_with_sources(table, figures) for table in figures["tables"] if table.get("task") == task]
    shown = tables if kind == "training" and rows else []
    return Comparison(task, kind, columns, rows, left_out, _differences(rows, columns), shown)


def _with_sources(table, figures):
    rows = [
        {**row, "source": figures["sources"][row["source"]]["title"], "status": figures["statuses"][row["status"]]}
        for row in table["rows"]
    ]
    return {**table, "rows": rows}


def _group_key(record: RunRecord) -> str:
    searched = settings_of(record.search) if record.search else None
    architecture = record.result.get("genotype") if record.source.startswith("file") else None
    apart = [_evaluated(record), random_backbones(record)]
    apart.append(_search_faults(record))
    if record.strategy == NOT_RECORDED:  # its search is gone, so it may have had any strategy and settings
        apart.append(str(record.result.get("architecture")))
    name = [record.what, record.strategy, record.source]
    return short_hash(
        name, settings_of(record), searched, architecture, apart, list(dataclasses.astuple(conditions_of(record)))
    )


def _evaluated(record):
    """The training that an evaluation scored, as a text; the evaluation itself if that is not recorded; else None."""
    if record.kind in ("training", "search"):
        return None
    known = record.training
    if known.get("checksum"):
        return f"{known.get('id') or known.get('folder')} {known['checksum']}"
    return str(record.folder)


def _search_faults(record):
    """Faults of a run's search, without details that differ from run to run."""
    return sorted({fault.partition(":")[0] for fault in record.search.faults}) if record.search else []


def _one_per_seed(members):
    """The first run of each seed, sorted by seed, and the repeats as pairs (run, reason)."""
    kept: dict[Any, RunRecord] = {}
    repeats = []
    for record in sorted(members, key=lambda record: (str(record.seed), _started(record), str(record.folder))):
        first = kept.setdefault(record.seed, record)
        if first is not record:
            same = "the same scores" if first.content == record.content else "OTHER scores"
            repeats.append((record, f"another run has seed {record.seed}, with {same}: {first.folder}"))
    return sorted(kept.values(), key=lambda record: (record.seed is None, record.seed)), repeats


def _started(record):
    sessions = record.identity.get("sessions") or [{}]
    return sessions[0].get("started", "")


def _name_settings(rows):
    """Set `Row.unlike` of rows with equal names to the settings that distinguish them."""
    same: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        same[row.name].append(row)
    for alike in (group for group in same.values() if len(group) > 1):
        shown = [_all_settings(row) for row in alike]
        names = sorted({name for settings in shown for name in settings})
        differing = [name for name in names if len({str(settings.get(name)) for settings in shown}) > 1]
        for row, settings in zip(alike, shown, strict=True):
            row.unlike = [f"{name} {settings.get(name, NOT_RECORDED)}" for name in differing]


def _all_settings(row):
    searched = row.first.search
    before = {f"search {name}": value for name, value in settings_of(searched).items()} if searched else {}
    before |= {"search": ", ".join(_search_faults(row.first)) or "sound"} if searched else {}
    if _evaluated(row.first):
        known, folder = row.first.training, row.first.folder
        name = Path(known["folder"]).name if known.get("checksum") else f"{folder.parent.name}/{folder.name}"
        before |= {"of": name, "after epochs": known.get("epochs")}
    return {"processes": 1, **row.settings, **before, **dataclasses.asdict(row.conditions)}


def columns_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The scores that a table shows: pairs (split, score) without losses. Rows are compared by the first one."""
    columns: dict[tuple[str, str], None] = {}
    for row in rows:
        for split in row.first.scored_splits:
            names = [
                name for name, v in row.first.metrics[split].items() if isinstance(v, float) and "loss" not in name
            ]
            names = [name for name in names if name not in ("seconds", "epoch_share")]
            columns.update(dict.fromkeys((split, name) for name in sorted(names, key=lambda n: n != "mean_recall")))
    return list(columns)


def _mark(rows: list[Row], official: list[dict[str, Any]]) -> None:
    """Set `Row.not_published` and `Row.not_rows` of every row."""
    if not rows:
        return
    counts: Counter[Conditions] = Counter()
    for row in rows:
        counts[row.conditions] += len(row.runs)
    usual = counts.most_common(1)[0][0]
    most = max(len(row.runs) for row in rows)
    for row in rows:
        row.not_published = unpublished(row.first, official)
        row.not_rows = row.conditions.differences(usual)
        row.not_rows += [f"{len(row.runs)} of {most} seeds"] if len(row.runs) < most else []
        row.not_rows += _doubts(row)


def _doubts(row):
    """Doubts about the code and the searches of a row."""
    searches = [run.search for run in row.runs if run.search is not None]
    first = row.first
    if any(len(run.commits) > 1 for run in row.runs):
        yield "resumed at another commit than it began with"
    if first.search and set(first.search.commits) != set(first.commits):
        yield "searched at another commit than it was trained with"
    if first.is_outdated:
        yield "the training was continued after this run"
    if "dirty" in row.conditions.commit:
        yield "code with uncommitted changes"
    if not first.commits:
        yield "commit not recorded"
    if first.strategy == NOT_RECORDED:
        yield "its search was not found, so the strategy is unknown"
    faults = dict.fromkeys(
        f"search {search.folder.name}: {'; '.join(search.faults)}" for search in searches if search.faults
    )
    yield from faults


def _differences(rows, columns):
    """Differences of the first score between rows with the same conditions and sound searches."""
    if not columns:
        return []
    split, name = columns[0]
    scored = [row for row in rows if row.score(split, name) is not None and not _search_faults(row.first)]
    scored = [row for row in scored if not row.first.is_outdated]
    pairs = combinations(scored, 2) if len(scored) <= ALL_PAIRS else ((scored[0], row) for row in scored[1:])
    found = (difference(a, b, split, name) for a, b in pairs if a.conditions == b.conditions)
    return [one for one in found if one is not None]


def difference(first: Row, second: Row, split: str, name: str) -> Difference | None:
    """The paired difference of a score between two rows; None if they share no seed.

    The interval is Student's t interval of the mean difference at `CONFIDENCE`.
    """
    ours = {run.seed: run.metrics[split][name] for run in first.runs}
    theirs = {run.seed: run.metrics[split][name] for run in second.runs}
    values = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not values:
        return None
    mean, low, high = statistics.fmean(values), math.nan, math.nan
    missing = "one common seed" if len(values) == 1 else ""
    if len(values) > 1 and max(values) - min(values) <= ROUNDING:
        missing = "equal differences"  # their spread says nothing about other seeds
    if not missing:
        from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take seconds to import

        reach = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
        reach *= statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - reach, mean + reach
    return Difference(first, second, f"{split} {name}", mean, low, high, len(values), missing)


def search_seconds(record: RunRecord) -> float | None:
    """Seconds of a search; for a training, those of its search."""
    if record.kind == "search":
        return record.result.get("seconds")
    return record.search.result.get("seconds") if record.search else None


def parameters(record: RunRecord) -> float | None:
    """Number of weights of the network, without its backbones if the result counts them separately."""
    counts: Mapping[str, int] = record.result.get("parameters") or {}
    if not counts:
        return None
    own = sum(count for name, count in counts.items() if name not in ("backbones", "architecture", "fusion_part"))
    return float(own or sum(counts.values()))
