"""Updates in micro-batches, and the selection of the best epoch."""

import math
from argparse import Namespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine import loading
from engine.training import BestEpoch
from engine.updates import OptimizerStep
from util.cli import UserError
from util.nested import split_batch


class Net(nn.Module):
    """Reads a tensor and a list of features, as in a batch with cached features."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.sizes = []

    def forward(self, batch):
        self.sizes.append(len(batch["x"]))
        return self.norm(self.first(batch["x"]) + self.second(batch["y_features"][1]))


def criterion(outputs, batch):
    return F.cross_entropy(outputs, batch["label"])


def make_batch(size):
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(size, 3, generator=generator),
        "y_features": [None, torch.randn(size, 2, generator=generator)],
        "label": torch.randint(0, 4, (size,), generator=generator),
    }


def step(micro_batch, size, norm=False, **options):
    torch.manual_seed(0)
    net = Net(norm)
    parameters = list(net.parameters())
    optimizer = torch.optim.SGD(parameters, 0.5)
    updater = OptimizerStep(net, criterion, optimizer, micro_batch=micro_batch, **options)
    loss, outputs = updater.step(make_batch(size))
    return net, loss, outputs


@pytest.mark.parametrize(("micro_batch", "sizes"), [(4, [3, 3, 3]), (2, [2, 2, 2, 3]), (9, [9]), (5, [4, 5]), (0, [9])])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(micro_batch, sizes, reduction):
    whole, loss, outputs = step(0, 9, reduction=reduction)
    net, micro_loss, micro_outputs = step(micro_batch, 9, reduction=reduction)
    assert net.sizes == sizes
    torch.testing.assert_close(micro_loss, loss)
    torch.testing.assert_close(micro_outputs, outputs)
    for a, b in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_sum_has_as_many_times_the_gradient_as_there_are_samples():
    mean, summed = (step(0, 8, reduction=name)[0] for name in ("mean", "sum"))
    torch.manual_seed(0)
    start = Net(norm=False)
    for a, b, c in zip(start.parameters(), mean.parameters(), summed.parameters(), strict=True):
        torch.testing.assert_close(c - a, 8 * (b - a), rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_together():
    net, _, _ = step(0, 8, reduction="sum", clip=0.01)
    torch.manual_seed(0)
    moved = [(a - b).flatten() for a, b in zip(net.parameters(), Net(norm=False).parameters(), strict=True)]
    torch.testing.assert_close(torch.cat(moved).norm(), torch.tensor(0.5 * 0.01), rtol=1e-4, atol=0)


@pytest.mark.parametrize("step_unused", [False, True])
def test_what_a_step_does_not_reach_moves_on_only_if_asked(step_unused):
    """Adam's momentum moves an unused parameter with a gradient of zero, but not one without a gradient."""

    class Paths(nn.Module):
        def __init__(self):
            super().__init__()
            self.paths, self.active = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)]), 0

        def forward(self, batch):
            return self.paths[self.active](batch["x"])

    net, batch = Paths(), make_batch(6)
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    updater = OptimizerStep(net, criterion, optimizer, step_unused=step_unused)
    updater.step(batch)
    net.active = 1
    before = [parameter.clone() for parameter in net.paths[0].parameters()]
    updater.step(batch)
    moved = [not torch.equal(a, b) for a, b in zip(before, net.paths[0].parameters(), strict=True)]
    assert moved == [step_unused] * 2


def test_steps_that_take_turns_give_gradients_to_their_own_parameters():
    net, batch = Net(norm=False), make_batch(6)
    layers = (net.first, net.second)
    first, second = (OptimizerStep(net, criterion, torch.optim.SGD(part.parameters(), 0.5)) for part in layers)
    for updater, own in ((first, 0), (second, 1), (first, 0)):
        before = [layer.weight.detach().clone() for layer in layers]
        updater.step(batch)
        moved = [not torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True)]
        assert moved == [layer.weight.requires_grad for layer in layers] == [own == 0, own == 1]


def test_batch_norm_sees_one_micro_batch_at_a_time():
    net, _, _ = step(3, 6, norm=True)
    batch = make_batch(6)
    torch.manual_seed(0)
    fresh = Net(norm=True)
    for part in (slice(0, 3), slice(3, 6)):
        fresh({"x": batch["x"][part], "y_features": [None, batch["y_features"][1][part]]})
    torch.testing.assert_close(net.norm.running_mean, fresh.norm.running_mean)
    assert int(net.norm.num_batches_tracked) == 2


@pytest.mark.parametrize("count", range(1, 14))
@pytest.mark.parametrize("size", range(5))
def test_parts_cover_a_batch_and_none_has_a_single_sample(count, size):
    batch = make_batch(count)
    parts = split_batch(batch, size)
    assert [n for n, _ in parts] == [len(part["label"]) for _, part in parts]
    torch.testing.assert_close(torch.cat([part["x"] for _, part in parts]), batch["x"])
    assert count == 1 or min(n for n, _ in parts) >= 2
    assert size == 0 or max(n for n, _ in parts) <= size + 1 or len(parts) == 1 or size == 1
    assert (len(parts) == 1) or size


@pytest.mark.parametrize("size", [1, 2, 5])
def test_without_batch_norm_a_part_can_be_a_single_sample(size):
    sizes = {1: [1, 1, 1, 1, 1], 2: [1, 2, 2], 5: [5]}
    assert [n for n, _ in split_batch(make_batch(5), size, min_part=1)] == sizes[size]
    whole, loss, _ = step(0, 5)
    net, micro_loss, _ = step(size, 5, min_part=1)
    assert net.sizes == sizes[size]
    torch.testing.assert_close(micro_loss, loss)
    for a, b in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("min_share", [1, 2])
def test_a_batch_too_small_for_the_processes_is_one_line(monkeypatch, processes, min_share):
    monkeypatch.setattr(loading, "world_size", lambda: processes)
    options = {"shuffle": True, "seed": 0, "num_workers": 0, "device": torch.device("cpu"), "min_share": min_share}
    least = min_share * processes
    loading.build_loader([0] * 20, least, **options)
    with pytest.raises(UserError, match=f"^--batchsize {least - 1} leaves .* of {processes} .*; use at least {least}$"):
        loading.build_loader([0] * 20, least - 1, **options)


def test_the_size_of_a_batch_in_either_unit(monkeypatch):
    monkeypatch.setattr(loading, "world_size", lambda: 4)
    assert loading.total_batch(Namespace(batchsize=64, batchsize_per_process=None)) == 64
    assert loading.total_batch(Namespace(batchsize=None, batchsize_per_process=64)) == 256


@pytest.mark.parametrize(
    ("later", "scores", "epoch"),
    [
        (False, [0.1, 0.5, 0.5, 0.2], 1),
        (True, [0.1, 0.5, 0.5, 0.2], 2),
        (False, [0.0, 0.0], 0),
        (True, [0.0, 0.0], 1),
        (False, [math.nan, 0.1, math.nan], 1),
        (True, [math.nan, math.nan, 0.1, 0.0], 2),
    ],
)
def test_the_best_epoch(later, scores, epoch):
    selection = BestEpoch("dev", "accuracy", "", later_wins_ties=later)
    for number, score in enumerate(scores):
        selection.update(number, {"dev": {"accuracy": score}})
    assert selection.epoch == epoch and selection.score == scores[epoch]
