"""Every candidate operation: its formula, and the requirements of the search on any registered operation."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.bmnas import operations
from models.bmnas.cells import FusionCell
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS, STEP_OPERATIONS, has_weights
from search.derive import argmax

N, C, L = 5, 6, 4
SIZES = {"steps": 1, "multiplier": 1, "node_steps": 1, "node_multiplier": 1}


def made(name, dropout=0.0, seed=0):
    """The operation with every parameter and buffer moved off its initial value."""
    torch.manual_seed(seed)
    operation = STEP_OPERATIONS[name](C, L, dropout)
    with torch.no_grad():
        for key, value in operation.state_dict().items():
            if value.is_floating_point():
                value.copy_(0.5 + torch.rand_like(value) if key.endswith("running_var") else torch.randn_like(value))
    return operation


def pair(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(N, C, L, generator=generator) for _ in range(2)]


def arrays(operation):
    return {key: value.double().numpy() for key, value in operation.state_dict().items()}


def layer_norm(x, weight, bias):
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) / np.sqrt(x.var(axis=(1, 2), keepdims=True) + 1e-5) * weight + bias


def linear_and_batch_norm(x, y, p, batch_statistics):
    """A map of the channels of each position of cat(x, y), then batch norm over samples and positions."""
    z = np.einsum("oc,ncl->nol", p["conv.weight"][:, :, 0], np.concatenate([x, y], axis=1)) + p["conv.bias"][:, None]
    mean = z.mean(axis=(0, 2)) if batch_statistics else p["bn.running_mean"]
    variance = z.var(axis=(0, 2)) if batch_statistics else p["bn.running_var"]
    z = (z - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
    return z * p["bn.weight"][:, None] + p["bn.bias"][:, None]


def attention(x, y, p):
    out = np.empty_like(x)
    for n in range(len(x)):
        for query in range(L):
            scores = np.array([x[n, :, query] @ y[n, :, key] / math.sqrt(C) for key in range(L)])
            weights = np.exp(scores - scores.max())
            out[n, :, query] = y[n] @ (weights / weights.sum())
    return layer_norm(out, p["norm.weight"], p["norm.bias"])


def gated(x, y, p, batch_statistics):
    z = linear_and_batch_norm(x, y, p, batch_statistics)
    return z[:, :C] / (1 + np.exp(-z[:, C:]))


FORMULAS = {
    "Sum": lambda x, y, p, b: x + y,
    "ScaleDotAttn": lambda x, y, p, b: attention(x, y, p),
    "LinearGLU": gated,
    "ConcatFC": lambda x, y, p, b: np.maximum(linear_and_batch_norm(x, y, p, b), 0),
}


def linear(x, p, name):
    return np.einsum("oc,ncl->nol", p[f"{name}.weight"][:, :, 0], x) + p[f"{name}.bias"][:, None]


def low_rank(x, y, p, _):
    return linear(np.tanh(linear(x, p, "first")) * np.tanh(linear(y, p, "second")), p, "out")


def gated_unit(x, y, p, _):
    gate = 1 / (1 + np.exp(-linear(np.concatenate([x, y], axis=1), p, "gate")))
    return gate * np.tanh(linear(x, p, "first")) + (1 - gate) * np.tanh(linear(y, p, "second"))


def film(x, y, p, _):
    scale_and_shift = linear(y.mean(axis=2, keepdims=True), p, "film")
    return x * (1 + scale_and_shift[:, :C]) + scale_and_shift[:, C:]


# Operations beyond the published ones: formula, and number of parameters.
MORE = {
    "Product": (lambda x, y, p, b: x * y, 0),
    "Max": (lambda x, y, p, b: np.maximum(x, y), 0),
    "Average": (lambda x, y, p, b: 0.5 * x + 0.5 * y, 0),
    "LowRankBilinear": (low_rank, 3 * C * (C // 2) + 2 * (C // 2) + C),
    "GatedMultimodalUnit": (gated_unit, 4 * C * C + 3 * C),
    "FiLM": (film, 2 * C * C + 2 * C),
}
EVERY = FORMULAS | {name: formula for name, (formula, _) in MORE.items()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_formula(name, training):
    """The paper's formula in numpy; in training mode with batch statistics and all dropout off."""
    operation = made(name).train(training)
    for module in operation.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x, y = pair()
    expected = EVERY[name](x.double().numpy(), y.double().numpy(), arrays(operation), training)
    np.testing.assert_allclose(operation(x, y).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_order_of_the_operations():
    """The columns of gammas: the original's order."""
    assert list(PUBLISHED_STEP_OPERATIONS) == list(FORMULAS) == ["Sum", "ScaleDotAttn", "LinearGLU", "ConcatFC"]
    assert set(EVERY) == set(STEP_OPERATIONS)


@pytest.mark.parametrize("name", MORE)
def test_parameters_are_as_documented(name):
    assert sum(parameter.numel() for parameter in made(name).parameters()) == MORE[name][1]


@pytest.mark.parametrize("name", STEP_OPERATIONS)
class TestRegistry:
    def test_shape_is_kept(self, name):
        for n, c, length in ((2, 3, 1), (3, 8, 16)):
            out = STEP_OPERATIONS[name](c, length, 0.1)(torch.randn(n, c, length), torch.randn(n, c, length))
            assert out.shape == (n, c, length)

    def test_gradient_reaches_both_inputs_and_every_parameter(self, name):
        operation = made(name)
        x, y = (t.requires_grad_() for t in pair())
        operation(x, y).pow(2).sum().backward()
        for tensor in (x, y, *operation.parameters()):
            assert tensor.grad is not None and tensor.grad.abs().sum() > 0

    def test_evaluation_is_deterministic_and_per_sample(self, name):
        operation = made(name, dropout=0.5).eval()
        x, y = pair()
        whole = operation(x, y)
        assert torch.equal(operation(x, y), whole)
        torch.testing.assert_close(operation(x[2:3], y[2:3]), whole[2:3])

    def test_inputs_are_not_changed(self, name):
        x, y = pair()
        before = x.clone(), y.clone()
        made(name, dropout=0.5)(x, y)
        assert torch.equal(x, before[0]) and torch.equal(y, before[1])

    def test_search_finds_it_and_the_found_cell_holds_it(self, name):
        torch.manual_seed(0)
        names = tuple(dict.fromkeys((*PUBLISHED_STEP_OPERATIONS, name)))
        cell = FusionCell.mixed(3, C, L, 0.0, **SIZES, step_ops=names)
        with torch.no_grad():
            cell.nodes[0].gammas[0, names.index(name)] += 1.0
        genotype = argmax(cell)
        assert genotype.steps[0].inner_steps == (name,)
        found = FusionCell.fixed(genotype, 3, C, L, 0.0)
        (operation,) = found.nodes[0].ops[0].values()
        assert type(operation) is STEP_OPERATIONS[name]

    def test_has_weights_means_a_map_that_learns(self, name):
        """Parameters of normalisations do not count as weights, those of linear maps do."""
        linear = any(isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)) for m in made(name).modules())
        assert has_weights(name) == linear


