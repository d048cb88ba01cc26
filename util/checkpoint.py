"""Checkpoints: written atomically, read without running code, loaded with a clear word on what does not fit."""

import torch

from util.cli import UserError, is_out_of_memory
from util.files import atomic_path


def save_checkpoint(path, value):
    """Write ``value`` (tensors, numbers, strings, lists and dicts of them) with `torch.save`, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # What the system said of the file, a full disk for example, is only the context of torch's own words.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path):
    """Read a checkpoint onto the CPU; nothing in the file can run.

    Raises:
        UserError: the file is missing, cannot be read, is damaged, or holds more than plain data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a checkpoint file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in almost any way
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): it is damaged, was not written by "
            "torch.save, or holds more than tensors and plain data"
        ) from None


def load_state_dict_file(path):
    """Read a bare state dict; a ``module.`` prefix (saved inside DataParallel) is taken off.

    Raises:
        UserError: see `load_checkpoint`, or the file is no state dict.
    """
    state = load_checkpoint(path)
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(f"{path} is not a state dict (names -> tensors)")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_weights(module, state, source):
    """Load ``state`` strictly into ``module``.

    Raises:
        UserError: one line that counts and names missing keys, unknown keys and differing shapes.
    """
    own = module.state_dict()
    faults = [
        _fault("missing", [key for key in own if key not in state]),
        _fault("unknown", [key for key in state if key not in own]),
        _fault(
            "of another shape",
            [
                f"{k} {tuple(v.shape)}, expected {tuple(own[k].shape)}"
                for k, v in state.items()
                if k in own and v.shape != own[k].shape
            ],
        ),
    ]
    faults = [fault for fault in faults if fault]
    if faults:
        raise UserError(f"{source} does not fit {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(state)


def _fault(name, keys, shown=3):
    if not keys:
        return ""
    more = f", ... {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{len(keys)} {name} ({', '.join(keys[:shown])}{more})"
