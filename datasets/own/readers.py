"""Readers that check the cells of a sample and convert them to values, one sample at a time."""

from __future__ import annotations

import io
import math
import re
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.own.inputs import Input
from datasets.own.media import BadFile, MediaWriter
from datasets.own.tables import BadRow
from util.arrays import lossy_fault, objects_fault
from util.cli import UserError

# Cells that mean "no value"; in columns of texts only an empty cell does.
NO_VALUE = {"", "na", "n/a", "nan", "null", "none"}
# A column of categories with more distinct values than this is more likely a text or an id.
MAX_CATEGORIES = 1000
# The sum of squares of larger numbers, from which the standard deviation is computed, could overflow float64.
LARGEST_NUMBER = 1e100


def is_missing(cell: Any, text: bool = False) -> bool:
    """Whether a cell has no value: it is empty or null or, if it is not a text, NA and the like."""
    if cell is None or isinstance(cell, str):
        stripped = (cell or "").strip()
        return not stripped if text else stripped.lower() in NO_VALUE
    return isinstance(cell, (float, np.floating)) and math.isnan(cell)


class TextReader:
    """Reads texts, unchanged."""

    kind, size = "text", None

    def scan(self, cells: Sequence[Any]) -> None:
        """Check the cells of a sample; to be called once for every sample.

        Raises:
            BadRow: the cells cannot be used.
        """
        if isinstance(cells[0], (list, dict, bytes, np.ndarray)):
            raise BadRow(f"has {type(cells[0]).__name__} where --text expects a text")

    def value(self, cells: Sequence[Any]) -> Any:
        """Convert the cells of a sample to its value; None if it is missing."""
        return None if is_missing(cells[0], text=True) else str(cells[0])


class MediaReader:
    """Reads pictures or recordings, given as paths, bytes or arrays.

    Args:
        writer: `MediaWriter` that stores them.
        root: Folder that paths are relative to.

    Attributes:
        keys: dict key -> number of each distinct file, in the order of first use.
        of_sample: Number of each sample's file, -1 for none.
        bad: dict key -> reason, of the files that cannot be read.
    """

    size = None

    def __init__(self, writer: MediaWriter, root: Path) -> None:
        self.writer, self.root, self.kind = writer, root, writer.kind
        self.keys: dict[str, int] = {}
        self.of_sample = array("q")
        self.bad: dict[str, str] = {}

    def scan(self, cells: Sequence[Any]) -> None:
        """See `TextReader.scan`."""
        self.of_sample.append(-1)
        source = self.source(cells[0])
        if source is not None:
            try:
                key = self.writer.key_of(source)
            except BadFile as reason:
                raise BadRow(f"names {shown(source)}, which {reason}") from None
            self.of_sample[-1] = self.keys.setdefault(key, len(self.keys))

    def source(self, cell: Any) -> str | bytes | None:
        """Path or bytes of the file that a cell means; None if the cell is empty."""
        if isinstance(cell, Mapping):  # as in Parquet files with pictures inside
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, np.ndarray):
            return as_png(cell)
        if isinstance(cell, (bytes, bytearray)):
            return bytes(cell) or None
        return None if is_missing(cell) else str(self.root / str(cell).strip())

    def index(self) -> str:
        """Write the index of all readable files, even of samples that are left out; returns a hash of their content."""
        good = [key for key in self.keys if key not in self.bad]
        rows = {key: row for row, key in enumerate(good)}
        self._rows = [rows.get(key, -1) for key in self.keys]
        return self.writer.write_index(good)

    def row(self, sample: int) -> int | None:
        """Row in the index of a sample's file; None if it has none."""
        number = self.of_sample[sample]
        return None if number < 0 else self._rows[number]


def shown(source: str | bytes) -> str:
    """Name of a file for messages."""
    return source if isinstance(source, str) else "a file inside the table"


