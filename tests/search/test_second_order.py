"""Second-order DARTS: its gradient against finite differences of the unrolled loss, and what must not change."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine import updates
from engine.loading import EpochBatchSampler
from engine.updates import OptimizerStep, Precision, data_parallel
from search import second_order
from search.loops import EpochwiseSearch
from search.relaxation import SoftmaxMixture
from search.second_order import SecondOrder
from tests.processes import run_ranks
from tests.search.small_spaces import cell, encoder_decoder, features, generator
from util.cli import UserError
from util.distributed import init_distributed, leave, rank, world_size


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.space = cell()

    def forward(self, batch):
        return self.space(batch["features"]).mean(1)


def batch(seed, count=6):
    labels = torch.randn(count, generator=generator(seed)).double()
    return {"features": features(seed, count, torch.float64), "label": labels}


def loss(outputs, given):
    return (outputs - given["label"]).pow(2).mean()


@pytest.fixture(autouse=True)
def double(monkeypatch):
    """Computes losses in float64 too."""
    for module in (updates, second_order):
        monkeypatch.setattr(module, "in_float32", lambda outputs: outputs)


def search_of(rate, kind=SecondOrder, mode="eval", parallel=None):
    net = Net().double().train(mode == "train")
    strategy = kind().attach(net.space)
    logits = [choice.logits for choice in strategy.choices]
    with torch.no_grad():
        for values in logits:
            values.copy_(torch.randn(values.shape, generator=generator(4)))
    own = {id(values) for values in logits}
    sgd = torch.optim.SGD([p for p in net.parameters() if id(p) not in own], lr=rate)
    alphas = OptimizerStep(net, loss, torch.optim.SGD(logits, lr=1.0), parallel=parallel)
    steps = [OptimizerStep(net, loss, sgd), alphas]
    search = EpochwiseSearch(strategy, *steps, (None, None), torch.device("cpu"), 1, metric=None)
    search._training_batches = iter([(6, batch(1))])
    return net, search, logits


def unrolled(net, search, rate):
    """L_dev at the weights after a step on the training batch; the network itself is not changed."""
    weights = search.weights.parameters
    for p in weights:
        p.requires_grad_(True)
    slopes = torch.autograd.grad(loss(net(batch(1)), batch(1)), weights, materialize_grads=True)
    with torch.no_grad():
        before = [p.clone() for p in weights]
        for p, slope in zip(weights, slopes, strict=True):
            p -= rate * slope
        value = loss(net(batch(2)), batch(2)).item()
        for p, old in zip(weights, before, strict=True):
            p.copy_(old)
    return value


@pytest.mark.parametrize("rate", [0.5, 0.05])
def test_the_gradient_is_that_of_the_unrolled_loss(rate):
    net, search, logits = search_of(rate)
    search.alphas.activate()
    search.alphas.begin()
    search.relaxation.architecture_gradient(search, batch(2))
    first = search_of(rate, SoftmaxMixture)
    first[1].alphas.activate()
    first[1].relaxation.architecture_gradient(first[1], batch(2))
    assert any((a.grad - b.grad).abs().max() > 1e-5 for a, b in zip(logits, first[2], strict=True))
    step = 1e-5
    for values in logits:
        found = values.grad.clone()
        for index in range(values.numel()):
            results = []
            for sign in (1, -1):
                with torch.no_grad():
                    values.view(-1)[index] += sign * step
                results.append(unrolled(net, search, rate))
                with torch.no_grad():
                    values.view(-1)[index] -= sign * step
            expected = (results[0] - results[1]) / (2 * step)
            assert found.view(-1)[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_a_rate_of_zero_is_the_published_step():
    found = []
    for kind in (SecondOrder, SoftmaxMixture):
        _, search, logits = search_of(0.0, kind)
        search.alphas.activate()
        search.architecture_step(batch(2))
        found.append(logits)
    for ours, published in zip(*found, strict=True):
        torch.testing.assert_close(ours, published, rtol=0, atol=1e-12)


def test_weights_and_their_gradients_stay():
    net, search, logits = search_of(0.5, mode="train")
    before = {name: value.clone() for name, value in net.named_parameters()}
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    search.alphas.activate()
    search.architecture_step(batch(2))
    own = {id(values) for values in logits}
    for name, value in net.named_parameters():
        assert torch.equal(value, before[name]) == (id(value) not in own)
        assert (value.grad is None and not value.requires_grad) == (id(value) not in own)
    counts = [value for name, value in net.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts and all(int(count) == 1 for count in counts), "dev batches count, as in the published search"
    assert any(not torch.equal(value, buffers[name]) for name, value in net.named_buffers())


def worker(path):
    """Architecture steps on uneven shares of 7 training and 5 dev samples; rank 0 saves the logits."""
    device = init_distributed("cpu")
    run = SimpleNamespace(args=Namespace(parallel=False), device=device, processes=world_size())
    _, search, logits = search_of(0.5, parallel=data_parallel(run, Precision()))
    samplers = [EpochBatchSampler(n, n, shuffle=False, rank=rank(), world_size=world_size()) for n in (7, 5)]
    parts = []
    for sampler, seed in zip(samplers, (1, 2), strict=True):
        own = torch.tensor(next(iter(sampler)))
        given = batch(seed, 7)
        parts.append({"features": [x[own] for x in given["features"]], "label": given["label"][own]})
    for _ in range(2):
        search._training_batches = iter([(7, parts[0])])
        search.alphas.activate()
        search.architecture_step(parts[1], 5)
    if rank() == 0:
        torch.save([values.detach() for values in logits], path)
    del search
    leave()


@pytest.mark.long
def test_two_processes_equal_one(tmp_path):
    worker(tmp_path / "1.pth")
    run_ranks(worker, tmp_path / "2.pth")
    one, two = (torch.load(tmp_path / f"{n}.pth", weights_only=True) for n in (1, 2))
    for ours, theirs in zip(one, two, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_network_of_single_paths_is_refused():
    with pytest.raises(UserError, match="runs every candidate in every step"):
        SecondOrder().attach(encoder_decoder())
