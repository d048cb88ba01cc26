"""Find out what the labels of a table are: one class, several classes, or a number."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from datasets.own.manifest import OwnLabel
from datasets.own.tables import BadRow
from util.cli import UserError

# Whole numbers with at most this many distinct values are classes, unless the user says otherwise.
MAX_NUMBERED_CLASSES = 50
# Texts with more distinct values than this share of the rows are not classes; checked from `MIN_ROWS` rows on.
MAX_SHARE, MIN_ROWS = 0.5, 20
BINS = 10


class Labels:
    """The labels of all samples; each sample has the number of its distinct value.

    Args:
        name: The column.
        kind: ``auto``, ``class``, ``classes`` or ``number``.
        separator: Text between several classes in one cell; None if a cell contains only one.

    Attributes:
        codes: array of int: number of each sample's distinct value, -1 for a sample that is left out.
        label: The `OwnLabel`, after `decide`.
    """

    def __init__(self, name: str, kind: str = "auto", separator: str | None = None) -> None:
        self.name, self._kind, self._separator = name, kind, separator
        self._numbers: dict[Any, int] = {}
        self.codes, self._lists, self._fractions = array("q"), False, False

    def add(self, cell: Any) -> None:
        """Add the label of the next sample.

        Raises:
            BadRow: the cell has no usable label.
        """
        value = self._value(cell)
        self.codes.append(self._numbers.setdefault(value, len(self._numbers)))

    def add_none(self) -> None:
        """Add a sample that will be left out."""
        self.codes.append(-1)

    def _value(self, cell):
        if isinstance(cell, np.ndarray) and cell.ndim:
            self._lists = True
            if not np.isin(cell, (0, 1)).all():
                raise BadRow("has a label with values other than 0 and 1")
            return tuple(str(number) for number in np.flatnonzero(cell))
        if isinstance(cell, (list, tuple)):
            self._lists = True
            return tuple(sorted({str(one).strip() for one in cell if one is not None}))
        text = _text(cell)
        if not text or text.lower() == "nan":
            raise BadRow("has no label")
        if self._separator:
            return tuple(sorted({part.strip() for part in text.split(self._separator)} - {""}))
        return (text,) if self._kind == "classes" else text

    def decide(self, width: int | None = None) -> str:
        """Decide on the kind and the classes, and set ``label``; returns a sentence that describes the decision.

        Args:
            width: Number of classes, if labels are rows of 0 and 1.

        Raises:
            UserError: the labels do not fit the requested kind, or all are equal.
        """
        used = sorted({code for code in self.codes if code >= 0})
        values = list(self._numbers)
        values = [values[code] for code in used]
        why = ""
        if self._lists or self._separator or self._kind == "classes":
            self._check_asked("classes")
            self._decide_classes(values, width)
            why = f"rows of 0 and 1, {width} wide" if width else "several classes in a cell"
        else:
            numbers = _as_numbers(values)
            kind, found = self._guess(values, numbers)
            why = found if self._kind == "auto" else ""
            kind = kind if self._kind == "auto" else self._kind
            self._decide_single(kind, values, numbers)
        if len(values) < 2:
            raise UserError(f"all labels in {self.name} are equal ({values[0]!r}); there is nothing to learn")
        counted = f"{len(self.label.classes)} classes" if self.label.classes else f"{len(values)} different values"
        understood = f" (inferred from {why}; --label_kind overrides this)" if self._kind == "auto" else ""
        return f"label: {self.name}, {self.label.kind}, {counted}{understood}"

    def _check_asked(self, kind):
        if self._kind not in ("auto", kind):
            raise UserError(
                f"--label_kind {self._kind}: cells of {self.name} contain several classes; leave out --label_separator,"
                f" or give --label_kind {kind}"
            )

    def _guess(self, values, numbers):
        if numbers is not None:
            if any(number != int(number) for number in numbers):
                return "number", "numbers with fractions"
            if len(values) <= MAX_NUMBERED_CLASSES:
                return "class", f"whole numbers, {len(values)} different"
            return "number", f"whole numbers, {len(values)} different"
        rows = sum(code >= 0 for code in self.codes)
        if self._kind == "auto" and rows >= MIN_ROWS and len(values) > MAX_SHARE * rows:
            raise UserError(
                f"{self.name} has {len(values):,} different texts in {rows:,} rows, for example {values[0]!r}: these"
                " are hardly classes; name another --label, or give --label_separator (several classes in a cell) or"
                " --label_kind class"
            )
        return "class", f"texts, {len(values)} different"

    def _decide_single(self, kind, values, numbers):
        if kind == "number":
            if numbers is None:
                wrong = next(value for value in values if _as_numbers([value]) is None)
                hint = " (write a decimal comma as a point)" if re.fullmatch(r"[-+]?\d*,\d+", wrong) else ""
                raise UserError(
                    f"--label_kind number: {self.name} contains {wrong!r}, which is not a finite number{hint}"
                )
            self.label = OwnLabel(self.name, "number", ())
            self._of = dict(zip(values, numbers, strict=True))
            return
        order = values if numbers is None else [value for _, value in sorted(zip(numbers, values, strict=True))]
        names = order if numbers is not None else sorted(values)
        self.label = OwnLabel(self.name, "class", tuple(names))
        self._of = {name: number for number, name in enumerate(names)}

    def _decide_classes(self, values, width):
        names = sorted({name for value in values for name in value})
        if width:
            names = [str(number) for number in range(width)]
        elif (numbers := _as_numbers(names)) is not None:
            names = [name for _, name in sorted(zip(numbers, names, strict=True))]
        self.label = OwnLabel(self.name, "classes", tuple(names))
        place = {name: number for number, name in enumerate(names)}
        self._of = {}
        for value in values:
            row = np.zeros(len(names), np.uint8)
            row[[place[name] for name in value]] = 1
            self._of[value] = row

    def values(self) -> list:
        """List, indexed by ``codes``, of distinct values as class number, row of 0 and 1, or number; None if unused."""
        return [self._of.get(value) for value in self._numbers]

    def strata(self) -> np.ndarray:
        """Strata for drawing splits: int64 (N,), -1 for samples that are left out.

        The stratum of a sample is its class; with several classes, the rarest of them; if labels are numbers, one of
        ten ranges with equally many samples each.
        """
        codes, values = np.array(self.codes, dtype=np.int64), self.values()
        used = codes >= 0
        strata = np.full(len(codes), -1, np.int64)
        if self.label.kind == "number":
            numbers = np.array([np.nan if value is None else value for value in values])[codes[used]]
            edges = np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1])
            strata[used] = np.searchsorted(edges, numbers, side="right")
        elif self.label.kind == "class":
            strata[used] = np.array([-1 if value is None else value for value in values])[codes[used]]
        else:
            rows = np.stack([np.zeros(len(self.label.classes), np.uint8) if one is None else one for one in values])
            counts = (rows * np.bincount(codes[used], minlength=len(values))[:, None]).sum(0)
            rarest = np.where(rows > 0, counts, np.iinfo(np.int64).max).argmin(1)
            strata[used] = np.where(rows.any(1), rarest, rows.shape[1])[codes[used]]
        return strata

    def counts(self, rows: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Number of samples of each class among the samples ``rows``: int64 (K,); None if the label is a number."""
        if self.label.kind == "number":
            return None
        total = np.zeros(len(self.label.classes), np.int64)
        values = self.values()
        codes = np.array(self.codes, dtype=np.int64)[rows]
        for code, count in enumerate(np.bincount(codes, minlength=len(values))):
            if count:
                total[values[code] if self.label.kind == "class" else values[code] > 0] += count
        return total


def _text(cell):
    if cell is None:
        return ""
    if isinstance(cell, np.generic):
        cell = cell.item()
    return str(int(cell)) if isinstance(cell, bool) else str(cell).strip()


def _as_numbers(values):
    """List of the finite numbers that the texts contain, or None if a text is not a finite number."""
    try:
        numbers = [float(value) for value in values]
    except (ValueError, TypeError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
