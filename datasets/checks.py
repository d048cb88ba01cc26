"""Shared by the checks of all data sets: findings, counts, samples with a fixed seed, parallel reading, repeats."""

import contextlib
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.storage.workers import map_tasks
from util.cli import UserError
from util.progress import progress

SEVERITIES = ("error", "warning", "note")
# Samples of a part that are read without --full, and the seed that chooses them.
SAMPLE, SEED = 64, 0
# Findings of one kind that are listed, and samples that a process reads at a time.
LISTED, CHUNK = 5, 16
DIED = "crash the process that reads them (faulty decoder or out of memory)"


class Finding(NamedTuple):
    """One line of the table: ``error``, ``warning`` or ``note``; the place; the text; and a remedy (may be empty)."""

    severity: str
    place: str
    text: str
    fix: str = ""


class Part(NamedTuple):
    """A split: its number of samples, the official number (None if there is none) and the source of the latter."""

    name: str
    count: int
    official: int | None = None
    source: str = ""


class Seen:
    """What was seen when samples were read.

    Attributes:
        faults: list of (severity, kind, name of the sample, text); faults of a kind are counted together.
        ranges: dict what was read -> (smallest, largest) value.
        measured: dict name of a measure -> list of its values, one per sample.
    """

    def __init__(self):
        self.faults, self.ranges, self.measured = [], {}, {}

    def fault(self, severity, kind, name, text=None):
        """Add a fault of ``kind`` (a short text); ``text`` replaces it in the line of this sample."""
        self.faults.append((severity, kind, str(name), text or kind))

    def values(self, what, name, array, *, constant="warning"):
        """Check the values of an array, and extend the range of such arrays. NaN and infinite values are errors.

        Args:
            what: What the array is, a plural.
            name: Name of the sample.
            array: Numbers; an empty array is ignored.
            constant: Severity of an array whose values are all the same; None if that is no fault.
        """
        if not array.size:
            return
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            self.fault("error", f"{what} with NaN or infinite values", name)
            return
        low, high = array.min().item(), array.max().item()
        if low == high and constant:
            self.fault(constant, f"{what} in which all values are the same", name, f"every value is {low:g}")
        before = self.ranges.get(what, (low, high))
        self.ranges[what] = min(low, before[0]), max(high, before[1])

    def join(self, other):
        """Add the content of another `Seen`."""
        self.faults += other.faults
        for what, (low, high) in other.ranges.items():
            before = self.ranges.get(what, (low, high))
            self.ranges[what] = min(low, before[0]), max(high, before[1])
        for name, values in other.measured.items():
            self.measured.setdefault(name, []).extend(values)