def as_png(values):
    """Encode an array of grey values (H, W) or colours (H, W, 3) in 0..255 as PNG, which is lossless."""
    from PIL import Image

    if values.dtype != np.uint8:
        rounded = np.rint(values)
        if not (np.isfinite(values).all() and rounded.min() >= 0 and rounded.max() <= 255):
            raise BadRow("has a picture with values outside 0..255")
        values = rounded.astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class TableReader:
    """Converts numbers and categories to one vector.

    Numbers are standardised with the mean and standard deviation of train; categories are one-hot. A sample is missing
    if all its cells are empty. Otherwise an empty number becomes the mean (0); an empty category, or one that train
    does not have, becomes zeros.

    Args:
        one: The `Input`.

    Attributes:
        facts: dict that describes the entries of the vector, for the manifest.
        filled: dict column -> number of empty cells of samples that are not missing.
    """

    kind = "vector"

    def __init__(self, one: Input) -> None:
        self._input, self._numbers = one, len(one.columns)
        self._count = np.zeros(self._numbers)
        self._mean, self._squares = np.zeros(self._numbers), np.zeros(self._numbers)
        self._seen: list[dict[str, int]] = [{} for _ in one.categories]
        self.filled = dict.fromkeys(one.all_columns, 0)
        self.facts: dict[str, Any] = {}

    def scan(self, cells: Sequence[Any]) -> None:
        """See `TextReader.scan`."""
        for column, cell in zip(self._input.columns, cells[: self._numbers], strict=True):
            _number(column, cell)

    def fit(self, cells: Sequence[Any]) -> None:
        """Update mean, standard deviation and categories with a sample of train."""
        values = np.array([_number("", cell) for cell in cells[: self._numbers]])
        known = ~np.isnan(values)
        self._count += known
        change = np.where(known, values - self._mean, 0)
        self._mean += change / np.maximum(self._count, 1)
        self._squares += change * np.where(known, values - self._mean, 0)
        for seen, cell in zip(self._seen, cells[self._numbers :], strict=True):
            if not is_missing(cell):
                seen.setdefault(str(cell).strip(), 0)

    def finish(self) -> None:
        """Compute scales and positions of categories, after all of train.

        Raises:
            UserError: a column has too many categories, or train has no values at all.
        """
        deviation = np.sqrt(self._squares / np.maximum(self._count, 1))
        self._scale = np.where(deviation > 0, deviation, 1)
        for column, seen in zip(self._input.categories, self._seen, strict=True):
            if len(seen) > MAX_CATEGORIES:
                raise UserError(
                    f"--categories {column}: has {len(seen):,} different values in train, more than {MAX_CATEGORIES:,};"
                    f" is it a text (--text {column}) or an id?"
                )
        offset, self._places = self._numbers, []
        for seen in self._seen:
            self._places.append({name: offset + place for place, name in enumerate(sorted(seen))})
            offset += len(seen)
        self.size = offset
        names = self._input.columns
        self.facts = {
            "numbers": {n: [float(m), float(s)] for n, m, s in zip(names, self._mean, self._scale, strict=True)},
            "categories": {n: list(p) for n, p in zip(self._input.categories, self._places, strict=True)},
        }
        if not self.size:
            raise UserError(f"{self._input.flag}: every sample of train lacks {', '.join(self._input.all_columns)}")

    @classmethod
    def restored(cls, name: str, facts: Mapping[str, Any]) -> TableReader:
        """Restore a finished reader from its ``facts``.

        Raises:
            KeyError, TypeError, ValueError: ``facts`` has another form.
        """
        numbers, categories = facts["numbers"], facts["categories"]
        made = cls(Input(name, "table", tuple(numbers), "--numbers", tuple(categories)))
        made._mean = np.array([float(mean) for mean, _ in numbers.values()])
        made._scale = np.array([float(scale) for _, scale in numbers.values()])
        made._places, made.size = [], len(numbers)
        for values in categories.values():
            made._places.append({value: made.size + place for place, value in enumerate(values)})
            made.size += len(values)
        return made

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a sample's cells, in order."""
        return self._input.all_columns

    def value(self, cells: Sequence[Any]) -> Any:
        """See `TextReader.value`; the value is float32 (d,)."""
        if all(map(is_missing, cells)):
            return None
        for column, cell in zip(self._input.all_columns, cells, strict=True):
            self.filled[column] += is_missing(cell)
        vector = np.zeros(self.size, np.float32)
        numbers = (np.array([_number("", cell) for cell in cells[: self._numbers]]) - self._mean) / self._scale
        most = np.finfo(np.float32).max  # without clipping, a number far from those of train could become infinite
        vector[: self._numbers] = np.clip(np.nan_to_num(numbers), -most, most)
        for places, cell in zip(self._places, cells[self._numbers :], strict=True):
            place = None if is_missing(cell) else places.get(str(cell).strip())
            if place is not None:
                vector[place] = 1
        return vector


