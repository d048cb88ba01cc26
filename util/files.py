"""Files that are either whole or absent: written beside their place, then renamed onto it."""

import contextlib
import errno
import json
import math
import os
import re
import tempfile
from pathlib import Path

from util.cli import UserError


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path in the folder of ``path``; on success it replaces ``path``.

    Raises:
        UserError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        make_public(temporary)
        yield Path(temporary)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"cannot write {path}: {write_fault(error, 'choose a folder you can write')}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def make_public(path):
    """Give a file or folder of `tempfile` (private to its owner) the permissions that any new one gets."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, (0o777 if os.path.isdir(path) else 0o666) & ~umask)


def write_fault(error, remedy):
    """Why something could not be written, and what to do: "Permission denied; " and ``remedy``, or to free space.

    Args:
        error: The `OSError`.
        remedy: What helps where the disk is not full.
    """
    # numpy reports a short write without an error number.
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or re.search(r"requested and \d+ written", str(error))
    if full:
        return f"{error.strerror or 'No space left on device'}; free some space, or choose a place that has more"
    return f"{error.strerror or error}; {remedy}"


def write_text(path, text):
    """Write ``text`` (UTF-8, lines end as they stand in it) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path, value):
    """Write ``value`` as indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path):
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not a readable JSON file ({error}): restore or fetch it, or name another") from None


class NpyFile:
    """A ``.npy`` file read by memory map, opened anew in every process that receives it.

    Args:
        path: The file.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._array = None

    @property
    def array(self):
        """The memory map (read only).

        Raises:
            UserError: the file is missing or damaged.
        """
        if self._array is None:
            import numpy as np

            try:
                self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise UserError(
                    f"{self.path} is missing or damaged ({error}); delete its folder, so that it is made again"
                ) from None
        return self._array

    def __getitem__(self, rows):
        return self.array[rows]

    def __len__(self):
        return len(self.array)

    def __getstate__(self):
        # A pickled memory map would carry the whole file.
        return {"path": self.path, "_array": None}


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
        import numpy as np

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
