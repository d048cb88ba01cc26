"""Estimates peak memory and time of a run from shapes, without running it.

The networks are built and run on tensors without storage (torch's `FakeTensorMode`), so networks that do not fit into
memory can be measured too. The time is that of the arithmetic, at the speed that a short convolution reaches on the
device, or that of reading samples, whichever is longer. It is accurate to a factor of about two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from util.nested import map_tensors

if TYPE_CHECKING:
    from torch import nn

    from engine.updates import Precision
    from tasks.task import SplitData

# A GPU's allocator rounds sizes up to a multiple of this many bytes.
_PIECE = 512
_PROBE_SECONDS = 0.5
_READS = 8


@dataclasses.dataclass
class Phase:
    """One kind of work that a run does.

    Attributes:
        name: Description of the work.
        samples: Number of samples per epoch (or in total, for work that is done once).
        flops: Floating-point operations for all samples.
        peak_bytes: Largest total size of the tensors that exist at the same time, including network and optimiser.
        read_seconds: Time to read all samples, with all reading processes.
    """

    name: str
    samples: int
    flops: float
    peak_bytes: int
    read_seconds: float


class _Memory(TorchDispatchMode):
    """Tracks the total size of all tensor storages that exist."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._live = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for value in tree_leaves(outputs):
            if isinstance(value, torch.Tensor):
                self._add(value.untyped_storage())
        return outputs

    def _add(self, storage):
        if id(storage) in self._live:
            return
        size = -(-storage.nbytes() // _PIECE) * _PIECE
        self._live.add(id(storage))
        weakref.finalize(storage, self._remove, id(storage), size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key, size):
        self._live.discard(key)
        self.now -= size


class Simulation:
    """Context manager in which tensors have shapes but no content, and are counted as used memory.

    Args:
        device: `torch.device` that the run would use.
        precision: `engine.updates.Precision` of the run.
        batch_size: Number of samples in a batch.
        num_readers: Number of data loading processes.

    Attributes:
        phases: The `Phase`s that `measure` has recorded.
    """

    def __init__(self, device: torch.device, precision: Precision, batch_size: int, num_readers: int) -> None:
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self.num_readers = max(1, num_readers)
        self.memory = _Memory()
        self.phases: list[Phase] = []
        self._held: list[torch.Tensor] = []

    def __enter__(self) -> Simulation:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(FakeTensorMode())
        self._stack.enter_context(self.memory)
        self._stack.enter_context(torch.device(self.device))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        self._held.clear()
        return self._stack.__exit__(*error)

    def adopt(self, net: nn.Module) -> nn.Module:
        """Replace the tensors of ``net`` by tensors without content on the simulated device, and return ``net``."""
        new: dict[int, torch.Tensor] = {}
        for module in net.modules():
            stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for tensors in stores:
                for name, old in tensors.items():
                    if old is not None:
                        tensors[name] = new.setdefault(id(old), self._like(old))
        return net

    def _like(self, old):
        tensor = torch.empty_strided(old.size(), old.stride(), dtype=old.dtype)
        return torch.nn.Parameter(tensor, old.requires_grad) if isinstance(old, torch.nn.Parameter) else tensor

    def hold_adam(self, parameters: Iterable[torch.Tensor]) -> None:
        """Count the memory of the two moments that Adam keeps for each parameter."""
        self._held += [torch.empty_like(parameter) for parameter in parameters for _ in range(2)]

    def batch(self, like: Mapping[str, Any], batch_size: int | None = None) -> dict[str, Any]:
        """Create a batch with the shapes and dtypes of ``like``, a real batch dict of one or more samples."""
        size = batch_size or self.batch_size

        return map_tensors(lambda value: torch.zeros((size, *value.shape[1:]), dtype=value.dtype), dict(like))

    def measure(
        self,
        name: str,
        work: Callable[[], object],
        samples: int,
        batch_size: int | None = None,
        read_seconds: float = 0.0,
    ) -> None:
        """Run the work on one batch, and record a `Phase`.

        Args:
            name: Name of the phase.
            work: Function without arguments that does the work on one batch.
            samples: Number of samples of the phase.
            batch_size: Number of samples of that batch; None: that of the simulation.
            read_seconds: Time that one process takes to read all samples.
        """
        from torch.utils.flop_counter import FlopCounterMode  # loads triton, which takes half a second

        self.memory.peak = self.memory.now
        # A separate mode does the counting, so that the backward pass is counted too.
        with FlopCounterMode(display=False) as counter:
            work()
        share = samples / (batch_size or self.batch_size)
        self.phases.append(
            Phase(name, samples, counter.get_total_flops() * share, self.memory.peak, read_seconds / self.num_readers)
        )


def seconds_to_read(dataset: SplitData, names: Sequence[str]) -> float:
    """Measure the seconds that one process takes to read the inputs ``names`` of a sample; 0 without names."""
    if not names:
        return 0.0
    rows = [i % len(dataset) for i in range(_READS)]
    dataset.read(rows[:1], only=names)  # opens files
    started = time.perf_counter()
    dataset.read(rows, only=names)
    return (time.perf_counter() - started) / len(rows)


def flops_per_second(device: torch.device, precision: Precision) -> float:
    """Measure the floating-point operations per second that ``device`` reaches in a convolution.

    Args:
        device: The device.
        precision: Precision of the run.
    """
    size = 32 if device.type == "cuda" else 2
    images = torch.randn(size, 64, 56, 56, device=device)
    convolution = torch.nn.Conv2d(64, 64, 3, padding=1).to(device)
    work = size * 56 * 56 * 64 * 64 * 9 * 2

    def run(times):
        with torch.no_grad(), precision.autocast():
            for _ in range(times):
                convolution(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    # Several convolutions hide the cost of waiting for a GPU. On a CPU a single one takes long enough.
    times = 10 if device.type == "cuda" else 1
    run(times)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < _PROBE_SECONDS:
        run(times)
        done += times
    return done * work / (time.perf_counter() - started)


def report(simulation: Simulation, rate: float) -> dict[str, Any]:
    """Print the phases as a table, and return them as plain data.

    Args:
        simulation: A `Simulation` with recorded phases.
        rate: Floating-point operations per second, see `flops_per_second`.
    """
    device = simulation.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"estimate for {name}: batch {simulation.batch_size}, amp {simulation.precision.amp}, "
        f"{rate / 1e12:.3g} TFLOP/s in a probe\n"
    )
    print("| phase | samples | peak memory | TFLOP | computing | reading |\n|---|---|---|---|---|---|")
    rows = []
    for phase in simulation.phases:
        seconds = phase.flops / rate
        print(
            f"| {phase.name} | {phase.samples:,} | {phase.peak_bytes / 2**30:.2f} GiB | {phase.flops / 1e12:.4g} | "
            f"{_duration(seconds)} | {_duration(phase.read_seconds)} |"
        )
        rows.append({**dataclasses.asdict(phase), "compute_seconds": seconds})
    print(
        "\nMemory: the tensors that exist at the same time, without library workspaces and the allocator's reserve. "
        "Time: the longer of computing and reading, accurate to a factor of about two."
    )
    return {"kind": "estimate", "device": name, "flops_per_second": rate, "phases": rows}


def _duration(seconds):
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