def _number(column, cell):
    """The number in a cell, or NaN if it is empty; raises BadRow if the number cannot be used."""
    if is_missing(cell):
        return math.nan
    try:
        number = float(cell)
    except (TypeError, ValueError):
        comma = isinstance(cell, str) and re.fullmatch(r"[-+]?[\d.\s]*,\d+", cell.strip())
        hint = "; write a decimal comma as a point" if comma else ""
        raise BadRow(f"has {cell!r} in {column}, where --numbers expects a number{hint}") from None
    if not math.isfinite(number):
        raise BadRow(f"has {cell!r} in {column}: infinite values cannot be used")
    if abs(number) > LARGEST_NUMBER:
        raise BadRow(f"has {cell!r} in {column}: numbers beyond {LARGEST_NUMBER:g} cannot be used")
    return number


class ArrayReader:
    """Reads vectors, sequences of vectors, or layers from rows of arrays, lists of numbers, or .npy and .npz files.

    The first sample that is not missing determines kind and size. A sample whose values are all NaN is missing.

    Args:
        one: The `Input`.
        root: Folder that paths are relative to.
    """

    def __init__(self, one: Input, root: Path) -> None:
        self._input, self._root = one, root
        self.kind: str | None = None
        self.size: Any = None

    def scan(self, cells: Sequence[Any]) -> None:
        """See `TextReader.scan`."""
        value = self._array(cells[0])
        if value is not None:
            form = _form_of(value)
            if self.kind is None:
                self.kind, self.size = form
            elif form != (self.kind, self.size):
                raise BadRow(
                    f"has {_said(*form)} in {self._input.columns[0]}, where samples before it have"
                    f" {_said(self.kind, self.size)}"
                )

    def finish(self) -> None:
        """To be called after all samples were scanned; raises UserError if none has a value."""
        if self.kind is None:
            raise UserError(f"{self._input.flag} {self._input.columns[0]}: no sample has a value")

    def value(self, cells: Sequence[Any]) -> Any:
        """See `TextReader.value`; the value is float32 (d,) or (steps, d), or a list of arrays."""
        return self._array(cells[0])

    def _array(self, cell):
        if isinstance(cell, str):
            cell = None if is_missing(cell) else _load(self._root / cell.strip())
        if is_missing(cell):
            return None
        layers = isinstance(cell, list) and cell and isinstance(cell[0], np.ndarray)
        parts = [_floats(part, self._input.columns[0]) for part in (cell if layers else [cell])]
        if all(part.size and np.isnan(part).all() for part in parts):
            return None
        for part in parts:
            if not np.isfinite(part).all():
                raise BadRow(f"has NaN or infinite values in {self._input.columns[0]}")
        return parts if layers or parts[0].ndim > 2 else parts[0]


def _floats(value, column):
    try:
        given = np.asarray(value)
        if given.dtype != object and (reason := lossy_fault(given)):
            raise BadRow(f"names values in {column} whose array {reason}")
        with np.errstate(over="ignore"):
            made = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise BadRow(f"has no array of numbers in {column}") from None
    if given.dtype.kind == "f" and (np.isinf(made) & np.isfinite(given)).any():
        raise BadRow(f"has numbers beyond {np.finfo(np.float32).max:.3g} in {column}, the largest of float32")
    return made.reshape(1) if not made.ndim else made


def _form_of(value):
    if isinstance(value, list):
        return "layers", tuple(part.shape for part in value)
    return ("vector", len(value)) if value.ndim == 1 else ("sequence", value.shape[1])


def _said(kind, size):
    return {"vector": f"{size} values", "sequence": f"steps of {size} values"}.get(kind, f"layers of shapes {size}")


def _load(path):
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return [loaded[name] for name in sorted(loaded.files, key=lambda name: (len(name), name))]
    except FileNotFoundError:
        raise BadRow(f"names {path}, which does not exist") from None
    except Exception as error:  # a damaged file fails in almost any way
        if reason := objects_fault(error):
            raise BadRow(f"names {path}, which {reason}") from None
        raise BadRow(f"names {path}, which is not a readable .npy or .npz file") from None


def reader_of(one: Input, folder: Path, root: Path, picture_size: int, audio_rate: int) -> Any:
    """Make the reader of an input; pictures and recordings are stored in ``folder``."""
    if one.form in ("picture", "audio"):
        setting = picture_size if one.form == "picture" else audio_rate
        return MediaReader(MediaWriter(folder, one.name, one.form, setting), root)
    if one.form == "text":
        return TextReader()
    return TableReader(one) if one.form == "table" else ArrayReader(one, root)
