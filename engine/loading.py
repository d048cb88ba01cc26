"""Data loaders whose order depends only on seed and epoch, with data workers that cannot hang a run.

A worker passes its batches on in shared memory, of which docker gives a container 64 MB. When a batch does not fit,
torch loses it in a background thread, and the run waits forever. So we measure a batch beforehand and start only as
many workers as fit; the main process reads the batches that still do not fit.
"""

from __future__ import annotations

import logging
import math
import multiprocessing.queues
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from util.cli import UserError, dead_worker
from util.distributed import rank, world_size
from util.nested import tensors_in
from util.processors import own_processors, use_one_thread
from util.samplers import EpochBatchSampler

logger = logging.getLogger("mdarts")

SHARED_FOLDER = "/dev/shm"
# Batches that each worker keeps ready, and batches that the main process holds at once.
PREFETCH, IN_USE = 2, 2
# Shared memory left to others (NCCL, another run): this many bytes, but at most an eighth of the total.
MARGIN, MARGIN_SHARE = 64 << 20, 8
MAX_OPEN_FILES = 65536
_MORE = "`docker run --shm-size 8g` (or --ipc host) gives more"
_logged: set[str] = set()


def total_batch(args: Namespace) -> int:
    """Samples of a batch over all processes together, from ``--batchsize`` or ``--batchsize_per_process``."""
    return args.batchsize if args.batchsize is not None else args.batchsize_per_process * world_size()


def build_loader(dataset: Any, batch_size: int, **options: Any) -> BatchLoader:
    """The loader of one data set; see `build_loaders`."""
    return build_loaders({"": dataset}, batch_size, **options)[""]


def build_loaders(
    datasets: Mapping[str, Any],
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    num_workers: int,
    device: torch.device,
    all_ranks: bool = False,
    drop_last: bool = False,
    min_share: int = 2,
) -> dict[str, BatchLoader]:
    """A `BatchLoader` (a `DataLoader` of batch dicts) of every data set, by the same names.

    Args:
        datasets: Name -> data set, with ``__getitems__(indices) -> batch dict``; read in this process if it has a true
            ``in_memory``.
        batch_size: Samples of a batch over all ranks together.
        shuffle: Draw a new order for every value of the sampler's ``epoch``.
        seed: Seed of the order.
        num_workers: Upper limit of loading processes; see also `reading_processes` and `affordable`.
        device: Device that the batches are moved to; a GPU gets pinned memory.
        all_ranks: Every rank reads complete batches, instead of its share of each.
        drop_last, min_share: See `EpochBatchSampler`.
    """
    own, processes = (0, 1) if all_ranks else (rank(), world_size())
    if not all_ranks and batch_size < min_share * processes:
        least = "two samples" if min_share == 2 else "one sample"
        raise UserError(
            f"--batchsize {batch_size} leaves fewer than {least} for each of {processes} processes; "
            f"use at least {min_share * processes}"
        )
    options: dict[str, Any] = {
        "shuffle": shuffle,
        "seed": seed,
        "drop_last": drop_last,
        "min_share": min_share,
        "rank": own,
        "world_size": processes,
    }
    workers = reading_processes(num_workers, device)
    return {
        name: BatchLoader(
            dataset,
            0 if getattr(dataset, "in_memory", False) else workers,
            math.ceil(batch_size / processes),
            batch_sampler=EpochBatchSampler(len(dataset), batch_size, **options),
            pin_memory=device.type == "cuda",
            # A separate generator, so that making an iterator does not draw from the global one.
            generator=torch.Generator().manual_seed(seed),
        )
        for name, dataset in datasets.items()
    }


