"""Arrays in files: reading with one kind of error for all faults, and writing row by row."""

from __future__ import annotations

import dataclasses
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from util.cli import UserError

# What numpy raises for damaged files, whose header it parses as Python code. Other errors, such as those of an import
# that was interrupted, say nothing about the file.
_DAMAGE = (
    *(OSError, EOFError, ValueError, SyntaxError, TypeError, LookupError, OverflowError, MemoryError, RecursionError),
    *(NotImplementedError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)

# Up to here, all integers are exact in float64.
LARGEST_INTEGER = 2**53


class DamagedArray(Exception):
    """A file does not contain an array. The message continues a sentence that starts with the name of the file."""


def read_array(path: Path | str, *, mapped: bool = True) -> np.ndarray:
    """Read the array of a ``.npy`` file as a read-only memory map, or with ``mapped=False`` as a copy in memory.

    Raises:
        DamagedArray: the file is missing, damaged, truncated, or not an array.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DamagedArray("is missing") from None
    except _DAMAGE as error:
        raise DamagedArray(objects_fault(error) or "is damaged or cut short, or not an .npy file") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DamagedArray("is an .npz archive, not an .npy file")
    return array


def objects_fault(error: Exception) -> str | None:
    """Message for the case that numpy refused to read an array of Python objects; None for other errors."""
    if "Object arrays" not in str(error) and "Python objects" not in str(error):
        return None
    return (
        "holds Python objects, which are not read since they can run code; save numbers, np.save(FILE, "
        "np.asarray(rows, dtype=np.float32)), or rows of different lengths as one file per sample"
    )


def lossy_fault(array: np.ndarray) -> str | None:
    """Message if an array's values would be changed by a conversion to numbers: float32, or int64 for labels.

    Rounding to float32 is no fault. The message continues a sentence that starts with the name of the array.
    """
    if array.dtype.kind not in "biufUS":
        kinds = {"c": "complex numbers", "M": "dates", "m": "durations", "V": "several fields per entry"}
        kind = kinds.get(array.dtype.kind, "no numbers")
        return f"has {kind} ({array.dtype}); save real numbers, such as real and imaginary part as two columns"
    if array.dtype.kind in "iu" and array.size:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > LARGEST_INTEGER:
            return f"has the integer {largest}, beyond 2**53, which is not exact as a number; is it an id?"
    return None


def sums_of(folder: Path | str, names: Iterable[str]) -> dict[str, int]:
    """Compute checksums of files for `check_sums`: name -> CRC-32."""
    return {name: _crc(Path(folder) / name) for name in names}


def check_sums(folder: Path | str, sums: Any) -> Path | None:
    """Find the first file that has changed since `sums_of` returned ``sums``; None if none has.

    ``sums`` is None for stores of older versions, which have no checksums. Missing files are skipped, since opening
    them reports the error.
    """
    for name, expected in (sums if isinstance(sums, dict) else {}).items():
        path = Path(folder) / Path(name).name
        if path.is_file() and _crc(path) != expected:
            return path
    return None


def _crc(path: Path | str) -> int:
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
    return crc


class MappedFile:
    """A file opened as a read-only memory map.

    Reading a map whose file was truncated in the meantime ends the process with a bus error and no message. Every
    access through `array` therefore checks the size of the file first.

    Args:
        path: The file.
        remedy: How to obtain an intact file; every message ends with it.
        dtype: Type of the numbers in a file without a header; None for a ``.npy`` file.

    Raises:
        UserError: the file is missing or damaged.
    """

    def __init__(self, path: Path | str, remedy: str, dtype: Any = None) -> None:
        self._path, self._remedy = path, remedy
        try:
            mapped: Any = read_array(path) if dtype is None else np.memmap(path, dtype=dtype, mode="r")
        except FileNotFoundError:
            raise self._fault("is missing") from None
        except DamagedArray as reason:
            raise self._fault(reason) from None
        except (OSError, ValueError) as error:
            raise self._fault(f"is damaged or cut short ({' '.join(str(error).split())})") from None
        self._map, self._array = mapped._mmap, mapped.view(np.ndarray)

    def _fault(self, reason: object) -> UserError:
        return UserError(f"{self._path} {reason}; {self._remedy}")

    @property
    def array(self) -> np.ndarray:
        """The array, which must not be written to.

        Raises:
            UserError: the file has been truncated since it was opened.
        """
        try:
            intact = self._map.size() >= len(self._map)
        except OSError:  # deleted on a file server
            intact = False
        if not intact:
            raise self._fault("was cut short while it was open")
        return self._array


@dataclasses.dataclass(eq=False)
class NpyFile:
    """A ``.npy`` file, read through a memory map. Each process that receives the object opens the file itself."""

    path: Path
    _file: MappedFile | None = dataclasses.field(default=None, init=False)

    @property
    def array(self) -> np.ndarray:
        """The read-only memory map.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self._file is None:
            self._file = MappedFile(self.path, "delete its folder to have it written again")
        return self._file.array

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.array[rows]

    def __len__(self) -> int:
        return len(self.array)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would contain the complete file.
        return {"path": self.path, "_file": None}


class NpyWriter:
    """Context manager that writes a float32 ``.npy`` file row by row.

    On a full disk it raises an `OSError`, while a memory map would end the process with a bus error.

    Args:
        path: The file.
        shape: Shape of the complete array, rows first.
    """

    def __init__(self, path: Path | str, shape: Sequence[int]) -> None:
        self._path, self._shape = Path(path), tuple(map(int, shape))
        self._file: Any = None
        self._start = 0

    def __enter__(self) -> NpyWriter:
        self._file = open(self._path, "wb")
        header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        """Write an array to the slice ``rows``.

        Raises:
            ValueError: its shape does not fit.
            OSError: the disk is full.
        """
        if values.shape != (rows.stop - rows.start, *self._shape[1:]):
            raise ValueError(f"{values.shape} does not fit {rows.stop - rows.start} rows of {self._shape}")
        self._file.seek(self._start + 4 * rows.start * math.prod(self._shape[1:]))
        self._file.write(values.astype("float32", copy=False).tobytes())
