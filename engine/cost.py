"""What a network costs: parameters, FLOPs of a sample, measured latency."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# A latency is the median of this many forward passes, or of as many as fit in the seconds.
REPEATS, SECONDS = 20, 0.25
WARM_UP = 2

# (number of samples, device) -> arguments of the network's forward pass.
Inputs = Callable[[int, torch.device], tuple[Any, ...]]


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and no trace in the random state."""
    modes = {part: part.training for part in module.modules()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


def count_flops(module: nn.Module, inputs: Inputs, device: torch.device) -> int:
    """FLOPs of a forward pass on one sample, by torch's counter.

    It counts matrix products, convolutions and attention, with two FLOPs per multiplication and addition; what works
    element by element (sums, norms, activations) counts nothing.

    Args:
        module: The network, on ``device``; ``meta`` works too.
        inputs: See `Inputs`.
        device: Its device.
    """
    # The fused kernels of some devices are unknown to the counter; their products are not.
    with _evaluating(module), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs(1, device))
    return counter.get_total_flops()


def costs_of(module: nn.Module, inputs: Inputs, device: torch.device) -> dict[str, int]:
    """``parameters`` of a network, and ``flops`` of a forward pass on one sample, see `count_flops`."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {"parameters": parameters, "flops": count_flops(module, inputs, device)}


def latency_ms(module: nn.Module, inputs: Inputs, device: torch.device, samples: int) -> float:
    """Median milliseconds of a forward pass in evaluation mode on ``samples`` samples."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: list[float] = []
    with _evaluating(module):
        batch = inputs(samples, device)
        start = time.perf_counter()
        for _ in range(WARM_UP):
            module(*batch)
            wait()
            if time.perf_counter() - start > SECONDS:
                break
        while len(times) < REPEATS and (not times or sum(times) < SECONDS):
            wait()
            start = time.perf_counter()
            module(*batch)
            wait()
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def cost_facts(module: nn.Module, inputs: Inputs, device: torch.device, batch: int, what: str) -> dict[str, Any]:
    """What a result says of the cost of a network.

    Args:
        module: The network, on ``device``.
        inputs: See `Inputs`.
        device: Its device.
        batch: Samples of a batch.
        what: Describes the network, in words.

    Returns:
        ``cost``: the same on every machine. ``latency``: measured on this one.
    """
    milliseconds = {f"batch_{size}_ms": round(latency_ms(module, inputs, device, size), 4) for size in {1, batch}}
    return {
        "cost": {
            **costs_of(module, inputs, device),
            "of": f"{what}; FLOPs of one sample, two per multiply-add of matrix products and convolutions",
        },
        "latency": {**dict(sorted(milliseconds.items())), "batch": batch, "on": device.type},
    }