def reading_processes(num_workers: int, device: torch.device) -> int:
    """Number of loading processes: ``num_workers``, limited so that the network has processors left to compute.

    A network on a GPU needs one of the processors that this process may use (`own_processors`). A network on a CPU
    uses all of them, and a quarter as many loading processes keep it busy.
    """
    cores = own_processors()
    return min(num_workers, max(1, cores - 1 if device.type == "cuda" else cores // 4))


class BatchLoader(DataLoader):
    """A `DataLoader` of batch dicts, used like any other.

    Args:
        dataset: Has ``__getitems__(indices) -> batch dict``.
        num_workers: Data workers wanted; fewer or none are started if shared memory is short (`affordable`).
        batch_size: Samples in a batch of this process, for its size in bytes.
        options: Further arguments of `DataLoader`.

    Iterating raises a `UserError` when a worker dies.
    """

    batch_sampler: EpochBatchSampler

    def __init__(self, dataset: Any, num_workers: int, batch_size: int, **options: Any) -> None:
        workers, prefetch = affordable(dataset, num_workers, batch_size)
        if workers:
            _allow_more_files()
            options |= {"prefetch_factor": prefetch, "persistent_workers": True, "worker_init_fn": _start_worker}
        self.source = dataset
        dataset = _Shared(dataset) if workers else dataset
        super().__init__(dataset, num_workers=workers, collate_fn=_identity, **options)

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        try:
            for batch in super().__iter__():
                if isinstance(batch, _NoRoom):
                    _warn_once(f"{SHARED_FOLDER} is full: the main process reads the batches that do not fit; {_MORE}")
                    batch = self.source.__getitems__(batch.indices)
                yield batch
        except RuntimeError as error:
            message = dead_worker(error)
            if message is None:
                raise
            raise UserError(message) from None


def affordable(dataset: Any, num_workers: int, batch_size: int) -> tuple[int, int | None]:
    """How many data workers fit into shared memory; logs one line if that is fewer than wanted.

    Args:
        dataset: See `BatchLoader`; its first and last sample are read.
        num_workers: Workers wanted.
        batch_size: Samples in a batch.

    Returns:
        Number of workers, and the number of batches that each may prefetch (None without workers).
    """
    if not num_workers:
        return 0, None
    if not _can_share():
        _warn_once("this system has no shared memory or semaphores: reading data in the main process, which is slower")
        return 0, None
    room, samples = _room(), len(dataset)
    if not samples:
        return 0, None
    if room is None:
        return num_workers, PREFETCH
    room //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    ends = sorted({0, samples - 1})
    # Lists of numbers without an epoch: an augmented input has the same size in every epoch.
    measured = sum(tensor.nbytes for tensor in tensors_in(dataset.__getitems__(ends)))
    size = max(1, measured * batch_size // len(ends))
    waiting = room // size - IN_USE
    prefetch = PREFETCH if waiting >= PREFETCH * num_workers else 1
    workers = max(0, min(num_workers, waiting // prefetch))
    if workers < num_workers:
        needed = size * (PREFETCH * num_workers + IN_USE)
        _warn_once(
            f"{SHARED_FOLDER} has room for {room / 2**20:,.0f} MB, but {_workers(num_workers)} would fill"
            f" {needed / 2**20:,.0f} MB (batches of {size / 2**20:,.1f} MB): {_reading(workers)}; {_MORE}"
        )
    return workers, prefetch


def _reading(workers):
    if not workers:
        return "reading data in the main process, which is slower"
    return f"using {_workers(workers)}"


def _workers(count):
    return f"{count} data worker{'s' * (count > 1)}"


class _Shared(Dataset):
    """A data set as a worker reads it: each batch is in shared memory, or is a `_NoRoom`."""

    def __init__(self, dataset):
        self.dataset, self._bytes = dataset, 0

    def __len__(self):
        return len(self.dataset)

    def __getitems__(self, indices):
        room = _room()
        if room is not None and self._bytes > room:  # the last batch would not fit now
            return _NoRoom(indices)
        batch = self.dataset.__getitems__(indices)
        self._bytes = sum(tensor.nbytes for tensor in tensors_in(batch))
        # torch would do this later, in a thread whose errors are lost.
        return batch if all(map(_share, tensors_in(batch))) else _NoRoom(indices)


class _NoRoom:
    """Takes the place of a batch that did not fit into shared memory."""

    def __init__(self, indices):
        self.indices = indices


def _share(tensor):
    """Move a tensor into shared memory; returns False if it does not fit or too many files are open."""
    room = _room()
    if room is not None and tensor.nbytes > room:
        return False
    try:
        tensor.share_memory_()
    except (RuntimeError, OSError):
        return False
    return True


def _room():
    """Bytes of shared memory that are still available, or None if the system does not report them."""
    try:
        status = os.statvfs(SHARED_FOLDER)
    except (OSError, AttributeError):
        return None
    margin = min(MARGIN, status.f_blocks * status.f_frsize // MARGIN_SHARE)
    return max(0, status.f_bavail * status.f_frsize - margin)


def _can_share():
    """Whether processes can share memory and locks on this system."""
    try:
        multiprocessing.get_context().Lock()
        torch.zeros(1).share_memory_()
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def _allow_more_files():
    """Raise the limit of open files as far as allowed: every tensor of a waiting batch is one open file."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ImportError, OSError, ValueError):
        return  # another system, or not allowed: the usual limit stays


def _warn_once(line):
    if line not in _logged:  # once, not for every split
        _logged.add(line)
        logger.warning("%s", line)


def _start_worker(_):
    use_one_thread()
    # By default a batch that cannot be sent is dropped, and the main process waits for it forever.
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_end_worker)


def _end_worker(error, _):
    print(f"a data worker cannot send its batch: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    os._exit(1)


def _identity(batch):
    return batch
