"""Data workers that cannot hang a run: batches go through shared memory only if they fit.

A worker passes its batches on in shared memory, of which docker gives a container 64 MB. When a batch does not fit,
torch loses it in a background thread, and the run waits forever. So we measure a batch beforehand and start only as
many workers as fit; the main process reads the batches that still do not fit.
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
# Batches that each worker keeps ready, and batches that the main process holds at once.
PREFETCH, IN_USE = 2, 2
# Shared memory left to others (NCCL, another run): this many bytes, but at most an eighth of the total.
MARGIN, MARGIN_SHARE = 64 << 20, 8
MAX_OPEN_FILES = 65536
_MORE = "`docker run --shm-size 8g` (or --ipc host) gives more"
_logged: set[str] = set()


def for_workers(
    datasets: Mapping[str, Any], num_workers: int, batch_size: int
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Data sets as workers read them, and the options of a `DataLoader` for them; fewer workers if memory is short.

    Args:
        datasets: Name -> data set. Splits have samples of one kind, so that the first tells how many workers have room.
        num_workers, batch_size: See `affordable`.

    Returns:
        (data sets whose batches may be a `NoRoom`, options); without workers (``datasets``, {}).
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
    """How many data workers fit into shared memory; logs one line if that is fewer than wanted.

    Args:
        dataset: Has ``__getitems__(indices) -> batch dict``; its first and last sample are read.
        num_workers: Workers wanted.
        batch_size: Samples in a batch.

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
    # Lists of numbers without an epoch: an augmented input has the same size in every epoch.
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
    """A data set as a worker reads it: each batch is in shared memory, or is a `NoRoom`."""

    def __init__(self, dataset):
        self.dataset, self._bytes = dataset, 0

    def __len__(self):
        return len(self.dataset)

    def __getitems__(self, indices):
        room = _room()
        if room is not None and self._bytes > room:  # the last batch would not fit now
            return NoRoom(indices)
        batch = self.dataset.__getitems__(indices)
        self._bytes = sum(tensor.nbytes for tensor in tensors_in(batch))
        # torch would do this later, in a thread whose errors are lost.
        return batch if all(map(_share, tensors_in(batch))) else NoRoom(indices)


class NoRoom:
    """Takes the place of a batch that did not fit into shared memory.

    Attributes:
        indices: Those of the batch.
    """

    def __init__(self, indices: Any) -> None:
        self.indices = indices

    def describe(self) -> str:
        """What the log says of it."""
        return f"{SHARED_FOLDER} is full: the main process reads the batches that do not fit; {_MORE}"


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


def warn_once(line: str) -> None:
    """Log a warning the first time."""
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
