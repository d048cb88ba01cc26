"""The cost of a network: parameters, FLOPs per sample, and measured latency."""

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

# A latency is the median of this many forward passes, or of as many as fit into this many seconds.
REPEATS, SECONDS = 20, 0.25
WARM_UP = 2

# (number of samples, device) -> arguments of the network's forward pass.
Inputs = Callable[[int, torch.device], tuple[Any, ...]]


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Context manager: evaluation mode, no gradients, and the random state is restored at the end."""
    modes = {part: part.training for part in module.modules()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


def count_flops(module: nn.Module, inputs: Inputs, device: torch.device) -> int:
    """Count the FLOPs of a forward pass on one sample, with torch's counter.

    It counts matrix products, convolutions and attention, at two FLOPs per multiply-add. Elementwise operations (sums,
    norms, activations) are not counted.

    Args:
        module: The network, on ``device``.
        inputs: See `Inputs`.
        device: Device of the network; ``meta`` works too.
    """
    # The counter does not know the fused attention kernels of some devices, but it knows their matrix products.
    with _evaluating(module), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs(1, device))
    return counter.get_total_flops()


def costs_of(module: nn.Module, inputs: Inputs, device: torch.device) -> dict[str, int]:
    """Count the ``parameters`` of a network, and the ``flops`` of a forward pass on one sample, see `count_flops`."""
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {"parameters": parameters, "flops": count_flops(module, inputs, device)}


def latency_ms(module: nn.Module, inputs: Inputs, device: torch.device, samples: int) -> float:
    """Measure the median milliseconds of a forward pass in evaluation mode on ``samples`` samples.

    Args:
        module, inputs, device: See `count_flops`.
        samples: Batch size.
    """
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
    """The entries of a result for the cost of a network.

    Args:
        module: The network, on ``device``.
        inputs: See `Inputs`.
        device: Device of the network.
        batch: Batch size of the second latency; the first is measured on one sample.
        what: Description of the network.

    Returns:
        A dict of ``cost`` (``parameters`` and ``flops``, which are equal on every machine) and ``latency`` (in
        milliseconds, measured on this machine).
    """
    milliseconds = {f"batch_{size}_ms": round(latency_ms(module, inputs, device, size), 4) for size in {1, batch}}
    return {
        "cost": {
            **costs_of(module, inputs, device),
            "of": f"{what}; FLOPs of one sample, two per multiply-add of matrix products and convolutions",
        },
        "latency": {**dict(sorted(milliseconds.items())), "batch": batch, "on": device.type},
    }
