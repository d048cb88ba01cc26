"""The order of samples: a function of seed and epoch alone, so that a resumed epoch repeats it exactly."""

import torch


class Indices(list):
    """Sample numbers of one batch, with the epoch that they are drawn for.

    A list, so that a data set without random augmentation takes it as it is; loader processes outlive an epoch
    and have no other way to know it.

    Attributes:
        epoch: Number of the epoch, from 0.
    """

    def __init__(self, indices, epoch):
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self):
        return Indices, (list(self), self.epoch)


class EpochBatchSampler:
    """Batches of indices; each rank gets its share of every batch.

    A trailing batch too small for batch statistics (fewer than two samples per rank) joins the one
    before it. NOTE: the original ends with an error there. Yields `Indices`.

    Args:
        num_samples: Size of the data set.
        batch_size: Samples of a batch over all ranks together.
        shuffle: Draw a new order every epoch; otherwise 0, 1, 2, ...
        seed: Seed of the order.
        rank, world_size: This process and their number.
    """

    def __init__(self, num_samples, batch_size, *, shuffle, seed=0, rank=0, world_size=1):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def _starts(self):
        starts = list(range(0, self.num_samples, self.batch_size))
        if len(starts) > 1 and self.num_samples - starts[-1] < 2 * self.world_size:
            starts.pop()
        return starts

    def __len__(self):
        return len(self._starts())

    def sizes(self):
        """Number of samples of each batch, over all ranks."""
        starts = self._starts()
        return [stop - start for start, stop in zip(starts, [*starts[1:], self.num_samples], strict=True)]

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = (
            torch.randperm(self.num_samples, generator=generator) if self.shuffle else torch.arange(self.num_samples)
        )
        for batch in order.split(self.sizes()):
            yield Indices(batch[self.rank :: self.world_size].tolist(), self.epoch)
