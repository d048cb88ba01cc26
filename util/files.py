"""Text and JSON files, read as UTF-8 and written atomically.

Files are written under a temporary name in the same folder and then renamed. Users' text files may have a byte order
mark and any line endings; encodings other than UTF-8 are errors.
"""

import codecs
import contextlib
import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from util.cli import UserError

# UTF-32 comes first, since its little-endian mark starts with that of UTF-16.
_FOREIGN_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


# Suffixes of files of a run, and of pictures.
_KEPT = {".json", ".jsonl", ".pth", ".txt", ".svg", ".npy", ".npz", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}


class NotText(ValueError):
    """Bytes are not UTF-8 text. The message is meant to follow "FILE: "."""


def decode_text(data: bytes) -> str:
    """Decode UTF-8 text and remove its byte order mark. Line endings do not change.

    Raises:
        NotText: the bytes are UTF-16 or UTF-32, contain a zero byte, or are not UTF-8; the message names the line.
    """
    for mark, name in _FOREIGN_MARKS.items():
        if data.startswith(mark):
            raise NotText(f"it is saved as {name}: save it as UTF-8 (`iconv -f {name} -t UTF-8 FILE > NEW_FILE`)")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise NotText(f"line {_line(data, data.index(0))} has a zero byte: it is not text, or saved as UTF-16")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = _line(data, error.start)
        raise NotText(
            f"line {line} has the byte 0x{data[error.start]:02x}, which is not UTF-8: save the file as UTF-8"
            " (if it is Latin-1: `iconv -f LATIN1 -t UTF-8 FILE > NEW_FILE`)"
        ) from None


def _line(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Context manager that yields a temporary path in the folder of ``path``. On success it replaces ``path``.

    Raises:
        UserError: the folder cannot be created or written to, or the disk is full.
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


def refuse_input(out: Path | str, inputs: Mapping[str, Any], flag: str = "--out") -> None:
    """Check that an output replaces no input, however the two paths are spelled and linked.

    Args:
        out: The file to write; in a folder that is read, it may replace anything but the files of a run and pictures.
        inputs: Flag -> path that is read, list of such paths, or None. Paths are files or folders.
        flag: The flag that named ``out``.

    Raises:
        UserError: ``out`` is an input, or such a file in a folder that is read.
    """
    if not os.path.exists(out):
        return
    kept = Path(out).name == "README.md" or Path(out).suffix.lower() in _KEPT
    for name, paths in inputs.items():
        for path in paths if isinstance(paths, (list, tuple)) else [paths]:
            if path is None or not os.path.exists(path):
                continue
            inside = kept and Path(path).resolve() in Path(out).resolve().parents
            if inside or os.path.samefile(out, path):
                where = f"in the folder that {name} reads" if inside else f"the file that {name} reads"
                raise UserError(f"{flag} {out} is {where} and would be replaced; give another {flag}")


def make_public(path: Path | str) -> None:
    """Set the usual permissions of new files on a file or folder that `tempfile` created private to its owner."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, (0o777 if os.path.isdir(path) else 0o666) & ~umask)


def write_fault(error: OSError, remedy: str) -> str:
    """Message that explains a failed write and names a remedy; on a full disk, the remedy is to free space.

    Args:
        error: The `OSError`.
        remedy: What to do if the disk is not full.
    """
    # NumPy reports a short write without an error number.
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or re.search(r"requested and \d+ written", str(error))
    if full:
        return f"{error.strerror or 'No space left on device'}; free some space, or choose a place that has more"
    return f"{error.strerror or error}; {remedy}"


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, atomically. Line endings stay; undecodable bytes of file names become ``\\udcd5``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def json_text(value: Any, **options: Any) -> str:
    """Convert ``value`` to JSON text. NaN and infinity, which JSON does not have, become null.

    Args:
        value: JSON-serialisable value; tuples become lists.
        options: Passed to `json.dumps`.
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; see `json_text`."""
    write_text(path, json_text(value, indent=2) + "\n")


def read_text(path: Path | str) -> str:
    """Read a text file; see `decode_text`.

    Raises:
        UserError: the file is missing, cannot be read, or is not UTF-8.
    """
    return _text_of(path, "text")


def read_json(path: Path | str) -> Any:
    """Read a JSON file, with or without a byte order mark.

    Raises:
        UserError: the file is missing, is not UTF-8, or is not JSON.
    """
    text = _text_of(path, "JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also raised for numbers with too many digits
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a readable JSON file ({reason}): restore or fetch it, or name another"
        ) from None


def _text_of(path, kind):
    try:
        return decode_text(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: not text, or a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is not a readable {kind} file: {reason}") from None


def remove_folder(folder: Path) -> None:
    """Remove a folder with its content, and its parent folder if that is empty then. Errors are ignored."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
