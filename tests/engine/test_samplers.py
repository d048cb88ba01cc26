"""Batches cover every sample once, are determined by seed and epoch, and are never too small for batch norm."""

import pickle
from itertools import zip_longest

import pytest

from engine.loading import EpochBatchSampler
from util.cli import UserError


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 16, 17, 64])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_sample_once(size, world):
    ranks = [EpochBatchSampler(size, 8, shuffle=True, seed=5, rank=r, world_size=world) for r in range(world)]
    batches = [list(rank) for rank in ranks]
    assert [len(b) for b in batches] == [len(rank) for rank in ranks] and all(b for rank in batches for b in rank)
    assert sorted(i for rank in batches for batch in rank for i in batch) == list(range(size))
    assert [sum(map(len, parts)) for parts in zip_longest(*batches, fillvalue=())] == ranks[0].sizes()


@pytest.mark.parametrize("min_share", [1, 2])
@pytest.mark.parametrize("world", [1, 3])
def test_training_needs_a_share_for_every_process(min_share, world):
    enough = min_share * world
    options = {"shuffle": True, "world_size": world, "min_share": min_share}
    assert EpochBatchSampler(enough, 8, **options).training_sizes() == [enough]
    few = EpochBatchSampler(enough - 1, 8, **options)
    with pytest.raises(
        UserError, match=f"^{enough - 1} samples are too few to train on with {world} processes"
    ) as error:
        few.training_sizes()
    assert "\n" not in str(error.value) and few.sizes() == ([enough - 1] if enough > 1 else [])


def test_without_batch_norm_a_single_trailing_sample_stays():
    assert EpochBatchSampler(17, 8, shuffle=False, min_share=1).sizes() == [8, 8, 1]
    assert EpochBatchSampler(18, 8, shuffle=False, min_share=1, world_size=2).sizes() == [8, 8, 2]
    assert EpochBatchSampler(17, 8, shuffle=False, min_share=1, world_size=2).sizes() == [8, 9]


def test_trailing_single_sample_joins_the_batch_before():
    assert EpochBatchSampler(17, 8, shuffle=False).sizes() == [8, 9]
    assert EpochBatchSampler(18, 8, shuffle=False).sizes() == [8, 8, 2]
    assert EpochBatchSampler(19, 8, shuffle=False, world_size=2).sizes() == [8, 11]


def test_what_does_not_fill_a_batch_can_be_left_out():
    assert EpochBatchSampler(23, 8, shuffle=False, drop_last=True).sizes() == [8, 8]
    assert EpochBatchSampler(24, 8, shuffle=False, drop_last=True).sizes() == [8, 8, 8]
    assert EpochBatchSampler(5, 8, shuffle=False, drop_last=True).sizes() == [5], "the only batch there is"
    sampler = EpochBatchSampler(23, 8, shuffle=True, drop_last=True)
    assert len(sampler) == 2 and len({i for batch in sampler for i in batch}) == 16


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = EpochBatchSampler(50, 8, shuffle=True, seed=seed)
        sampler.epoch = epoch
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)
    assert [i for b in EpochBatchSampler(50, 8, shuffle=False) for i in b] == list(range(50))


def test_batches_carry_their_epoch_into_loader_processes():
    sampler = EpochBatchSampler(10, 4, shuffle=True)
    sampler.epoch = 7
    for batch in sampler:
        copy = pickle.loads(pickle.dumps(batch))
        assert (list(copy), copy.epoch) == (list(batch), 7)