def test_has_weights():
    assert {name: has_weights(name) for name in FORMULAS} == {
        "Sum": False,
        "ScaleDotAttn": False,
        "LinearGLU": True,
        "ConcatFC": True,
    }


def dropped_share(name, dropout):
    """Fraction of outputs that dropout changes, with batch norm in evaluation mode."""
    torch.manual_seed(0)
    operation = STEP_OPERATIONS[name](C, L, dropout).eval()
    x, y = (torch.randn(400, C, L) for _ in range(2))
    whole = operation(x, y)
    for module in operation.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    if name == "ScaleDotAttn":  # dropout comes before the norm
        operation.norm = nn.Identity()
    out = operation(x, y)
    return ((out == 0) & (whole != 0)).float().mean().item() / (whole != 0).float().mean().item()


def test_dropout_rates():
    """Attention always drops a tenth, Sum nothing, and the others the given rate."""
    for dropout in (0.0, 0.5):
        assert dropped_share("Sum", dropout) == 0.0
        assert dropped_share("ScaleDotAttn", dropout) == pytest.approx(0.1, abs=0.02)
        assert dropped_share("LinearGLU", dropout) == pytest.approx(dropout, abs=0.03)
        assert dropped_share("ConcatFC", dropout) == pytest.approx(dropout, abs=0.03)


class Product(nn.Module):
    """x * y with a weight per channel, as an example of an added operation."""

    def __init__(self, channels, length, dropout):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1), 2.0))

    def forward(self, x, y):
        return self.scale * x * y


def test_an_added_operation_is_picked_up_everywhere(monkeypatch):
    """One entry in the registry and a name among the candidates suffice for cells, genotypes and random genotypes."""
    import random

    from models.genotypes import FusionGenotype, random_genotype

    monkeypatch.setitem(operations.STEP_OPERATIONS, "Product", Product)
    torch.manual_seed(0)
    assert FusionCell.mixed(3, C, L, 0.0, **SIZES).arch_parameters()["step0.gammas"].shape == (1, 4)
    cell = FusionCell.mixed(3, C, L, 0.0, **SIZES, step_ops=(*PUBLISHED_STEP_OPERATIONS, "Product"))
    assert cell.arch_parameters()["step0.gammas"].shape == (1, 5)
    features = [torch.randn(2, C, L) for _ in range(3)]
    cell(features).sum().backward()
    assert cell.nodes[0].ops[0]["Product"].scale.grad.abs().sum() > 0
    assert "Product" in cell.probabilities()["gammas, step 1"]["C1_S1"]
    with torch.no_grad():
        cell.nodes[0].gammas[0, 4] = 5.0
    genotype = FusionGenotype.from_dict(argmax(cell).to_dict())
    assert genotype.steps[0].inner_steps == ("Product",)
    assert "Product" in genotype.to_svg()

    found = FusionCell.fixed(genotype, 3, C, L, 0.0)
    x, y = (features[index] for _, index in genotype.edges)
    if genotype.steps[0].inner_edges[0] == ("skip", 1):
        first, second = y, x
    else:
        first, second = x, y
    z = torch.nn.functional.layer_norm(2 * first * second + x, (C, L))
    torch.testing.assert_close(found(features), torch.relu(torch.nn.functional.layer_norm(z, (C, L))).flatten(1))
    drawn = {
        random_genotype(random.Random(s), list(STEP_OPERATIONS), num_inputs=3, **SIZES).steps[0].inner_steps[0]
        for s in range(60)
    }
    assert drawn == set(STEP_OPERATIONS)
    assert has_weights("Product"), "a scale per channel is learned"
