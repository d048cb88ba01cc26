"""Data loaders whose order of samples depends only on seed and epoch, so that a resumed run repeats it exactly."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from engine.data_workers import NoRoom, for_workers, warn_once
from util.cli import UserError, dead_worker
from util.distributed import rank, world_size
from util.nested import to_device
from util.processors import own_processors


def total_batch(args: Namespace) -> int:
    """Number of samples per batch over all processes, from ``--batchsize`` or ``--batchsize_per_process``."""
    return args.batchsize if args.batchsize is not None else args.batchsize_per_process * world_size()


def build_loader(dataset: Any, batch_size: int, **options: Any) -> BatchLoader:
    """Build the loader of one data set; see `build_loaders`."""
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
    """Build a `BatchLoader` (a `DataLoader` of batch dicts) for every data set.

    Args:
        datasets: Name -> data set with ``__getitems__(indices) -> batch dict``. If its attribute ``in_memory`` is true,
            it is read in this process.
        batch_size: Number of samples per batch over all ranks.
        shuffle: Draw a new order for every value of the sampler's ``epoch``.
        seed: Seed of the order.
        num_workers: Maximum number of loading processes; see also `reading_processes` and `engine.data_workers`.
        device: Device that batches are moved to; for a GPU, they are in pinned memory.
        all_ranks: Every rank reads complete batches instead of its part of each.
        drop_last, min_share: See `EpochBatchSampler`.

    Returns:
        Name -> loader.

    Raises:
        UserError: batches are too small for the number of ranks.
    """
    wanted = reading_processes(num_workers, device)
    own, processes = (0, 1) if all_ranks else (rank(), world_size())
    if not all_ranks and batch_size < min_share * processes:
        least = "two samples" if min_share == 2 else "one sample"
        raise UserError(
            f"--batchsize {batch_size} leaves fewer than {least} for each of {processes} processes; "
            f"use at least {min_share * processes}"
        )
    order: dict[str, Any] = {"shuffle": shuffle, "seed": seed, "drop_last": drop_last, "min_share": min_share}
    order |= {"rank": own, "world_size": processes}
    counts = {name: len(dataset) for name, dataset in datasets.items()}
    slow = {name: dataset for name, dataset in datasets.items() if not getattr(dataset, "in_memory", False)}
    read, workers = for_workers(slow, wanted, math.ceil(batch_size / processes))
    return {
        name: BatchLoader(
            read.get(name, dataset),
            batch_sampler=EpochBatchSampler(counts[name], batch_size, **order),
            collate_fn=_identity,
            pin_memory=device.type == "cuda",
            # A separate generator, so that creating an iterator does not draw from the global one.
            generator=torch.Generator().manual_seed(seed),
            **(workers if name in slow else {}),
        )
        for name, dataset in datasets.items()
    }


def reading_processes(num_workers: int, device: torch.device) -> int:
    """Number of loading processes: ``num_workers``, limited so that processors are left for the network.

    A network on a GPU needs one of the processors that this process may use (`own_processors`). A network on a CPU
    uses all of them, and a quarter as many loading processes are enough to keep it busy.
    """
    cores = own_processors()
    return min(num_workers, max(1, cores - 1 if device.type == "cuda" else cores // 4))


class BatchLoader(DataLoader):
    """A `DataLoader` of batch dicts, made by `build_loaders`. Iterating raises a `UserError` if a worker dies."""

    batch_sampler: EpochBatchSampler
    dataset: Any

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        try:
            for batch in super().__iter__():
                if isinstance(batch, NoRoom):
                    warn_once(batch.describe())
                    batch = self.dataset.dataset.__getitems__(batch.indices)
                yield batch
        except RuntimeError as error:
            message = dead_worker(error)
            if message is None:
                raise
            raise UserError(message) from None

    def training_pass(
        self, epoch: int, device: torch.device, description: str | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Iterate over the batches of an epoch's training steps.

        Args:
            epoch: Number of the epoch, which determines the order.
            device: Device that batches are moved to.
            description: Label of the progress bar; None: no bar.

        Yields:
            (number of samples of the batch over all processes, this process's part of it on ``device``).

        Raises:
            UserError: there are too few samples for the processes.
        """
        self.batch_sampler.epoch = epoch
        sizes = self.batch_sampler.training_sizes()
        hidden = description is None or self.batch_sampler.rank > 0 or None  # None: unless there is a terminal
        batches = tqdm(self, description, unit="batch", leave=False, dynamic_ncols=True, disable=hidden)
        for size, batch in zip(sizes, batches, strict=True):
            yield size, to_device(batch, device)


def _identity(batch):
    return batch


class Indices(list):
    """Indices of the samples in one batch, together with their epoch.

    Data sets without random augmentation use it as a plain list. Loading processes live for many epochs, and this tells
    them the current one.

    Attributes:
        epoch: Number of the epoch, from 0.
    """

    def __init__(self, indices: Iterable[int], epoch: int) -> None:
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self) -> tuple[Any, ...]:
        return Indices, (list(self), self.epoch)


class EpochBatchSampler:
    """Yields this rank's part of every batch of an epoch as `Indices`. Empty parts are left out.

    A last batch with fewer than ``min_share`` samples per rank, too few for batch statistics, is merged with the
    previous one. NOTE: the original fails with an error in this case.

    Args:
        num_samples: Size of the data set.
        batch_size: Number of samples per batch over all ranks.
        shuffle: Draw a new order every epoch; otherwise the order is 0, 1, 2, ...
        seed: Seed of the order.
        rank, world_size: Rank of this process, from 0, and number of processes.
        drop_last: Leave out an incomplete last batch, unless it is the only one.
        min_share: Minimum number of samples per rank in a training batch: 2 for batch statistics, else 1.

    Attributes:
        epoch: The epoch to iterate over; set it before each pass.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        min_share: int = 2,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.drop_last, self.min_share = drop_last, min_share
        self.epoch = 0

    def __len__(self) -> int:
        return sum(size > self.rank for size in self.sizes())

    def sizes(self) -> list[int]:
        """Number of samples of each batch, over all ranks."""
        full, rest = divmod(self.num_samples, self.batch_size)
        if self.drop_last and full:
            return [self.batch_size] * full
        sizes = [self.batch_size] * full + ([rest] if rest else [])
        if len(sizes) > 1 and sizes[-1] < self.min_share * self.world_size:
            sizes[-2:] = [sum(sizes[-2:])]
        return sizes

    def training_sizes(self) -> list[int]:
        """As `sizes`, for a training pass.

        Raises:
            UserError: a rank's part of some batch would be too small.
        """
        sizes, needed = self.sizes(), self.min_share * self.world_size
        if min(sizes, default=0) < needed:
            each = "batch norm needs two per process" if self.min_share == 2 else "each needs one"
            raise UserError(
                f"{self.num_samples} samples are too few to train on with {self.world_size} processes: {each}; use "
                "more data or fewer processes"
            )
        return sizes

    def __iter__(self) -> Iterator[Indices]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = (
            torch.randperm(self.num_samples, generator=generator) if self.shuffle else torch.arange(self.num_samples)
        )
        sizes = self.sizes()
        for batch in order[: sum(sizes)].split(sizes):
            if len(batch) > self.rank:
                yield Indices(batch[self.rank :: self.world_size].tolist(), self.epoch)
