"""The order of samples, which depends only on seed and epoch, so that a resumed epoch repeats it exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from util.cli import UserError


class Indices(list):
    """Sample numbers of one batch, with the epoch that they belong to.

    It is a list, which data sets without random augmentation use directly. Loading processes live for many epochs and
    learn the current one from here.

    Attributes:
        epoch: Number of the epoch, from 0.
    """

    def __init__(self, indices: Iterable[int], epoch: int) -> None:
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self) -> tuple[Any, ...]:
        return Indices, (list(self), self.epoch)


class EpochBatchSampler:
    """Yields the batches of an epoch as `Indices`; each rank gets its share of every batch, unless that is empty.

    A last batch with fewer than ``min_share`` samples per rank, too few for batch statistics, is merged with the one
    before it. NOTE: the original fails with an error there.

    Args:
        num_samples: Size of the data set.
        batch_size: Samples of a batch over all ranks together.
        shuffle: Draw a new order every epoch; otherwise the order is 0, 1, 2, ...
        seed: Seed of the order.
        rank, world_size: Number of this process, from 0, and number of processes.
        drop_last: Leave out an incomplete last batch, unless it is the only one.
        min_share: Minimum samples per rank of a training batch: 2 for batch statistics, else 1.
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
            UserError: the share of a rank in a batch would be too small.
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
