"""The order of samples: a function of seed and epoch alone, so that a resumed epoch repeats it exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from util.cli import UserError


class Indices(list):
    """Sample numbers of one batch, with the epoch that they are drawn for.

    A list, so that a data set without random augmentation takes it as it is; loader processes outlive an epoch
    and have no other way to know it.

    Attributes:
        epoch: Number of the epoch, from 0.
    """

    def __init__(self, indices: Iterable[int], epoch: int) -> None:
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self) -> tuple[Any, ...]:
        return Indices, (list(self), self.epoch)


class EpochBatchSampler:
    """Batches of indices; each rank gets its share of every batch that has one for it.

    A trailing batch too small for batch statistics (fewer than ``min_share`` samples per rank) joins the one
    before it. NOTE: the original ends with an error there. Yields `Indices`, never an empty one.

    Args:
        num_samples: Size of the data set.
        batch_size: Samples of a batch over all ranks together.
        shuffle: Draw a new order every epoch; otherwise 0, 1, 2, ...
        seed: Seed of the order.
        rank, world_size: This process and their number.
        drop_last: Leave out what does not fill a batch, unless there is no other batch.
        min_share: Samples that a rank needs of a batch that is trained on: 2 for batch statistics, else 1.
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
        """As `sizes`, for a pass of updates.

        Raises:
            UserError: some rank's share of a batch would be too small.
        """
        sizes, needed = self.sizes(), self.min_share * self.world_size
        if min(sizes, default=0) < needed:
            each = "batch norm needs two on each" if self.min_share == 2 else "each needs one"
            raise UserError(
                f"{self.num_samples} samples are too few to train on with {self.world_size} processes: {each}; give "
                "more data or start fewer processes"
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