class Report:
    """Everything that a check found.

    Args:
        full: Read every sample instead of some.
        workers: Number of processes that read with ``full``.

    Attributes:
        about: Lines that describe the data.
        parts: list of `Part`.
        findings: list of `Finding`.
    """

    def __init__(self, full=False, workers=1):
        self.full, self.workers = full, workers
        self.about, self.parts, self.findings = [], [], []

    def add(self, severity, place, text, fix=""):
        """Add a `Finding`."""
        self.findings.append(Finding(severity, str(place), text, fix))

    def missing(self, path, what, fix):
        """Add an error: ``what`` (with its verb, as in "the data are") is missing at ``path``; ``fix`` makes it."""
        self.add("error", path, f"{what} missing", fix)

    @contextlib.contextmanager
    def catching(self, place):
        """Context in which a `UserError`, whose message already names a remedy, becomes a finding."""
        try:
            yield
        except UserError as error:
            self.add("error", place, " ".join(str(error).split()))

    def count(self, name, count, official=None, source="", fix=""):
        """Record the size of a part, and add a warning if it differs from the official one."""
        self.parts.append(Part(name, count, official, source))
        if official is not None and count != official:
            self.add("warning", name, f"{count:,} samples, the official number is {official:,} ({source})", fix)

    def read(self, function, items, *, what, place, unit="sample", alone=False):
        """Read some of the samples or, with ``full``, all of them in parallel.

        Args:
            function: Function (picklable) of a list of items, which returns a `Seen`.
            items: List of picklable items.
            what: What is read, a plural, for the summary.
            place: Where the samples are, for the findings.
            unit: Unit of the progress bar.
            alone: Whether only this process can read the samples.

        Returns:
            One `Seen` of all samples; its faults have already been added to the findings.
        """
        chosen = self.some(items)
        chunks = [tuple(chosen[start : start + CHUNK]) for start in range(0, len(chosen), CHUNK)]
        results = map_tasks(function, chunks, self.workers if self.full and not alone else 1)
        seen = Seen()
        for chunk, part in progress(results, f"reading {what}", total=len(chunks), unit=f"{CHUNK} {unit}s"):
            if part is None:
                seen.fault("error", DIED, f"{len(chunk)} {what} from {chunk[0]} on")
            else:
                seen.join(part)
        self.take(place, seen, f"{what}: read {len(chosen):,} of {len(items):,}")
        return seen

    def take(self, place, seen, line):
        """Add the faults of a `Seen` to the findings, and ``line`` with its ranges to the summary."""
        self.faults(place, seen.faults)
        self.about.append(line)
        self.about += [f"  {name}: {low:g} to {high:g}" for name, (low, high) in sorted(seen.ranges.items())]

    def some(self, items):
        """All ``items`` (a sequence) with ``full``, else `SAMPLE` of them, in their order, always the same ones."""
        if self.full or len(items) <= SAMPLE:
            return list(items)
        rows = sorted(random.Random(SEED).sample(range(len(items)), SAMPLE))
        return [items[row] for row in rows]

    def faults(self, place, faults, fix=""):
        """Add faults in the form of `Seen.faults`: the first ones of each kind, and the number of the others."""
        kinds = {}
        for severity, kind, name, text in sorted(faults, key=lambda fault: fault[2]):
            kinds.setdefault((severity, kind), []).append((name, text))
        for (severity, kind), rows in sorted(kinds.items()):
            for name, text in rows[:LISTED]:
                self.add(severity, place, f"{name}: {text}", fix)
            if len(rows) > LISTED:
                self.add(severity, place, f"... and {len(rows) - LISTED:,} more: {kind}", fix)

    def repeats(self, place, parts, what, severity="error", fix=""):
        """Add findings about samples that are in two parts.

        Args:
            place: Where the samples are.
            parts: dict name of a part -> dict key of a sample (equal for equal samples) -> its name.
            what: What is repeated, a plural.
            severity: Severity of these findings.
            fix: The remedy.
        """
        names = list(parts)
        for number, first in enumerate(names):
            for second in names[number + 1 :]:
                shared = parts[first].keys() & parts[second].keys()
                common = sorted((str(parts[second][key]), str(parts[first][key])) for key in shared)
                if common:
                    one, other = common[0]
                    same = f"{one} (there {other})" if one != other else one
                    text = f"{len(common):,} {what} of {second} are also in {first}, first {same}"
                    self.add(severity, place, text, fix)

    @property
    def status(self):
        """Exit status: 0 without errors and warnings, 1 with errors, 3 with warnings only."""
        found = {finding.severity for finding in self.findings}
        return 1 if "error" in found else 3 if "warning" in found else 0

    def text(self):
        """The report as text: the description of the data, the counts, and the table of findings."""
        lines = list(self.about)
        if self.parts:
            rows = [("part", "samples", "official", "source of the official number")]
            for part in self.parts:
                official = "-" if part.official is None else f"{part.official:,}"
                rows.append((part.name, f"{part.count:,}", official, part.source))
            lines += ["", *_table(rows)]
        if self.findings:
            ordered = sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))
            rows = [("severity", "where", "finding")]
            rows += [(f.severity, f.place, f.text + (f"; {f.fix}" if f.fix else "")) for f in ordered]
            lines += ["", *_table(rows)]
        counts = {name: sum(f.severity == name for f in self.findings) for name in SEVERITIES}
        said = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
        return "\n".join([*lines, "", ", ".join(said) or "nothing is wrong"])


def _table(rows):
    rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def folder_or_file(report, data, fix):
    """The `Path` of ``data``; adds a finding and returns None if it does not exist."""
    path = Path(data)
    if path.exists():
        return path
    report.missing(path, "the data are", fix)
    return None
