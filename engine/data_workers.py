"""Data workers that cannot hang a run: batches are passed through shared memory only if they fit.

Workers pass batches to the main process in shared memory, of which docker gives a container only 64 MB. If a batch does
not fit, torch loses it in a background thread, and the run waits forever. A batch is therefore measured beforehand, and
only as many workers are started as fit. The main process reads batches that still do not fit.
"""

from __future__ import annotations

import logging
import multiprocessing.queues
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import Dataset

from util.nested import tensors_in
from util.processors import use_one_thread

logger = logging.getLogger("mdarts")

SHARED_FOLDER = "/dev/shm"
# Number of batches that each worker prefetches, and that the main process holds at the same time.
PREFETCH, IN_USE = 2, 2
# Shared memory that is left to others (NCCL, another run): this many bytes, but at most an eighth of the total.
MARGIN, MARGIN_SHARE = 64 << 20, 8
MAX_OPEN_FILES = 65536
_MORE = "`docker run --shm-size 8g` (or --ipc host) gives more"
_logged: set[str] = set()


def for_workers(
    datasets: Mapping[str, Any], num_workers: int, batch_size: int
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Prepare data sets for workers, and choose the options of their `DataLoader`.

    Args:
        datasets: Name -> data set. Splits have samples of one kind, so that the first tells how many workers have room.
        num_workers, batch_size: See `affordable`.

    Returns:
        (the data sets that workers read, whose batches may be `NoRoom`; arguments of `DataLoader`). Without workers:
        (``datasets``, {}).
    """
    if not num_workers or not datasets:
        return datasets, {}
    _allow_more_files()
    workers, prefetch = affordable(next(iter(datasets.values())), num_workers, batch_size)
    if not workers:
        return datasets, {}
    keep = {"prefetch_factor": prefetch, "persistent_workers": True, "worker_init_fn": _start_worker}
    return {name: _Shared(dataset) for name, dataset in datasets.items()}, {"num_workers": workers, **keep}


def affordable(dataset: Any, num_workers: int, batch_size: int) -> tuple[int, int | None]:
    """Number of data workers whose batches fit into shared memory. Logs a warning if it is smaller than requested.

    Args:
        dataset: A data set with ``__getitems__(indices) -> batch dict``; its first and last sample are read.
        num_workers: Requested number of workers.
        batch_size: Number of samples in a batch.

    Returns:
        Number of workers, and the number of batches that each may prefetch (None without workers).
    """
    if not num_workers:
        return 0, None
    if not _can_share():
        warn_once("this system has no shared memory or semaphores: reading data in the main process, which is slower")
        return 0, None
    room, samples = _room(), len(dataset)
    if not samples:
        return 0, None
    if room is None:
        return num_workers, PREFETCH
    room //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    ends = sorted({0, samples - 1})
    # A plain list, without an epoch, since an augmented input has the same size in every epoch.
    measured = sum(tensor.nbytes for tensor in tensors_in(dataset.__getitems__(ends)))
    size = max(1, measured * batch_size // len(ends))
    waiting = room // size - IN_USE
    prefetch = PREFETCH if waiting >= PREFETCH * num_workers else 1
    workers = max(0, min(num_workers, waiting // prefetch))
    if workers < num_workers:
        needed = size * (PREFETCH * num_workers + IN_USE)
        warn_once(
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
    """A data set as workers read it: each batch is in shared memory, or is a `NoRoom`."""

    def __init__(self, dataset):
        self.dataset, self._bytes = dataset, 0

    def __len__(self):
        return len(self.dataset)

    def __getitems__(self, indices):
        room = _room()
        if room is not None and self._bytes > room:  # the previous batch would not fit now
            return NoRoom(indices)
        batch = self.dataset.__getitems__(indices)
        self._bytes = sum(tensor.nbytes for tensor in tensors_in(batch))
        # torch would move tensors later, in a thread whose errors are lost.
        return batch if all(map(_share, tensors_in(batch))) else NoRoom(indices)


class NoRoom:
    """Placeholder for a batch that did not fit into shared memory.

    Attributes:
        indices: Indices of the samples in the batch.
    """

    def __init__(self, indices: Any) -> None:
        self.indices = indices

    def describe(self) -> str:
        """Message for the log."""
        return f"{SHARED_FOLDER} is full: the main process reads the batches that do not fit; {_MORE}"


def _share(tensor):
    """Move a tensor to shared memory; return False if it does not fit or too many files are open."""
    room = _room()
    if room is not None and tensor.nbytes > room:
        return False
    try:
        tensor.share_memory_()
    except (RuntimeError, OSError):
        return False
    return True


def _room():
    """Number of bytes of shared memory that are available; None if the system does not report it."""
    try:
        status = os.statvfs(SHARED_FOLDER)
    except (OSError, AttributeError):
        return None
    margin = min(MARGIN, status.f_blocks * status.f_frsize // MARGIN_SHARE)
    return max(0, status.f_bavail * status.f_frsize - margin)


def _can_share():
    """Whether processes on this system can share memory and locks."""
    try:
        multiprocessing.get_context().Lock()
        torch.zeros(1).share_memory_()
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def _allow_more_files():
    """Raise the limit of open files as far as allowed, since every tensor of a waiting batch is an open file."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ImportError, OSError, ValueError):
        return  # not supported or not allowed: keep the limit


def warn_once(line: str) -> None:
    """Log a warning, unless the same one was logged before."""
    if line not in _logged:  # not again for every split
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
