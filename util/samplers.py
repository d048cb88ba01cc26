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
        drop_last: Leave out what does not fill a batch, unless there is no other batch.
    """

    def __init__(self, num_samples, batch_size, *, shuffle, seed=0, rank=0, world_size=1, drop_last=False):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.drop_last = drop_last
        self.epoch = 0

    def __len__(self):
        return len(self.sizes())

    def sizes(self):
        """Number of samples of each batch, over all ranks."""
        full, rest = divmod(self.num_samples, self.batch_size)
        if self.drop_last and full:
            return [self.batch_size] * full
        sizes = [self.batch_size] * full + ([rest] if rest else [])
        if len(sizes) > 1 and sizes[-1] < 2 * self.world_size:
            sizes[-2:] = [sum(sizes[-2:])]
        return sizes

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = (
            torch.randperm(self.num_samples, generator=generator) if self.shuffle else torch.arange(self.num_samples)
        )
        sizes = self.sizes()
        for batch in order[: sum(sizes)].split(sizes):
            yield Indices(batch[self.rank :: self.world_size].tolist(), self.epoch)
