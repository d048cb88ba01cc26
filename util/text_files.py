"""Reads text files of users: UTF-8 with or without a byte order mark, any line ends; other encodings are errors."""

import codecs
from pathlib import Path

from util.cli import UserError

# UTF-32 first: its little-endian mark starts with that of UTF-16.
_FOREIGN_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class NotText(ValueError):
    """Bytes that are not UTF-8 text; the message continues "FILE: "."""


def decode_text(data: bytes) -> str:
    """The text in the bytes ``data``, without a byte order mark; line ends stay unchanged.

    Raises:
        NotText: the bytes are UTF-16 or UTF-32, hold a zero byte, or are not UTF-8; the message names the line.
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


def read_text(path: Path | str) -> str:
    """The text of a file; see `decode_text`.

    Raises:
        UserError: the file is missing, cannot be read, or is not UTF-8.
    """
    try:
        return decode_text(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except NotText as reason:
        raise UserError(f"{path} is not a readable text file: {reason}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
