"""Reads pickles of plain data without running any code in them."""

import math
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from util.cli import UserError

# Exceptions that the unpickler raises on damaged bytes.
DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError),
    *(OverflowError, MemoryError, RecursionError, AssertionError, struct.error),
)


class _Refused(Exception):
    """A pickle names a function or class; the message is its name."""


# A single damaged number can make the C unpickler allocate so much memory that the system kills the process. The
# Python unpickler takes seconds for the largest official file, which is fast enough.
class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module, name):
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid):
        raise _Refused("a persistent id")


class _DType:
    """Placeholder for a NumPy dtype while the pickle is read. It keeps the name and byte order of a plain type."""

    def __init__(self, name: object = None, *unused: object) -> None:
        self.name = name
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        if state[3] is not None or state[2] is not None:
            raise ValueError("a dtype with fields or of arrays")
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")

    def plain(self) -> np.dtype:
        """The dtype.

        Raises:
            ValueError: it is not a type of booleans, numbers, strings or objects.
        """
        if not isinstance(self.name, str):
            raise ValueError("a dtype without a name")
        dtype = np.dtype(self.name)
        if dtype.kind not in "biufSUO":
            raise ValueError(f"dtype {dtype}")
        return dtype.newbyteorder(self.order)


class _Array:
    """Placeholder for an array while the pickle is read.

    NumPy's own functions would trust the pickle, and a forged dtype could make them read arbitrary memory.
    """

    def __init__(self, shape: Any = (), dtype: Any = None, data: Any = b"", fortran: Any = False) -> None:
        self.shape, self.dtype, self.data, self.fortran = shape, dtype, data, fortran

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def plain(self) -> np.ndarray:
        """The array.

        Raises:
            ValueError, TypeError, AttributeError: shape, dtype and data are inconsistent.
        """
        dtype = self.dtype.plain()
        order: Any = "F" if self.fortran else "C"
        shape = tuple(int(side) for side in self.shape)
        if min(shape, default=0) < 0:
            raise ValueError("a negative shape")
        if dtype.kind == "O":
            if not isinstance(self.data, list) or len(self.data) != math.prod(shape):
                raise ValueError("objects that do not fill the array")
            made = np.empty(len(self.data), dtype=object)
            for place, value in enumerate(self.data):
                made[place] = _plain(value)
            return made.reshape(shape, order=order)
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        return np.frombuffer(data, dtype).reshape(shape, order=order)


# Instances of these classes have no attributes, so a pickle can call them but not change them.
class _Reconstruct:
    __slots__ = ()

    def __call__(self, *unused):
        return _Array()


class _FromBuffer:
    __slots__ = ()

    def __call__(self, data, dtype, shape, order):
        return _Array(shape, dtype, bytes(data), order == "F")


class _Scalar:
    __slots__ = ()

    def __call__(self, dtype, data):
        return _Array((1,), dtype, data).plain()[0]


class _MakeDType:
    __slots__ = ()

    def __call__(self, *parts):
        return _DType(*parts)


class _Encode:
    __slots__ = ()

    def __call__(self, text, encoding):
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"the encoding {encoding}")
        return text.encode("latin1")


class _NoBytes:
    __slots__ = ()

    def __call__(self):
        return b""


_ARRAY_NAMES: dict[tuple[str, str], Any] = {("numpy", "ndarray"): "numpy.ndarray", ("numpy", "dtype"): _MakeDType()}
_ARRAY_NAMES |= {("_codecs", "encode"): _Encode(), ("__builtin__", "bytes"): _NoBytes()}
for _core in ("numpy.core", "numpy._core"):
    _ARRAY_NAMES[(f"{_core}.multiarray", "_reconstruct")] = _Reconstruct()
    _ARRAY_NAMES[(f"{_core}.multiarray", "scalar")] = _Scalar()
    _ARRAY_NAMES[(f"{_core}.numeric", "_frombuffer")] = _FromBuffer()


class _ArrayUnpickler(_PlainUnpickler):
    def find_class(self, module, name):
        known = _ARRAY_NAMES.get((module, name))
        return super().find_class(module, name) if known is None else known


def _plain(value):
    """Replace the placeholders in ``value`` by arrays and dtypes."""
    if isinstance(value, (_Array, _DType)):
        return value.plain()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(inner) for inner in value)
    return value


def read_plain_pickle(path: Path | str) -> Any:
    """Read a pickle of containers, strings, bytes, numbers, booleans and None, written by Python 2 or 3.

    Args:
        path: The file.

    Returns:
        The content; strings of Python 2 are decoded as Latin-1.

    Raises:
        UserError: the file cannot be read, is not a pickle, or names a class or function, which is not called.
    """
    return _read(path, _PlainUnpickler, "a pickle of plain data names no functions; fetch the official file")


def read_array_pickle(path: Path | str) -> Any:
    """As `read_plain_pickle`, for a pickle that may also contain NumPy arrays, scalars and dtypes.

    Arrays are rebuilt from their bytes, without NumPy's own functions for unpickling. They may contain booleans,
    numbers, strings, or objects that are plain data themselves.

    Raises:
        UserError: as in `read_plain_pickle`; or an array has another type.
    """
    reason = "only plain data and numpy arrays are; save the data as dicts of arrays"
    return _plain_or_fault(path, _read(path, _ArrayUnpickler, reason))


def _plain_or_fault(path, content):
    try:
        return _plain(content)
    except DAMAGE:
        raise UserError(f"{path} holds an array of another type, or is damaged; fetch the file again") from None


def _read(path, unpickler, reason):
    try:
        with open(path, "rb") as file:
            return unpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except _Refused as name:
        raise UserError(f"{path} names {name} and is not read: {reason}") from None
    except DAMAGE:
        raise UserError(f"{path} is not a pickle, or is damaged or cut short; fetch the file again") from None
