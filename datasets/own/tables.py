"""Users' tables, with one row per sample, read as a stream: CSV, TSV, JSON lines, JSON, Parquet, and arrays."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from util.arrays import DamagedArray, objects_fault, read_array
from util.cli import UserError
from util.files import read_json, read_text

DELIMITERS = ",;\t|"
# Maximum characters of one cell: enough for a long text, but not for a file with a quote that is never closed.
MAX_CELL = 16 << 20
SPLIT_COLUMN = "split of the file"
PARQUET_ROWS = 256


class BadRow(Exception):
    """A row or cell that cannot be used; the message is a predicate without the row's place ("has no label")."""


class Table:
    """Base class of tables: rows of named columns.

    Attributes:
        name: Name of the table for messages.
        columns: Names of its columns.
        root: Folder that paths in its cells are relative to.
    """

    name: str
    columns: list[str]
    root: Path

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """Yield (place for messages, cells of ``columns``) of every row, or (place, `BadRow`) of a faulty one."""
        raise NotImplementedError

    def check_columns(self, wanted: Mapping[str, str]) -> None:
        """Check that columns exist.

        Args:
            wanted: dict column -> the flag that names it.

        Raises:
            UserError: a column does not exist; the message lists columns with similar names.
        """
        for column, flag in wanted.items():
            if column not in self.columns:
                near = difflib.get_close_matches(column.lower(), [name.lower() for name in self.columns], 3, 0.6)
                near = [name for name in self.columns if name.lower() in near]
                listed = ", ".join(map(repr, near or self.columns[:30]))
                like = "did you mean" if near else "its columns are"
                raise UserError(f"{self.name} has no column {column!r} ({flag} {column}); {like} {listed}")


class CSVTable(Table):
    """A CSV or TSV file with a header row: UTF-8, any line endings; quoted cells may contain line breaks."""

    def __init__(self, path: Path | str) -> None:
        self._path, self.name, self.root = Path(path), str(path), Path(path).parent
        csv.field_size_limit(MAX_CELL)
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                self._delimiter = _delimiter(file.readline(), self._path.suffix)
                file.seek(0)
                header = next(csv.reader(file, delimiter=self._delimiter), [])
        except UnicodeDecodeError:
            raise _encoding_fault(path) from None
        except FileNotFoundError:
            raise UserError(f"{path} does not exist") from None
        except (OSError, csv.Error) as error:
            raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if any("\0" in name for name in header):
            raise _encoding_fault(path)
        self.columns = [name.strip() for name in header]
        if not any(self.columns):
            raise UserError(f"{path} is empty; expected a header row with the names of the columns, and rows below it")
        if twice := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise UserError(f"{path} has several columns named {twice[0]!r}; rename all but one")

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`; the place is the line on which a row ends."""
        places, count = [self.columns.index(name) for name in columns], len(self.columns)
        try:
            with open(self._path, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter)
                next(reader)
                for cells in reader:
                    if len(cells) == count:
                        yield f"line {reader.line_num}", [cells[place] for place in places]
                    elif cells:
                        reason = f"has {len(cells)} cells where the header has {count} (cells that contain"
                        reason += f" {self._delimiter!r} need quotes, and quotes an end)"
                        yield f"line {reader.line_num}", BadRow(reason)
        except UnicodeDecodeError:
            raise _encoding_fault(self._path) from None
        except csv.Error as error:
            raise UserError(
                f"{self._path} line {reader.line_num}: {error}; is a quote opened and never closed?"
            ) from None


def _delimiter(header, suffix):
    if suffix == ".tsv":
        return "\t"
    outside = "".join(header.split('"')[::2])
    return max(DELIMITERS, key=outside.count)


def _encoding_fault(path):
    try:
        read_text(path)
    except UserError as error:
        return error
    return UserError(f"{path} is not a readable text file; save it as UTF-8")


class JSONTable(Table):
    """A file with one JSON object per line, or with one list of objects; the cell of an absent key is missing."""

    def __init__(self, path: Path | str) -> None:
        self._path, self.name, self.root = Path(path), str(path), Path(path).parent
        try:
            with open(path, encoding="utf-8-sig") as file:
                self._whole = file.read(4096).lstrip()[:1] == "["
        except UnicodeDecodeError:
            raise _encoding_fault(path) from None
        except FileNotFoundError:
            raise UserError(f"{path} does not exist") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
        self.columns = list(dict.fromkeys(key for _, row in self._objects() if isinstance(row, dict) for key in row))

    def _objects(self):
        if self._whole:
            yield from ((f"object {number}", row) for number, row in enumerate(read_json(self._path), 1))
            return
        try:
            with open(self._path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"line {number}", _parsed(line)
        except UnicodeDecodeError:
            raise _encoding_fault(self._path) from None

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`."""
        for place, row in self._objects():
            if isinstance(row, dict):
                yield place, [row.get(name) for name in columns]
            else:
                yield place, BadRow("is not a JSON object")


def _parsed(line):
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class ParquetTable(Table):
    """A Parquet file, which may contain pictures as {"bytes": ..., "path": ...}."""

    def __init__(self, path: Path | str) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise UserError(f"{path}: Parquet files need the package pyarrow: pip install pyarrow") from None
        self._path, self.name, self.root = Path(path), str(path), Path(path).parent
        try:
            self.columns = list(parquet.read_schema(path).names)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist") from None
        except Exception as error:  # the library's own errors
            raise self._unreadable(error) from None

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`."""
        number = 0
        for made, count in self._batches(list(dict.fromkeys(columns))):
            for row in range(count):
                number += 1
                yield f"row {number}", [made[name][row] for name in columns]

    def _batches(self, columns):
        """Yield (dict column -> list of cells, number of rows) for every `PARQUET_ROWS` rows."""
        import pyarrow.parquet as parquet

        try:
            with parquet.ParquetFile(self._path) as file:
                for batch in file.iter_batches(PARQUET_ROWS, columns=columns):
                    yield batch.to_pydict(), batch.num_rows
        except Exception as error:  # the library's own errors, some of which are an OSError
            raise self._unreadable(error) from None

    def _unreadable(self, error):
        return UserError(f"{self._path} is not a readable Parquet file ({' '.join(str(error).split())})")


