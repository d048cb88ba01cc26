"""Arrays in files: read so that whatever is wrong with one is one kind of error, written by rows."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from util.cli import UserError


class DamagedArray(Exception):
    """A file that holds no array; the message follows the file's name in a sentence."""


def read_array(path: Path | str, *, mapped: bool = True) -> np.ndarray:
    """The array of a ``.npy`` file, read only and by memory map, or (``mapped`` false) as a copy in memory.

    Raises:
        DamagedArray: the file is missing, damaged, cut short, or something else.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise DamagedArray("is missing") from None
    except Exception:  # numpy parses the header as Python code, which fails in almost any way
        raise DamagedArray("is damaged or cut short, or no .npy file") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DamagedArray("is an .npz archive, not an .npy file")
    return array


def sums_of(folder: Path | str, names: Iterable[str]) -> dict[str, int]:
    """Check sums of files, for `check_sums`: dict name -> CRC-32."""
    return {name: _crc(Path(folder) / name) for name in names}


def check_sums(folder: Path | str, sums: Any) -> Path | None:
    """The first file of ``sums``, made by `sums_of`, that is not as it was then; None where all are.

    Stores of older versions have no sums (None). A file that is missing is not looked at: whoever opens it says so.
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

    Reading a map whose file has been cut short meanwhile ends the process by a bus error, without a word, so every
    access through `array` looks at the file's size first.

    Args:
        path: The file.
        remedy: How the user gets a good file, the end of every message.
        dtype: Type of a file of bare numbers; None for a ``.npy`` file.

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
        """The numbers: an array that must not be written to.

        Raises:
            UserError: the file has been cut short since it was opened.
        """
        try:
            whole = self._map.size() >= len(self._map)
        except OSError:  # deleted on a file server
            whole = False
        if not whole:
            raise self._fault("was cut short while it was open")
        return self._array


class NpyFile:
    """A ``.npy`` file read by memory map, opened anew in every process that receives it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file: MappedFile | None = None

    @property
    def array(self) -> np.ndarray:
        """The memory map (read only).

        Raises:
            UserError: the file is missing or damaged.
        """
        if self._file is None:
            self._file = MappedFile(self.path, "delete its folder, so that it is made again")
        return self._file.array

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.array[rows]

    def __len__(self) -> int:
        return len(self.array)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would carry the whole file.
        return {"path": self.path, "_file": None}


class NpyWriter:
    """A float32 ``.npy`` file that is filled by rows; a context manager.

    Unlike a memory map it reports a full disk as an `OSError`; a map would end the process by a bus error.

    Args:
        path: The file.
        shape: Shape of the whole array, rows first.
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
        """Write the rows ``rows``, a slice, from an array of their shape."""
        if values.shape != (rows.stop - rows.start, *self._shape[1:]):
            raise ValueError(f"{values.shape} does not fit {rows.stop - rows.start} rows of {self._shape}")
        self._file.seek(self._start + 4 * rows.start * math.prod(self._shape[1:]))
        self._file.write(values.astype("float32", copy=False).tobytes())
