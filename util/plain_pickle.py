"""Reads pickles of plain data without running any code in them."""

import pickle
import struct
from pathlib import Path
from typing import Any

from util.cli import UserError

# Exceptions that the unpickler raises on damaged bytes.
DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError),
    *(OverflowError, MemoryError, RecursionError, AssertionError, struct.error),
)


class _Refused(Exception):
    """A pickle names a function or class; the message is its name."""


# One damaged number can make the C unpickler allocate so much memory that the system ends the process. This Python one
# takes seconds for the largest official file.
class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module, name):
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid):
        raise _Refused("a persistent id")


def read_plain_pickle(path: Path | str) -> Any:
    """Read a pickle of containers, strings, bytes, numbers, booleans and None, also one made by Python 2.

    Args:
        path: The file.

    Returns:
        The content; strings of Python 2 are decoded as Latin-1.

    Raises:
        UserError: the file cannot be read, is not a pickle, or holds anything else, which is not run.
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
            f"{path} names {name} and is not read: a pickle of plain data names no functions; fetch the official file"
        ) from None
    except DAMAGE:
        raise UserError(f"{path} is not a pickle, or is damaged or cut short; fetch the file again") from None