def open_table(path: Path | str) -> Table:
    """Open a file as the kind of table that its suffix names.

    Raises:
        UserError: the file cannot be read, or its suffix is unknown.
    """
    suffix = Path(path).suffix.lower()
    kinds = {".csv": CSVTable, ".tsv": CSVTable, ".txt": CSVTable, ".parquet": ParquetTable}
    kinds |= dict.fromkeys((".jsonl", ".ndjson", ".json"), JSONTable)
    if suffix not in kinds:
        raise UserError(f"{path}: unknown kind of table; expected a file that ends in {', '.join(kinds)}")
    return kinds[suffix](path)


class Joined(Table):
    """Tables of the same form, one per split; an additional column `SPLIT_COLUMN` contains the split.

    Args:
        tables: dict split -> table.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables, first = dict(tables), next(iter(tables.values()))
        self.name, self.root = ", ".join(table.name for table in tables.values()), first.root
        shared = [set(table.columns) for table in tables.values()]
        self.columns = [name for name in first.columns if all(name in columns for columns in shared)] + [SPLIT_COLUMN]

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`."""
        own = [name for name in columns if name != SPLIT_COLUMN]
        for split, table in self._tables.items():
            for place, cells in table.rows(own):
                place = f"{table.name} {place}"
                if isinstance(cells, list):
                    values = dict(zip(own, cells, strict=True)) | {SPLIT_COLUMN: split}
                    cells = [values[name] for name in columns]
                yield place, cells


class Arrays(Table):
    """Whole arrays with one row per sample, alone or together with a table whose rows are in the same order.

    Args:
        arrays: dict column -> array (N, ...), or a list of arrays (layers).
        table: The table, or None.

    Raises:
        UserError: the arrays have different numbers of rows.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray | list[np.ndarray]], table: Table | None = None) -> None:
        self._arrays, self._table = dict(arrays), table
        self.columns = [*arrays, *(table.columns if table else [])]
        self.root = table.root if table else Path()
        self.name = table.name if table else "the arrays"
        lengths = {name: [len(one) for one in _listed(array)] for name, array in arrays.items()}
        first, *_ = lengths
        self._count = lengths[first][0]
        for name, counts in lengths.items():
            if wrong := [count for count in counts if count != self._count]:
                raise UserError(
                    f"the arrays differ in their number of rows: {first} has {self._count}, {name} has {wrong[0]};"
                    " expected one row per sample in each"
                )

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`."""
        own = [name for name in columns if name not in self._arrays]
        rows = self._table.rows(own) if self._table else ((f"row {row + 1}", []) for row in range(self._count))
        row = -1
        for row, (place, cells) in enumerate(rows):
            if row < self._count and isinstance(cells, list):
                values = dict(zip(own, cells, strict=True))
                cells = [_cell(self._arrays[name], row) if name in self._arrays else values[name] for name in columns]
            yield place, cells
        if row + 1 != self._count:
            raise UserError(f"{self.name} has {row + 1} rows, but the arrays have {self._count}; expected as many")


def _listed(array):
    return array if isinstance(array, list) else [array]


def _cell(array, row):
    return [layer[row] for layer in array] if isinstance(array, list) else array[row]


def load_array(path: Path | str) -> np.ndarray | list[np.ndarray]:
    """Open a ``.npy`` file (N, ...) as a memory map, or a folder as a list of such arrays, one per layer.

    Files in a folder are ordered by the length of their names, then by name.

    Raises:
        UserError: a file cannot be read, or has no rows.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.npy"), key=lambda file: (len(file.name), file.name))
        if not files:
            raise UserError(f"{path} contains no .npy files; expected one array (samples, ...) per layer")
        return [layer for file in files for layer in _listed(load_array(file))]
    try:
        array = read_array(path)
    except DamagedArray as reason:
        raise UserError(f"{path} {reason}; expected an array (samples, ...)") from None
    if not array.ndim or not len(array):
        raise UserError(f"{path} has shape {array.shape}; expected one row per sample")
    return array


def load_archive(path: Path | str) -> dict[str, np.ndarray]:
    """Read an ``.npz`` file: dict name -> array.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except Exception as error:  # a damaged archive fails in almost any way
        if reason := objects_fault(error):
            raise UserError(f"{path} {reason}") from None
        raise UserError(f"{path} is not a readable .npz archive of plain arrays; save it with np.savez") from None
