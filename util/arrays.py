"""Arrays in files: read by memory map with a look at the file's size, written by rows."""

import math
from pathlib import Path

import numpy as np

from util.cli import UserError


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

    def __init__(self, path, remedy, dtype=None):
        self._path, self._remedy = path, remedy
        try:
            if dtype is None:
                mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                mapped = np.memmap(path, dtype=dtype, mode="r")
        except FileNotFoundError:
            raise self._fault("is missing") from None
        except (OSError, ValueError, EOFError) as error:
            raise self._fault(f"is damaged or cut short ({' '.join(str(error).split())})") from None
        if not isinstance(mapped, np.ndarray):
            mapped.close()
            raise self._fault("is an archive, not a .npy file")
        self._map, self._array = mapped._mmap, mapped.view(np.ndarray)

    def _fault(self, reason):
        return UserError(f"{self._path} {reason}; {self._remedy}")

    @property
    def array(self):
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

    def __init__(self, path):
        self.path = Path(path)
        self._file = None

    @property
    def array(self):
        """The memory map (read only).

        Raises:
            UserError: the file is missing or damaged.
        """
        if self._file is None:
            self._file = MappedFile(self.path, "delete its folder, so that it is made again")
        return self._file.array

    def __getitem__(self, rows):
        return self.array[rows]

    def __len__(self):
        return len(self.array)

    def __getstate__(self):
        # A pickled memory map would carry the whole file.
        return {"path": self.path, "_file": None}


class NpyWriter:
    """A float32 ``.npy`` file that is filled by rows; a context manager.

    Unlike a memory map it reports a full disk as an `OSError`; a map would end the process by a bus error.

    Args:
        path: The file.
        shape: Shape of the whole array, rows first.
    """

    def __init__(self, path, shape):
        self._path, self._shape = Path(path), tuple(map(int, shape))
        self._file, self._start = None, 0

    def __enter__(self):
        self._file = open(self._path, "wb")
        header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        return self

    def __exit__(self, *_):
        self._file.close()

    def __setitem__(self, rows, values):
        """Write the rows ``rows``, a slice, from an array of their shape."""
        if values.shape != (rows.stop - rows.start, *self._shape[1:]):
            raise ValueError(f"{values.shape} does not fit {rows.stop - rows.start} rows of {self._shape}")
        self._file.seek(self._start + 4 * rows.start * math.prod(self._shape[1:]))
        self._file.write(values.astype("float32", copy=False).tobytes())
