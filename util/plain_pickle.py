"""Pickles of plain data, read without running anything that they name."""

import pickle
import struct
from pathlib import Path
from typing import Any

from util.cli import UserError

# All that the unpickler raises on damaged bytes.
DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError),
    *(OverflowError, MemoryError, RecursionError, AssertionError, struct.error),
)


class _Refused(Exception):
    """A pickle names a function or class; the message is its name."""


# The unpickler in C takes as much memory as one damaged number tells it to, until the system ends the process; this one
# takes seconds for the largest official file.
class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module, name):
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid):
        raise _Refused("a persistent id")


def read_plain_pickle(path: Path | str) -> Any:
    """Read a pickle of containers, texts, bytes, numbers, booleans and None, also one of Python 2.

    Args:
        path: The file.

    Returns:
        Its content; texts of Python 2 are read as Latin 1.

    Raises:
        UserError: the file cannot be read, is no pickle, or holds anything else, which is not run.
    """
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except _Refused as name:
        raise UserError(
            f"{path} asks for {name} and is not read: a pickle of plain data names no function; fetch the official file"
        ) from None
    except DAMAGE:
        raise UserError(f"{path} is no pickle, or damaged or cut short; fetch the file again") from None
