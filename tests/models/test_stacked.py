"""Stacked networks learn exactly what each of them learns alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.bmnas.cells import FusionCell
from models.bmnas.fusion_net import FusionNet
from models.bmnas.stacked import StackedAccuracy, StackedNets, summed_cross_entropy
from models.encoders.vectors import VectorNet
from models.genotypes import FusionGenotype, StepGenotype

SIZES = {"first": 5, "second": 7}
SKIP = (("skip", 0), ("skip", 1))


def genotype(pairs, operations):
    edges = tuple(("skip", state) for pair in pairs for state in pair)
    return FusionGenotype(edges, tuple(StepGenotype(SKIP, (name,), (2,)) for name in operations), (4, 5))


def build(backbones, pairs, operations, seed):
    torch.manual_seed(seed)
    found = genotype(pairs, operations)
    fusion = FusionCell.fixed(found, 4, 6, 1, 0.0)
    options = {"channels": 6, "pool": (1, 1), "dropout": 0.0, "num_outputs": 3}
    net = FusionNet(backbones, fusion, found.used_inputs(), **options)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # attention has its own rate
    return net.double()


@pytest.fixture(scope="module")
def backbones():
    torch.manual_seed(0)
    return {name: VectorNet(size, [6, 4], (0, 2), 3, 0.0) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    vectors = {name: torch.randn(9, size, generator=generator).double() for name, size in SIZES.items()}
    return {**vectors, "label": torch.arange(9) % 3}


@pytest.mark.parametrize(
    "operations", [("ScaleDotAttn", "LinearGLU"), ("ConcatFC", "Sum"), ("GatedMultimodalUnit", "LowRankBilinear")]
)
def test_training_a_stack_is_training_each_network(backbones, batch, operations):
    # Different features, including a network that does not read one of them, and different weights.
    nets = [build(backbones, [(0, 2), (1, 3)], operations, 3), build(backbones, [(2, 3), (0, 2)], operations, 4)]
    stacked = StackedNets(nets)
    alone = [copy.deepcopy(net) for net in nets]
    optimizers = [torch.optim.Adam(net.weights(), lr=0.01, weight_decay=0.1) for net in alone]
    together = torch.optim.Adam(stacked.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(4):
        for net, optimizer in zip(alone, optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(net(batch), batch["label"]).backward()
            optimizer.step()
        together.zero_grad()
        summed_cross_entropy(stacked(batch), batch).backward()
        together.step()
    start = torch.stack([net.eval()(batch) for net in nets])
    for net in alone:
        net.eval()
    expected = torch.stack([net(batch) for net in alone])
    assert (expected - start).abs().max() > 0.01  # they have learned something
    torch.testing.assert_close(stacked.eval()(batch), expected, rtol=1e-6, atol=1e-8)


def test_only_networks_with_the_same_operations_stack(backbones):
    pairs = [(0, 2), (1, 3)]
    nets = [build(backbones, pairs, names, 0) for names in (("Sum", "Sum"), ("Sum", "ConcatFC"))]
    with pytest.raises(ValueError, match="different operations"):
        StackedNets(nets)


def test_dropout_masks_differ_between_networks(backbones, batch):
    net = build(backbones, [(0, 2), (1, 3)], ("Sum", "Sum"), 0)
    for module in net.reshape.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    first, second = StackedNets([net, net])(batch)
    assert not torch.equal(first, second)


def test_accuracy_counts_each_network():
    metric, labels = StackedAccuracy(), torch.tensor([0, 1, 1])
    right = F.one_hot(labels, 2).float()
    for _ in range(2):
        metric.update(torch.stack([right, 1 - right, torch.tensor([1.0, 0.0]).expand(3, 2)]), {"label": labels})
    assert metric.compute()["correct"].tolist() == [6, 0, 2]
