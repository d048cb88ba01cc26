"""DrNAS: the drawn weights, their mean and limit, their gradients, and its regulariser."""

import pytest
import torch

from search.drnas import DrNAS
from search.regularizers import DirichletKL, concentrations, dirichlet_kl
from search.relaxation import ARCHITECTURE, WEIGHTS
from tests.search.small_spaces import Logits, cell, encoder_decoder, features, generator
from util.cli import UserError


def test_the_mean_of_the_weights_is_the_normalised_concentration():
    space = Logits([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])
    drnas, draws = DrNAS(generator()).attach(space), 4000
    total = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(draws):
        drnas.draw(WEIGHTS)
        total += drnas.weights(space.choice, space.logits).detach()
    c = concentrations(space.logits.detach())
    assert (total / draws - c / c.sum(-1, True)).abs().max() < 5 * 0.5 / draws**0.5
    assert torch.allclose(space.choice.probabilities(), c / c.sum(-1, True))


def test_a_large_concentration_gives_a_fixed_mixture():
    space = Logits([3e6, 1e6, 2e6])
    drnas = DrNAS(generator()).attach(space)
    drnas.draw(WEIGHTS)
    expected = torch.tensor([1 / 2, 1 / 6, 1 / 3], dtype=torch.float64)
    assert torch.allclose(drnas.weights(space.choice, space.logits), expected, atol=2e-3)


@pytest.mark.parametrize("logits", [[0.3, -0.4], [1.5, 0.2], [-1.0, 2.0]])
def test_gradient_is_that_of_the_quantile_of_the_draw(logits):
    """The weight of one of two candidates is a Beta variable: the slope of its quantile, by finite differences."""
    special = pytest.importorskip("scipy.special")
    space = Logits(logits)
    drnas = DrNAS(generator(2)).attach(space)
    for _ in range(5):
        drnas.draw(ARCHITECTURE)
        space.logits.grad = None
        weight = drnas.weights(space.choice, space.logits)[0]
        weight.backward()
        a, b = concentrations(space.logits.detach()).tolist()
        level = special.betainc(a, b, weight.item())
        for k in range(2):
            values = []
            for sign in (1, -1):
                moved = space.logits.detach().clone()
                moved[k] += sign * 1e-4
                values.append(special.betaincinv(*concentrations(moved).tolist(), level))
            expected = (values[0] - values[1]) / 2e-4
            assert space.logits.grad[k].item() == pytest.approx(expected, rel=1e-2, abs=1e-4)


def test_the_divergence_is_torchs_and_zero_at_the_start():
    c = torch.rand(4, 3, generator=generator(), dtype=torch.float64) * 3 + 0.1
    one = torch.ones_like(c)
    expected = torch.distributions.kl_divergence(*map(torch.distributions.Dirichlet, (c, one)))
    assert torch.allclose(dirichlet_kl(c), expected)
    assert dirichlet_kl(one).abs().max() < 1e-12
    space = Logits([[0.5, -0.2]])
    DirichletKL(0.0).add_gradients([space.choice])
    assert space.logits.grad is None
    DirichletKL(0.5).add_gradients([space.choice], scale=2.0)
    found, step = space.logits.grad.clone(), 1e-6
    for k in range(2):
        move = torch.zeros(1, 2, dtype=torch.float64).index_fill(1, torch.tensor([k]), step)
        high, low = (dirichlet_kl(concentrations(space.logits.detach() + sign * move)).sum() for sign in (1, -1))
        assert found[0, k].item() == pytest.approx(((high - low) / (2 * step)).item(), rel=1e-5)


def test_a_cell_gets_gradients_and_resumes_exactly():
    nets, outputs = [cell(), cell()], []
    one, other = (DrNAS(generator(seed)).attach(net) for seed, net in zip((5, 9), nets, strict=True))
    assert nets[0].uses_all_weights()
    one.draw(WEIGHTS)
    other.load_state_dict(one.state_dict())
    for drnas, net in zip((one, other), nets, strict=True):
        drnas.draw(ARCHITECTURE)
        outputs.append(net(features()))
        torch.rand(2)
    assert torch.equal(*outputs)
    outputs[0].pow(2).sum().backward()
    assert all(choice.logits.grad.isfinite().all() and choice.logits.grad.any() for choice in nets[0].choices())


def test_a_network_of_single_paths_is_refused():
    with pytest.raises(UserError, match="runs every candidate in every step"):
        DrNAS(generator()).attach(encoder_decoder())
