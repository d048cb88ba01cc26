"""Work that a draw makes superfluous is left out, and all results stay equal bit for bit."""

from argparse import Namespace

import pytest
import torch
from torch import nn

from engine.updates import OptimizerStep
from models.bmnas import cells, fusion_net
from models.bmnas.cells import FusionCell
from models.bmnas.drawn_edges import sum_of_taken, taken_states, unread_sources
from models.bmnas.fusion_net import FusionNet
from search.choice import Draw
from search.gdas import GDAS
from search.loops import EpochwiseSearch

CHANNELS, STEPS = 4, 14


class Feature(nn.Module):
    """A backbone with two features that returns its input."""

    channels = (3, 5)

    def forward(self, x, count=None):
        return [x[:, :3], x][:count]


def searched(monkeypatch, plain, multiplier, node_steps):
    """State of network and optimisers after some steps of GDAS; ``plain``: every state is multiplied by its weight."""
    if plain:
        monkeypatch.setattr(cells, "taken_states", lambda choice: None)
        monkeypatch.setattr(fusion_net, "unread_sources", lambda choice: frozenset())
    torch.manual_seed(0)
    sizes = {"steps": 2, "multiplier": multiplier, "node_steps": node_steps, "node_multiplier": 1}
    cell = FusionCell.mixed(4, CHANNELS, 4, 0.1, **sizes)
    backbones = {name: Feature() for name in "ab"}
    shared = {"channels": CHANNELS, "pool": (2, 2), "dropout": 0.1, "num_outputs": 2}
    net = FusionNet(backbones, cell, range(4), frozen=True, **shared).train()
    batch = {name: torch.randn(6, 5) for name in "ab"} | {"label": torch.arange(6) % 2}
    strategy = GDAS(torch.Generator().manual_seed(1)).attach(net)

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch["label"])

    weights = OptimizerStep(net, loss, torch.optim.Adam(net.weights(), lr=1e-2, weight_decay=1e-2))
    adam = torch.optim.Adam(net.arch_parameters().values(), lr=0.3)
    alphas = OptimizerStep(net, loss, adam, parameters=strategy.gradient_parameters())
    search = EpochwiseSearch(strategy, weights, alphas, (None, None), torch.device("cpu"), 1, metric=Namespace())
    unread = 0
    for _ in range(STEPS):
        for part, step in ((weights, search.weight_step), (alphas, search.architecture_step)):
            part.activate()
            step(batch)
            unread += bool(unread_sources(net.choices()[0]))
    assert unread  # otherwise this tests nothing
    states = [net.state_dict().values()]
    states += [moments.values() for part in (weights, alphas) for moments in part.optimizer.state.values()]
    return [value.clone() for state in states for value in state]


@pytest.mark.parametrize(("multiplier", "node_steps"), [(2, 1), (1, 2)])
def test_a_search_that_leaves_out_what_is_unread_is_the_same_to_the_bit(monkeypatch, multiplier, node_steps):
    ours = searched(monkeypatch, False, multiplier, node_steps)
    plain = searched(monkeypatch, True, multiplier, node_steps)
    assert len(ours) == len(plain)
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))


def test_what_a_draw_leaves_unread():
    cell = FusionCell.mixed(3, CHANNELS, 4, 0.0, steps=2, multiplier=2, node_steps=1, node_multiplier=1)
    choice = cell.edges.choice
    skip, none = choice.pairs.chosen, 1 - choice.pairs.chosen
    choice.drawn = Draw((skip, none, none, none, none, skip, skip))
    assert taken_states(choice) == [{0}, {2, 3}]
    assert unread_sources(choice) == {1}
    states = [torch.full((2,), float(k), requires_grad=k == 1) for k in range(4)]
    assert sum_of_taken(choice, states, [{0}, {2, 3}], 1).tolist() == [5, 5]
    # An unread state with gradients stays in the graph.
    assert sum_of_taken(choice, states, [{0}, {2, 3}], 0).requires_grad
    assert sum_of_taken(choice, states[:1] * 4, [set(), {1, 2, 3}], 0).tolist() == [0, 0]
    for drawn in (None, choice.drawn._replace(gated=True), choice.drawn._replace(pairs=((0, 1), (0, 2)))):
        choice.drawn = drawn
        assert taken_states(choice) is None and not unread_sources(choice)
