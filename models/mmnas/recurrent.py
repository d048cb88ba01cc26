"""The LSTM that reads the words, in a precision that the device supports."""

import functools

import torch
from torch import nn


@functools.cache
def lstm_runs(device_type: str, dtype: torch.dtype) -> bool:
    """Whether torch has an LSTM of ``dtype`` on this machine; a tiny one is run forward and backward to find out.

    Not every processor can: without AVX-512, for example, there is no bfloat16 LSTM, although every other layer of the
    network runs in bfloat16 there.

    Args:
        device_type: ``cpu``, ``cuda``, ...
        dtype: Type that autocast would compute it in.

    Returns:
        bool. The probe runs once per process and leaves the random state as it was.
    """
    # The caller's autocast, no_grad and random state must neither change the answer nor be changed by it.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        lstm = nn.LSTM(2, 2, batch_first=True).to(device_type)
        try:
            with torch.autocast(device_type, dtype=dtype):
                states, _ = lstm(torch.ones(1, 2, 2, device=device_type))
            states.float().sum().backward()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return False
    return True


def run_lstm(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    """Outputs of ``lstm`` for ``x``, float (B, T, E) -> (B, T, H).

    Under autocast their type is autocast's, or that of the weights if the machine has no such LSTM (`lstm_runs`).
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and not lstm_runs(kind, torch.get_autocast_dtype(kind)):
        with torch.autocast(kind, enabled=False):
            return lstm(x)[0]
    return lstm(x)[0]
