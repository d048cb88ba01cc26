"""Zero-cost proxies, against their formulas on networks small enough to compute by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from search.zero_cost import gradient_norm, naswot, synflow


class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, batch):
        return self.layers(batch["x"])


def test_the_gradient_norm_is_the_sum_over_tensors():
    torch.manual_seed(0)
    net, x = Net(nn.Linear(3, 2)), torch.randn(4, 3)
    batch = {"x": x, "label": torch.zeros(4, 2)}
    # The gradient of half the mean squared output is known.
    score = gradient_norm(net, lambda outputs, batch: outputs.square().sum() / 8, batch)
    outputs = net(batch).detach()
    expected = (outputs.T @ x / 4).norm() + outputs.mean(0).norm()
    assert math.isclose(score, expected.item(), rel_tol=1e-5)
    assert all(weight.grad is None for weight in net.parameters())


def test_synflow_is_that_of_absolute_weights_on_ones():
    torch.manual_seed(0)
    net = Net(nn.Linear(3, 4, bias=False), nn.Dropout(0.5), nn.Linear(4, 2, bias=False))
    before = copy.deepcopy(net.state_dict())
    score = synflow(net, {"x": torch.randn(6, 3), "label": torch.zeros(6)}, ("x",))
    first, second = net.layers[0].weight.abs(), net.layers[2].weight.abs()
    # Each of the two layers contributes the whole output.
    assert math.isclose(score, math.log(2 * (second @ first).sum().item()), rel_tol=1e-5)
    assert net.training and all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("inplace", [False, True])
def test_naswot_measures_how_far_the_codes_of_samples_differ(inplace):
    net = Net(nn.Linear(2, 2, bias=False), nn.ReLU(inplace))
    net.layers[0].weight.data = torch.eye(2)
    apart = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    # The codes are 11 and 01: each agrees with itself in two units, and with the other in one.
    assert math.isclose(naswot(net, {"x": apart}), math.log(2 * 2 - 1), rel_tol=1e-9)
    assert naswot(net, {"x": apart.abs()}) == -math.inf
