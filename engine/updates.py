"""One optimiser step on one batch, in any precision and on any number of devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from util.nested import split_batch

if TYPE_CHECKING:
    from engine.run import Run

# (outputs, batch) -> scalar, the mean over the samples; see `OptimizerStep`.
Loss = Callable[[Any, dict[str, Any]], torch.Tensor]
# (network, whether a step may leave some parameters unused) -> the network wrapped for several devices.
Parallel = Callable[[nn.Module, bool], nn.Module]


class Precision:
    """The precision of a run: autocast and, for float16, gradient scaling.

    Args:
        amp: ``off``, ``bf16`` or ``fp16``.
        device: Device of the network.
    """

    def __init__(self, amp: str = "off", device: torch.device = torch.device("cpu")) -> None:  # noqa: B008 - a constant
        self.amp, self.device = amp, device
        self.dtype = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context manager for a forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler. It is disabled unless float16 is used."""
        return torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")


class OptimizerStep:
    """One optimiser, and the parameters whose gradients it needs. No other parameter of the network has gradients.

    Args:
        net: The network: batch dict -> outputs, a tensor or a tuple of tensors with a batch axis.
        loss: (outputs, batch) -> scalar, a mean over the samples of the batch. It may have a method ``prepare``, which
            is called with this rank's batch before it is split into micro-batches, and returns it with additional
            entries that depend on the full batch, such as weights of its samples.
        optimizer: The optimiser.
        parameters: Parameters that need gradients; None: those of ``optimizer``.
        schedule: An object whose ``step()`` returns the learning rate of each step; None: that of the optimiser.
        precision: See `Precision`.
        parallel: Wraps the network, see `data_parallel`. It is called while only ``parameters`` require gradients, so
            that DDP averages exactly those.
        find_unused: Whether a step may leave some of ``parameters`` unused.
        micro_batch: Number of samples per forward and backward pass, over which gradients are accumulated. Batch norm
            uses the statistics of these samples. 0: the full batch in one pass.
        min_part: Minimum number of samples per pass: 2 with batch norm, else 1.
        reduction: ``mean``: the gradient of the mean over the samples (of all ranks); ``sum``: of their sum.
        clip: Maximum L2 norm of all gradients together; None: no limit.
        step_unused: Set the gradients of unused parameters to zero, so that an optimiser with moments keeps moving
            them. Otherwise they do not change.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        parameters: Iterable[nn.Parameter] | None = None,
        schedule: Any = None,
        precision: Precision | None = None,
        parallel: Parallel | None = None,
        find_unused: bool = False,
        micro_batch: int = 0,
        min_part: int = 2,
        reduction: str = "mean",
        clip: float | None = None,
        step_unused: bool = False,
    ) -> None:
        self.net, self.loss, self.optimizer, self.schedule = net, loss, optimizer, schedule
        if parameters is None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.parameters = list(parameters)
        self.precision = precision or Precision()
        self.scaler = self.precision.scaler()
        self.micro_batch, self.min_part = micro_batch, min_part
        self.reduction, self.clip, self.step_unused = reduction, clip, step_unused
        self.activate()
        self.model: Any = parallel(net, find_unused) if parallel else net
        # DDP averages the gradients of so many processes.
        self.processes: int = 1
        if isinstance(self.model, nn.parallel.DistributedDataParallel):
            group: Any = self.model.process_group
            self.processes = group.size()

    def activate(self) -> None:
        """Let exactly these parameters of the network require gradients."""
        own = {id(parameter) for parameter in self.parameters}
        for parameter in self.net.parameters():
            parameter.requires_grad_(id(parameter) in own)

    def step(self, batch: dict[str, Any], size: int | None = None) -> tuple[torch.Tensor, Any]:
        """Do one update of the parameters.

        Args:
            batch: This rank's part of the batch, a dict on the device.
            size: Number of samples of the batch over all ranks; None: that of ``batch`` times the number of ranks.

        Returns:
            (loss, outputs), both detached, as computed before the update.
        """
        self.begin()
        loss, outputs = self.backward(batch, size)
        self.apply()
        return loss, outputs

    def begin(self) -> None:
        """Let the parameters require gradients, set the learning rate, and clear old gradients."""
        self.activate()
        if self.schedule is not None:
            learning_rate = self.schedule.step()
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.parameters:
            parameter.grad = None

    def apply(self) -> None:
        """Update the parameters from their gradients."""
        self.scaler.unscale_(self.optimizer)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        if self.step_unused:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def backward(self, batch: dict[str, Any], size: int | None = None) -> tuple[torch.Tensor, Any]:
        """Add the gradient of the loss on ``batch`` to the gradients of the parameters; see `step`."""
        if hasattr(self.loss, "prepare"):
            batch = self.loss.prepare(batch)
        count = len(batch["label"])
        # DDP averages over ranks. With uneven parts, this weight turns that into the mean over samples.
        size = size or count * self.processes
        weight = count * self.processes / size
        weight *= size if self.reduction == "sum" else 1
        parts, kept = split_batch(batch, self.micro_batch, self.min_part), []
        total: Any = 0.0
        for i, (part_size, part) in enumerate(parts):
            share = part_size / count
            with self._communication(last=i + 1 == len(parts)):
                with self.precision.autocast():
                    outputs = self.model(part)
                outputs = in_float32(outputs)
                loss = self.loss(outputs, part)
                self.scaler.scale(loss * (weight * share)).backward()
            total = total + loss.detach() * share
            kept.append(_for_each(outputs, torch.Tensor.detach))
        return total, _join(kept)

    def _communication(self, last):
        """Context manager that lets DDP average gradients only once, after the last micro-batch."""
        parallel = isinstance(self.model, nn.parallel.DistributedDataParallel)
        return contextlib.nullcontext() if last or not parallel else self.model.no_sync()

    @torch.no_grad()
    def predict(self, batch: dict[str, Any]) -> Any:
        """Return the outputs without an update, in the network's current mode and in the micro-batches of an update."""
        outputs = []
        for _, part in split_batch(batch, self.micro_batch, self.min_part):
            with self.precision.autocast():
                outputs.append(in_float32(self.net(part)))
        return _join(outputs)

    def state_dict(self) -> dict[str, Any]:
        """The state of optimiser, schedule and scaler."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])


def in_float32(outputs: Any) -> Any:
    """Convert a tensor or a tuple of tensors to float32, in which losses are computed."""
    return _for_each(outputs, torch.Tensor.float)


def _for_each(outputs, function):
    return tuple(map(function, outputs)) if isinstance(outputs, tuple) else function(outputs)


def _join(parts):
    """Concatenate the outputs of micro-batches."""
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(same) for same in zip(*parts, strict=True))
    return torch.cat(parts)


class _InAutocast(nn.Module):
    """Enables autocast inside the network: DataParallel runs replicas in threads, which do not inherit it."""

    def __init__(self, net, precision):
        super().__init__()
        self.net, self.precision = net, precision

    def forward(self, batch):
        with self.precision.autocast():
            return self.net(batch)


def data_parallel(run: Run, precision: Precision) -> Parallel | None:
    """How an `OptimizerStep` wraps its network: in DDP under torchrun, in DataParallel with ``--parallel``, or not.

    Args:
        run: The `Run`, with its device and arguments.
        precision: Precision of the run.

    Returns:
        Function (network, whether a step may leave parameters unused) -> wrapped network; None: do not wrap it.
    """
    if run.processes > 1:
        devices = [run.device.index] if run.device.type == "cuda" else None
        return lambda net, unused: nn.parallel.DistributedDataParallel(net, devices, find_unused_parameters=unused)
    if getattr(run.args, "parallel", False) and run.device.type == "cuda" and torch.cuda.device_count() > 1:
        first = run.device.index or 0
        devices = [first, *(index for index in range(torch.cuda.device_count()) if index != first)]
        return lambda net, unused: nn.DataParallel(_InAutocast(net, precision), devices)
    return None
