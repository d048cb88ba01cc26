"""What the checks of all data sets share: findings, counts, samples with a fixed seed, parallel reading, repeats."""

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
# Lines for findings of one kind, and samples that a process reads at a time.
LISTED, CHUNK = 5, 16
DIED = "make the process that reads them die (faulty decoder, or out of memory)"


class Finding(NamedTuple):
    """One line of the table: ``error``, ``warning`` or ``note``; where; what; and what to do (may be empty)."""

    severity: str
    place: str
    text: str
    fix: str = ""


class Part(NamedTuple):
    """A split with its number of samples, the official number (None: there is none) and its source."""

    name: str
    count: int
    official: int | None = None
    source: str = ""


class Seen:
    """What reading some samples gave.

    Attributes:
        faults: list of (severity, kind, name of the sample, text); faults of a kind are counted together.
        ranges: What was read -> (smallest, largest) value.
        measured: Name of a measure -> list of its values, one per sample.
    """

    def __init__(self):
        self.faults, self.ranges, self.measured = [], {}, {}

    def fault(self, severity, kind, name, text=None):
        """Add a fault of ``kind``, a short text; ``text`` is what to say of this sample, if it is more."""
        self.faults.append((severity, kind, str(name), text or kind))

    def values(self, what, name, array, *, constant="warning"):
        """Take the values of an array into account: NaN and infinite ones are errors, a single value is ``constant``.

        Args:
            what: What the array is, a plural.
            name: Name of the sample.
            array: Numbers; an empty array is not looked at.
            constant: Severity of an array whose values are all the same; None: that is fine.
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
        """Add what another `Seen` holds."""
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
        workers: Processes that read with ``full``.

    Attributes:
        about: Lines that say what is there.
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
        """Add an error about something that is not there; ``fix`` makes it."""
        self.add("error", path, f"{what} missing", fix)

    @contextlib.contextmanager
    def catching(self, place):
        """Turn a `UserError` in this block, which names its remedy itself, into a finding."""
        try:
            yield
        except UserError as error:
            self.add("error", place, " ".join(str(error).split()))

    def count(self, name, count, official=None, source="", fix=""):
        """Note the size of a part, and compare it with the official one where there is one."""
        self.parts.append(Part(name, count, official, source))
        if official is not None and count != official:
            self.add("warning", name, f"{count:,} samples, the official number is {official:,} ({source})", fix)

    def read(self, function, items, *, what, place, unit="sample", alone=False):
        """Read samples, some of them or, with ``full``, all in parallel.

        Args:
            function: Function (picklable) of a list of items, which returns a `Seen`.
            items: List of picklable items.
            what: What is read, a plural, for the summary.
            place: Where it is.
            unit: Of the progress bar.
            alone: Only this process can read them.

        Returns:
            The `Seen` of all; its faults are findings already.
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
        """Add faults as of `Seen.faults`: the first ones of each kind, and the number of the others."""
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
            place: Where.
            parts: Name of a part -> {what identifies a sample: its name}.
            what: What is repeated, a plural.
            severity: Of these findings.
            fix: What to do.
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
        """Exit status: 0: nothing is wrong (notes at most); 1: errors; 3: warnings only."""
        found = {finding.severity for finding in self.findings}
        return 1 if "error" in found else 3 if "warning" in found else 0

    def text(self):
        """Everything as text: what is there, the counts, and the table of findings."""
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
    """The `Path` of ``data``; None, with a finding, if it does not exist."""
    path = Path(data)
    if path.exists():
        return path
    report.missing(path, "the data are", fix)
    return None
