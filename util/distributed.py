"""Communication between the processes that torchrun starts. In a single process these functions do nothing."""

from __future__ import annotations

import datetime
import gc
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from util.cli import UserError
from util.processors import limit_threads

T = TypeVar("T")

if TYPE_CHECKING:
    from torch import nn


def init_distributed(device: str) -> torch.device:
    """Join torchrun's process group, if there is one, and limit threads to this process's share of the processors.

    Args:
        device: ``auto``, ``cpu`` or ``cuda`` (also ``cuda:1``).

    Returns:
        The `torch.device` of this process.

    Raises:
        UserError: there is no such GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    together = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if together and device.startswith("cuda:"):
        raise UserError(f"--device {device} under torchrun: each process uses its own GPU; pass --device cuda")
    asked = device
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0) if together else 0}"
    if device.startswith("cuda"):
        if int(device.split(":")[1]) >= torch.cuda.device_count():
            count = torch.cuda.device_count() or "no"
            raise UserError(f"--device {asked}: this torch sees {count} GPUs; use --device cpu or auto")
        torch.cuda.set_device(device)
    if together and not distributed.is_initialized():
        # Ranks may have to wait for the features that rank 0 computes, longer than the default ten minutes.
        backend = "nccl" if device.startswith("cuda") else "gloo"
        distributed.init_process_group(backend, timeout=datetime.timedelta(hours=12))
    limit_threads()
    return torch.device(device)


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def barrier() -> None:
    """Wait until all processes have called this."""
    if world_size() > 1:
        distributed.barrier()


def from_rank_0(value: T) -> T:
    """Broadcast ``value`` from rank 0 and return it on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """Collect the values of all ranks in a list, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sum the tensors of all ranks, on every rank. ``tensor`` itself does not change."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def mean_over_ranks(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Average each tensor over the ranks. The results have no gradients."""
    return [sum_over_ranks(tensor.detach()) / world_size() for tensor in tensors]


def check_same_on_all_ranks(value: Any, name: str) -> None:
    """Check that all ranks have the same value.

    Args:
        value: Any value that can be pickled and compared.
        name: Name of the values in the message, a plural.

    Raises:
        RuntimeError: the values differ, so the ranks would train different networks.
    """
    if any(other != value for other in gather(value)):
        raise RuntimeError(f"the {name} differ between the processes")


def share_buffers(module: nn.Module) -> None:
    """Copy the buffers of rank 0 (running statistics of batch norm) to all ranks, so that they evaluate one network."""
    if world_size() > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def leave(together: bool = True) -> None:
    """Leave the process group, if there is one.

    Args:
        together: Wait for the other ranks first, since a rank that leaves early can crash one that still communicates
            with it. Pass False after an error, when other ranks may already be gone.
    """
    if distributed.is_initialized():
        if together:
            distributed.barrier()
        gc.collect()  # wrappers around networks keep references to the group
        distributed.destroy_process_group()
