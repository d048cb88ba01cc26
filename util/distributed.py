"""One process or many: what torchrun starts is found by its environment; alone, everything here is a no-op."""

import datetime
import gc
import os

import torch
from torch import distributed

from util.cli import UserError
from util.processors import limit_threads


def init_distributed(device):
    """Join the process group that torchrun announces, and keep to this process's share of the processors.

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
        raise UserError(f"--device {device} under torchrun: each process takes its own GPU; use --device cuda")
    asked = device
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0) if together else 0}"
    if device.startswith("cuda"):
        if int(device.split(":")[1]) >= torch.cuda.device_count():
            seen = torch.cuda.device_count() or "no GPU"
            raise UserError(f"--device {asked}: this torch sees {seen}; use --device cpu or auto")
        torch.cuda.set_device(device)
    if together and not distributed.is_initialized():
        # Ranks may wait for rank 0's features for longer than the default ten minutes.
        backend = "nccl" if device.startswith("cuda") else "gloo"
        distributed.init_process_group(backend, timeout=datetime.timedelta(hours=12))
    limit_threads()
    return torch.device(device)


def world_size():
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank():
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def barrier():
    """Wait for all processes."""
    if world_size() > 1:
        distributed.barrier()


def from_rank_0(value):
    """Rank 0's ``value``, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value):
    """Every rank's ``value`` in a list, on every rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def sum_over_ranks(tensor):
    """The sum of every rank's ``tensor``, on every rank; ``tensor`` itself stays as it is."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def mean_over_ranks(tensors):
    """For each of the tensors its mean over the ranks, without a graph."""
    return [sum_over_ranks(tensor.detach()) / world_size() for tensor in tensors]


def check_same_on_all_ranks(value, name):
    """Make sure that every rank has come to the same ``value`` (anything that can be compared).

    Raises:
        RuntimeError: they differ: what follows would mix up different networks.
    """
    if any(other != value for other in gather(value)):
        raise RuntimeError(f"the {name} differ between the processes")


def share_buffers(module):
    """Give every rank rank 0's buffers (running batch statistics), so that all evaluate the same network."""
    if world_size() > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def leave(together=True):
    """Leave the process group, if there is one.

    Args:
        together: Wait for the other ranks first. One that goes while another still talks to it can
            bring that one down; after an error nobody may be left to wait for.
    """
    if distributed.is_initialized():
        if together:
            distributed.barrier()
        gc.collect()  # wrappers around networks hold on to the group
        distributed.destroy_process_group()
