"""Data loaders whose order depends only on the seed and the epoch."""

import itertools
import math
from argparse import Namespace
from typing import Any

import torch

from engine.data_workers import BatchLoader
from util.cli import UserError
from util.distributed import rank, world_size
from util.nested import map_tensors, rows_of
from util.processors import own_processors
from util.samplers import EpochBatchSampler


def total_batch(args: Namespace) -> int:
    """Samples of a batch over all processes together, from ``--batchsize`` or ``--batchsize_per_process``."""
    return args.batchsize if args.batchsize is not None else args.batchsize_per_process * world_size()


def build_loader(
    dataset: Any,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    num_workers: int,
    device: torch.device,
    all_ranks: bool = False,
    drop_last: bool = False,
    min_share: int = 2,
) -> BatchLoader:
    """Return a `BatchLoader`, a `DataLoader` of batch dicts.

    Args:
        dataset: Has ``__getitems__(indices) -> batch dict``; read in this process if it has a true ``in_memory``.
        batch_size: Samples of a batch over all ranks together.
        shuffle: Draw a new order for every value of the sampler's ``epoch``.
        seed: Seed of the order.
        num_workers: Upper limit of loading processes; see also `reading_processes` and `affordable`.
        device: Device that the batches are moved to; a GPU gets pinned memory.
        all_ranks: Every rank reads complete batches, instead of its share of each.
        drop_last, min_share: See `EpochBatchSampler`.
    """
    if not all_ranks and batch_size < min_share * world_size():
        least = "two samples" if min_share == 2 else "one sample"
        raise UserError(
            f"--batchsize {batch_size} leaves fewer than {least} for each of {world_size()} processes; "
            f"use at least {min_share * world_size()}"
        )
    share = {} if all_ranks else {"rank": rank(), "world_size": world_size()}
    options: dict[str, Any] = {
        "shuffle": shuffle,
        "seed": seed,
        "drop_last": drop_last,
        "min_share": min_share,
        **share,
    }
    sampler = EpochBatchSampler(len(dataset), batch_size, **options)
    workers = 0 if getattr(dataset, "in_memory", False) else reading_processes(num_workers, device)
    own_size = batch_size if all_ranks else math.ceil(batch_size / world_size())
    return BatchLoader(
        dataset,
        workers,
        own_size,
        batch_sampler=sampler,
        pin_memory=device.type == "cuda",
        # A separate generator, so that making an iterator does not draw from the global one.
        generator=torch.Generator().manual_seed(seed),
    )


def reading_processes(num_workers: int, device: torch.device) -> int:
    """Number of loading processes: ``num_workers``, limited so that the network has processors left to compute.

    A network on a GPU needs one of the processors that this process may use (`own_processors`). A network on a CPU
    uses all of them, and a quarter as many loading processes keep it busy.
    """
    cores = own_processors()
    return min(num_workers, max(1, cores - 1 if device.type == "cuda" else cores // 4))


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move the tensors of a batch dict, also those in lists and dicts, to ``device``."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


def split_batch(batch: dict[str, Any], size: int, min_part: int = 2) -> list[tuple[int, dict[str, Any]]]:
    """Cut a batch dict into parts of about ``size`` samples (0: one part), none with fewer than ``min_part``.

    A part that would be too small is merged with its neighbours, since batch norm needs two samples.

    Returns:
        List of (number of samples, batch dict).
    """
    count = len(batch["label"])
    parts = math.ceil(count / size) if size else 1
    while parts > 1 and count // parts < min_part:
        parts -= 1
    if parts == 1:
        return [(count, batch)]
    bounds = [count * i // parts for i in range(parts + 1)]
    return [(stop - start, rows_of(batch, start, stop)) for start, stop in itertools.pairwise(bounds)]
