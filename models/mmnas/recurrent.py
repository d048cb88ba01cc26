"""Runs the LSTM that reads the words, in a precision that the device supports."""

import functools

import torch
from torch import nn


@functools.cache
def lstm_runs(device_type: str, dtype: torch.dtype) -> bool:
    """Whether this machine can run an LSTM in ``dtype``; a tiny one is run forward and backward to find out.

    CPUs without AVX-512, for example, have no bfloat16 LSTM, although all other layers of the network run in bfloat16.
    The probe runs once per process and leaves the random state as it was.

    Args:
        device_type: ``cpu``, ``cuda``, ...
        dtype: The dtype of autocast.
    """
    # The caller's autocast, no_grad and random state must neither change the answer nor be changed by the probe.
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
    """Run an LSTM: float (B, T, E) -> all outputs, float (B, T, H).

    Under autocast the outputs have its dtype, or that of the weights if the machine cannot run it (`lstm_runs`).
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and not lstm_runs(kind, torch.get_autocast_dtype(kind)):
        with torch.autocast(kind, enabled=False):
            return lstm(x)[0]
    return lstm(x)[0]
