"""Checkpoints: they are written atomically, read without running code, and loaded with clear errors on mismatches."""

from __future__ import annotations

import errno
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from util.cli import UserError, is_out_of_memory
from util.files import atomic_path

if TYPE_CHECKING:
    from torch import nn


def save_checkpoint(path: Path | str, value: Any) -> None:
    """Write ``value`` (tensors, numbers, strings, lists and dicts of them) with `torch.save`, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # The actual cause, such as a full disk or Ctrl-C, is only the context of torch's error.
            if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path | str) -> Any:
    """Read a checkpoint onto the CPU. No code in the file can run.

    NumPy scalars, such as the best accuracy in checkpoints of the original code, become Python numbers and strings.

    Raises:
        UserError: the file is missing, unreadable or damaged, or it contains more than tensors and plain data.
    """
    try:
        if zipfile.is_zipfile(path):
            _check_sums(path)
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a checkpoint file") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in almost any way
        # In a truncated file, torch seeks to a negative position, which is the system's "invalid argument".
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
        if is_out_of_memory(error):
            raise
        refused = _REFUSED.search(str(error))
        if refused and isinstance(error, pickle.UnpicklingError):
            raise UserError(
                f"{path} is not a readable checkpoint: it holds {refused[1]}, and only tensors and plain data are read;"
                " if you trust its author, since this runs code in the file, save only its weights: `python -c"
                f" \"import torch; torch.save(torch.load('{path}', weights_only=False)['state_dict'], 'NEW_FILE')\"`"
            ) from None
        raise UserError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): it is damaged, was not written by "
            "torch.save, or holds more than tensors and plain data"
        ) from None


def glance_at_checkpoint(path: Path | str) -> Any:
    """Like `load_checkpoint`, without reading the numbers of tensors; None if the file is missing or unreadable.

    It is fast for a checkpoint of any size, but finds no damaged tensors.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whoever needs the whole file reports the damage
        return None


def _check_sums(path):
    """Check every part of a zipped checkpoint against its checksum, which torch does not do.

    Raises:
        ValueError: some checksums differ. (If all differ, the file was written without checksums.)
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        wrong = sum(not _is_intact(archive, name) for name in names)
    if 0 < wrong < len(names):
        raise ValueError("damaged")


def _is_intact(archive, name):
    try:
        with archive.open(name) as part:
            while part.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


class _Kind:
    """Replaces ``numpy.dtype`` in a pickle: type code and byte order of a NumPy scalar."""

    def __init__(self, code, align=False, copy=False):
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSU]\d{1,4}", code):
            raise pickle.UnpicklingError("GLOBAL numpy.dtype")
        self.code, self.order = code, "="

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise ValueError("damaged")
        self.order = state[1]


def _scalar(kind, data):
    """Convert a NumPy scalar, given by its `_Kind` and its bytes, to a Python number or string."""
    if not isinstance(kind, _Kind) or not isinstance(data, bytes):
        raise ValueError("damaged")
    (value,) = np.frombuffer(data, dtype=np.dtype(kind.order + kind.code)).tolist()
    return value


_NUMPY_SCALARS: list[Any] = [
    (_Kind, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


def load_state_dict_file(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a state dict from a file that contains it alone, or under ``state_dict``.

    The prefix ``module.`` of (Distributed)DataParallel is removed.

    Raises:
        UserError: see `load_checkpoint`; or the file does not contain a state dict.
    """
    state = load_checkpoint(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{path} is not a state dict (names -> tensors)")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_weights(module: nn.Module, state: Mapping[str, Any], source: object) -> None:
    """Load a state dict into a module, strictly.

    Args:
        module: The module.
        state: Name -> tensor.
        source: Where the state dict comes from, for the message.

    Raises:
        UserError: the weights do not fit. One line counts and lists missing keys, unknown keys, wrong shapes, and
            tensors with NaN or infinite values.
    """
    own = module.state_dict()
    faults = [
        _fault("missing", [key for key in own if key not in state]),
        _fault("unknown", [key for key in state if key not in own]),
        _fault(
            "of another shape",
            [
                f"{k} {tuple(getattr(v, 'shape', ()))}, expected {tuple(own[k].shape)}"
                for k, v in state.items()
                if k in own and getattr(v, "shape", None) != own[k].shape
            ],
        ),
    ]
    if not any(faults):
        odd = [key for key, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
        faults = [_fault("with NaN or infinite values", odd)]
    faults = [fault for fault in faults if fault]
    if faults:
        raise UserError(f"{source} does not fit {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(state)


def _fault(name: str, keys: Sequence[str], shown: int = 3) -> str:
    if not keys:
        return ""
    more = f", ... {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{len(keys)} {name} ({', '.join(keys[:shown])}{more})"
