"""Regularisers of the logits: closed-form gradients, their schedule, and their place in an architecture step."""

import pytest
import torch
from torch import nn

from engine.updates import OptimizerStep
from search.gates import SampledGates
from search.loops import InterleavedSearch
from search.regularizers import BetaDecay
from search.relaxation import SoftmaxMixture
from search.strategies import build_strategy
from tests.search.small_spaces import cell, encoder_decoder, features, generator


@pytest.mark.parametrize("make", [cell, encoder_decoder])
def test_the_gradient_is_the_softmax_over_the_number_of_rows(make):
    choices = make().choices()
    decay = BetaDecay(50.0)
    decay.begin_epoch(3, 10)
    assert decay.now == 15.0
    choices[0].logits.grad = torch.ones_like(choices[0].logits)
    decay.add_gradients(choices, scale=4.0)
    rows = sum(choice.logits.numel() // choice.logits.shape[-1] for choice in choices)
    for i, choice in enumerate(choices):
        expected = 4.0 * 15.0 * choice.logits.detach().softmax(-1) / rows
        torch.testing.assert_close(choice.logits.grad, expected + (i == 0))


def test_a_weight_of_zero_and_the_first_epoch_add_nothing():
    choices = cell().choices()
    for decay, epoch in ((BetaDecay(0.0), 5), (BetaDecay(50.0), 0)):
        decay.begin_epoch(epoch, 10)
        decay.add_gradients(choices)
        assert all(choice.logits.grad is None for choice in choices)


class Net(nn.Module):
    """A cell on random features, or an encoder-decoder: batch -> one output per sample."""

    def __init__(self, space):
        super().__init__()
        self.space = space

    def forward(self, batch):
        if hasattr(self.space, "nodes"):
            return self.space(batch["features"]).mean(1)
        x, y = batch["x"], batch["y"]
        return self.space(x, y)[1].mean((1, 2))


def batch():
    x, y = (torch.randn(4, n, 32, generator=generator(n)) for n in (5, 3))
    return {"features": features(batch=4), "x": x, "y": y, "label": torch.ones(4)}


@pytest.mark.parametrize("name", ["published", "gdas"])
@pytest.mark.parametrize("make", [cell, encoder_decoder])
def test_an_architecture_step_adds_it_to_the_losses_gradient(make, name):
    """With SGD, a step moves the logits by the learning rate times the sum of both gradients."""
    moves = []
    for decay in ([], [BetaDecay(2.0)]):
        net = Net(make())
        published = SoftmaxMixture if make is cell else SampledGates
        strategy = build_strategy(name, published, 3).attach(net.space)
        strategy.regularizers += decay
        before = [choice.logits.detach().clone() for choice in strategy.choices]
        sgd = torch.optim.SGD([choice.logits for choice in strategy.choices], lr=0.5)
        alphas = OptimizerStep(net, lambda out, b: (out - b["label"]).pow(2).mean(), sgd)
        alphas.parameters = strategy.gradient_parameters()
        alphas.activate()
        search = InterleavedSearch(strategy, None, alphas, (None, None), torch.device("cpu"), 2)
        for regularizer in strategy.regularizers:
            regularizer.begin_epoch(1, 2)
        search.architecture_step(batch())
        moves.append([c.logits.detach() - b for c, b in zip(strategy.choices, before, strict=True)])
    rows = sum(b.numel() // b.shape[-1] for b in before)
    for plain, decayed, start in zip(*moves, before, strict=True):
        torch.testing.assert_close(decayed - plain, -0.5 * 1.0 * start.softmax(-1) / rows, rtol=1e-4, atol=1e-6)
