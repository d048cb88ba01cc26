"""The LSTM that reads the words, in a precision that the device can compute it in."""

import functools

import torch
from torch import nn


@functools.cache
def lstm_runs(device_type, dtype):
    """Whether torch has an LSTM of ``dtype`` on this machine, found by running a tiny one forward and backward.

    Not every processor has it: without AVX-512, for example, there is no bfloat16 LSTM, although every other layer
    that we use runs in bfloat16 there.

    Args:
        device_type: ``cpu``, ``cuda``, ...
        dtype: Type that autocast would compute it in.

    Returns:
        bool; the probe runs once per process. It draws no random numbers that anyone else would have drawn.
    """
    # A surrounding autocast, no_grad or frozen random state must not change the answer, nor be changed by it.
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


def run_lstm(lstm, x):
    """Outputs of ``lstm`` for ``x``, float (B, T, E) -> (B, T, H).

    Under autocast they have its type, or the type of the weights where the machine has no such LSTM (`lstm_runs`).
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and not lstm_runs(kind, torch.get_autocast_dtype(kind)):
        with torch.autocast(kind, enabled=False):
            return lstm(x)[0]
    return lstm(x)[0]
