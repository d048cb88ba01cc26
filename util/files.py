"""Files that are either whole or absent: written beside their place, then renamed onto it."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

from util.cli import UserError
from util.text_files import NotText, decode_text


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path in the folder of ``path``; on success it replaces ``path``.

    Raises:
        UserError: the folder cannot be made or written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        # mkstemp makes files private; a result should have the permissions any new file has.
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(handle, 0o666 & ~umask)
        os.close(handle)
        yield Path(temporary)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose a folder you can write") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_text(path, text):
    """Write ``text`` (UTF-8) atomically; bytes of file names that are not UTF-8 are written as ``\\udcd5``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path, value):
    """Write ``value`` as indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path):
    """Read a JSON file, with or without a byte order mark.

    Raises:
        UserError: the file is missing, is not UTF-8, or is not JSON.
    """
    try:
        return json.loads(decode_text(Path(path).read_bytes()))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except NotText as reason:
        raise UserError(f"{path} is not a readable JSON file ({reason})") from None
    except (OSError, ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        text = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable JSON file ({text}): restore or fetch it, or name another") from None


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
            from util.arrays import DamagedArray, read_array

            try:
                self._array = read_array(self.path)
            except DamagedArray as reason:
                raise UserError(
                    f"{self.path} is missing or damaged (it {reason}); delete its folder, so that it is made again"
                ) from None
        return self._array

    def __getitem__(self, rows):
        return self.array[rows]

    def __len__(self):
        return len(self.array)

    def __getstate__(self):
        # A pickled memory map would carry the whole file.
        return {"path": self.path, "_array": None}
