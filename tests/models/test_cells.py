"""The fusion cell: initial architecture, separate updates, derived genotypes, found cells, late fusion."""

import itertools
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.updates import OptimizerStep
from models.bmnas.cells import FixedEdges, FusionCell, MixedEdges
from models.bmnas.fusion_net import FusionNet
from models.bmnas.late_fusion import LateFusion
from models.bmnas.operations import STEP_OPERATIONS
from models.genotypes import FusionGenotype, StepGenotype, random_genotype
from search.derive import argmax

C, L = 6, 4


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors are fastest in one thread, and the machine may be busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mixed(num_inputs=4, steps=2, multiplier=2, node_steps=1, node_multiplier=1, dropout=0.0, seed=0):
    torch.manual_seed(seed)
    sizes = {"steps": steps, "multiplier": multiplier, "node_steps": node_steps, "node_multiplier": node_multiplier}
    return FusionCell.mixed(num_inputs, C, L, dropout, **sizes)


def features(count, n=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, C, L, generator=generator) for _ in range(count)]


def skips(*indices):
    return tuple(("skip", index) for index in indices)


SUM = StepGenotype(skips(0, 1), ("Sum",), (2,))


def set_skips(logits, values):
    """Give row j of ``logits`` a skip weight that grows with ``values[j]``."""
    with torch.no_grad():
        logits.zero_()
        logits[: len(values), 1] = torch.tensor(values)


class TestArchitectureParameters:
    def test_initial_scale(self):
        """All logits together are distributed as 1e-3 * N(0, 1)."""
        cell = mixed(num_inputs=40, steps=12, multiplier=2, node_steps=12, node_multiplier=2)
        for kind in ("alphas", "betas", "gammas"):
            values = torch.cat([p.detach().flatten() for k, p in cell.arch_parameters().items() if kind in k])
            assert len(values) > 500
            assert values.std().item() == pytest.approx(1e-3, rel=0.1)
            assert abs(values.mean().item()) < 1.5e-4

    def test_names_order_and_shapes(self):
        """The original's order; there are sum of (I + i) cell edges and sum of (2 + k) inner edges."""
        cell = mixed(num_inputs=8, steps=3, multiplier=2, node_steps=2, node_multiplier=2)
        shapes = {"alphas_edges": (8 + 9 + 10, 2)}
        for i in range(3):
            shapes |= {f"step{i}.betas": (2 + 3, 2), f"step{i}.gammas": (2, 4)}
        assert [(k, tuple(p.shape)) for k, p in cell.arch_parameters().items()] == list(shapes.items())

    def test_probabilities_are_their_softmax(self):
        cell = mixed(num_inputs=3, steps=2, node_steps=2, node_multiplier=2)
        with torch.no_grad():
            for parameter in cell.arch_parameters().values():
                parameter.normal_()
        tables = cell.probabilities(["a", "b", "c"])
        alphas = cell.edges.logits.detach().double().softmax(-1)
        assert tables["alphas, step 2"]["C1"]["skip"] == pytest.approx(alphas[3 + 3, 1].item(), rel=1e-5)
        assert tables["alphas, step 1"]["c"]["none"] == pytest.approx(alphas[2, 0].item(), rel=1e-5)
        betas = cell.nodes[1].edges.logits.detach().double().softmax(-1)
        assert tables["betas, step 2.2"]["C2_S1"]["skip"] == pytest.approx(betas[4, 1].item(), rel=1e-5)
        gammas = cell.nodes[0].gammas.detach().double().softmax(-1)
        assert tables["gammas, step 1"]["C1_S2"]["LinearGLU"] == pytest.approx(gammas[1, 2].item(), rel=1e-5)
        for rows in tables.values():
            for row in rows.values():
                assert sum(row.values()) == pytest.approx(1.0)
        assert sum(len(rows) for rows in tables.values()) == sum(len(p) for p in cell.arch_parameters().values())

    def test_mixed_edges_weigh_every_earlier_state(self):
        """Step i reads the first I + i states, each with its own skip weight, not normalised over edges."""
        torch.manual_seed(0)
        edges = MixedEdges(3, 2)
        with torch.no_grad():
            edges.logits.normal_()
        states = features(4)
        skip = 1 / (1 + torch.exp(edges.logits[:, 0] - edges.logits[:, 1]))
        for step, rows in ((0, range(3)), (1, range(3, 7))):
            expected = sum(skip[row] * state for row, state in zip(rows, states, strict=False))
            first, second = edges(states[: len(rows)], step)
            torch.testing.assert_close(first, expected)
            assert torch.equal(first, second)

    def test_found_cells_have_none(self):
        found = FusionCell.fixed(argmax(mixed()), 4, C, L, 0.0)
        assert found.arch_parameters() == {}
        assert not any("logits" in key or "gammas" in key for key in found.state_dict())


class Net(nn.Module):
    """A cell with a classifier; the batch contains the features."""

    def __init__(self, fusion):
        super().__init__()
        self.fusion = fusion
        self.classifier = nn.Linear(fusion.width, 3)

    def forward(self, batch):
        return self.classifier(self.fusion(batch["inputs"]))


def cross_entropy(outputs, batch):
    return F.cross_entropy(outputs, batch["label"])


def test_a_step_moves_the_parameters_of_its_updater_only():
    net = Net(mixed(node_steps=2, node_multiplier=2, dropout=0.1)).train()
    arch = list(net.fusion.arch_parameters().values())
    weights = [p for p in net.parameters() if all(p is not a for a in arch)]
    updaters = {
        "weights": OptimizerStep(net, cross_entropy, torch.optim.Adam(weights, lr=1e-2, weight_decay=1e-2)),
        "alphas": OptimizerStep(
            net, cross_entropy, torch.optim.Adam(arch, 1e-2, betas=(0.5, 0.999), weight_decay=1e-2)
        ),
    }
    arch_names = {name for name, p in net.named_parameters() if any(p is a for a in arch)}
    moved = {"weights": set(dict(net.named_parameters())) - arch_names, "alphas": arch_names}
    batch = {"inputs": features(4, n=6), "label": torch.tensor([0, 1, 2, 0, 1, 2])}
    for kind in ("weights", "alphas", "alphas", "weights"):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        updaters[kind].activate()
        assert {name for name, p in net.named_parameters() if p.requires_grad} == moved[kind], "no idle gradients"
        updaters[kind].step(batch)
        changed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
        assert changed == moved[kind]


class TestDerivedGenotypes:
    def test_equal_weights_take_the_first_pair_and_the_first_operation(self):
        cell = mixed(num_inputs=4, steps=3, multiplier=2, node_steps=2, node_multiplier=2)
        with torch.no_grad():
            for parameter in cell.arch_parameters().values():
                parameter.zero_()
        genotype = argmax(cell)
        assert genotype.edges == skips(0, 1, 0, 2, 0, 3)
        assert genotype.concat == (5, 6)
        for step in genotype.steps:
            assert step == StepGenotype(skips(0, 1, 0, 1), ("Sum", "Sum"), (2, 3))

    def test_equal_products_take_the_lexicographically_first_pair(self):
        cell = mixed(num_inputs=4, steps=1, multiplier=1)
        set_skips(cell.edges.logits, [-1.0, 2.0, 2.0, 2.0])
        assert argmax(cell).edges == skips(1, 2)

    def test_the_largest_product_wins_and_a_new_pair_needs_a_new_member(self):
        cell = mixed(num_inputs=4, steps=2)
        with torch.no_grad():
            cell.edges.logits.zero_()
            for start in (0, 4):
                cell.edges.logits[start : start + 4, 1] = torch.tensor([1.0, 0.5, 3.0, 2.0])
        assert argmax(cell).edges == skips(2, 3, 0, 2)

    def test_edges_from_earlier_steps_are_never_taken(self):
        cell = mixed(num_inputs=3, steps=3, multiplier=1)
        with torch.no_grad():
            cell.edges.logits.zero_()
            cell.edges.logits[[3 + 3, 7 + 3, 7 + 4], 1] = 9.0
        assert all(index < 3 for _, index in argmax(cell).edges)

    def test_pairs_run_out(self):
        """With 4 inputs and 3 steps, the first two steps use all inputs, so the third uses the best pair again."""
        cell = mixed(num_inputs=4, steps=3)
        with torch.no_grad():
            cell.edges.logits.zero_()
            cell.edges.logits[[0, 1], 1] = 3.0
            cell.edges.logits[[4 + 2, 4 + 3], 1] = 3.0
            cell.edges.logits[[9 + 1, 9 + 2], 1] = 3.0
        genotype = argmax(cell)
        assert genotype.edges == skips(0, 1, 2, 3, 1, 2)
        assert FusionCell.fixed(genotype, 4, C, L, 0.0)(features(4)).shape == (3, 2 * C * L)

    def test_inner_edges_come_by_weight(self):
        """The strongest state is the operation's first argument; ties go to the lower index."""
        cell = mixed(num_inputs=2, steps=1, multiplier=1, node_steps=2, node_multiplier=1)
        logits = cell.nodes[0].edges.logits
        set_skips(logits, [0.0, 1.0, 0.5, 0.2, 0.5])
        assert argmax(cell).steps[0].inner_edges == skips(1, 0, 0, 2)
        set_skips(logits, [1.0, 0.0, 0.1, 0.2, 0.5])
        assert argmax(cell).steps[0].inner_edges == skips(0, 1, 2, 1)

    def test_the_strongest_operation_wins(self):
        cell = mixed(num_inputs=2, steps=1, multiplier=1, node_steps=3, node_multiplier=1)
        with torch.no_grad():
            cell.nodes[0].gammas.copy_(torch.tensor([[0, 0, 1.0, 0], [0, 2.0, 1, 2.0], [-1.0, -2, -3, -0.5]]))
        assert argmax(cell).steps[0].inner_steps == ("LinearGLU", "ScaleDotAttn", "ConcatFC")

    def test_names_of_the_inputs_are_kept(self):
        cell = mixed()
        scores = {choice.key: choice.probabilities() for choice in cell.choices()}
        assert cell.discretise(scores, ["a", "b", "c", "d"]).inputs == ("a", "b", "c", "d")


class TestFoundCells:
    def test_steps_may_read_earlier_steps(self):
        """A chain of sums, against the formula with plain layer norms."""
        genotype = FusionGenotype(skips(0, 1, 3, 2, 4, 3), (SUM, SUM, SUM), (5,))
        x = features(3)
        cell = FusionCell.fixed(genotype, 3, C, L, 0.0)
        one = F.layer_norm(x[0] + x[1] + x[0], (C, L))
        two = F.layer_norm(one + x[2] + one, (C, L))
        three = F.layer_norm(two + one + two, (C, L))
        torch.testing.assert_close(cell(x), F.relu(F.layer_norm(three, (C, L))).flatten(1))

    def test_none_edges_give_zeros(self):
        genotype = FusionGenotype((("skip", 0), ("none", 1)), (SUM,), (2,))
        x = features(2)
        z = F.layer_norm(2 * x[0], (C, L))
        cell = FusionCell.fixed(genotype, 2, C, L, 0.0)
        torch.testing.assert_close(cell(x), F.relu(F.layer_norm(z, (C, L))).flatten(1))

    def test_its_own_sizes_count(self):
        sizes = {"steps": 3, "multiplier": 2, "node_steps": 2, "node_multiplier": 3}
        genotype = random_genotype(random.Random(3), list(STEP_OPERATIONS), num_inputs=5, **sizes)
        cell = FusionCell.fixed(genotype, 5, C, L, 0.0)
        assert len(cell.nodes) == 3 and cell.width == 2 * C * L
        assert [len(node.ops) for node in cell.nodes] == [2, 2, 2]
        assert cell.nodes[0].merge.conv.weight.shape == (C, 3 * C, 1)
        assert cell(features(5)).shape == (3, cell.width)

    def test_unread_inputs_may_be_missing(self):
        x = features(4)
        genotype = FusionGenotype(skips(1, 3), (SUM,), (4,))
        cell = FusionCell.fixed(genotype, 4, C, L, 0.0)
        assert torch.equal(cell([None, x[1], None, x[3]]), cell(x))

    def test_a_genotype_for_other_inputs_is_refused(self):
        with pytest.raises(ValueError, match="made for 4 input features, the network has 5"):
            FusionCell.fixed(argmax(mixed()), 5, C, L, 0.0)

    def test_the_same_edges_in_another_order_are_another_network(self):
        attention = StepGenotype(skips(0, 1), ("ScaleDotAttn",), (2,))
        swapped = StepGenotype(skips(1, 0), ("ScaleDotAttn",), (2,))
        x = features(2)
        outputs = []
        for step in (attention, swapped):
            torch.manual_seed(0)
            outputs.append(FusionCell.fixed(FusionGenotype(skips(0, 1), (step,), (2,)), 2, C, L, 0.0).eval()(x))
        assert not torch.allclose(*outputs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("node_multiplier", [1, 2, 3, 4])
def test_backward_without_dropout(node_multiplier, training):
    """Without dropout, or in evaluation mode, the residual must not overwrite what backward needs.

    The gradient is checked against central differences.
    """
    cell = mixed(num_inputs=3, node_steps=2, node_multiplier=node_multiplier).double().train(training)
    for module in cell.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = [feature.double().requires_grad_() for feature in features(3)]
    weight = torch.randn(3, cell.width, dtype=torch.float64)
    (cell(x) * weight).sum().backward()
    direction = torch.randn_like(x[1])
    with torch.no_grad():
        ends = [(cell([x[0], x[1] + h * direction, x[2]]) * weight).sum() for h in (1e-6, -1e-6)]
    assert (x[1].grad * direction).sum().item() == pytest.approx((ends[0] - ends[1]).item() / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("multiplier", [1, 2, 3, 5])
def test_the_output_is_the_last_states(multiplier):
    """M > S reaches back into the inputs, as in the original."""
    genotype = FusionGenotype(skips(0, 1, 0, 2), (SUM, SUM), tuple(range(5))[-multiplier:])
    x = features(3)
    states = [*x, F.layer_norm(2 * x[0] + x[1], (C, L)), F.layer_norm(2 * x[0] + x[2], (C, L))]
    tail = torch.cat(states[-multiplier:], dim=1)
    expected = F.relu(F.layer_norm(tail, (multiplier * C, L))).flatten(1)
    torch.testing.assert_close(FusionCell.fixed(genotype, 3, C, L, 0.0)(x), expected)
    supernet = mixed(num_inputs=3, multiplier=multiplier)
    assert supernet(x).shape == (3, supernet.width) == (3, multiplier * C * L)
    assert len(argmax(supernet).concat) == multiplier


class Backbone(nn.Module):
    """Two features, each a linear map of the input."""

    channels = (3, 5)
    deterministic_features = True

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(4, width) for width in self.channels)

    def forward(self, x, count=None):
        return [layer(x) for layer in self.maps[:count]]

    def modules_of(self, count):
        return list(self.maps[:count])


def fusion_net(fusion, used, **options):
    backbones = {"a": Backbone(), "b": Backbone()}
    shape = {"channels": C, "pool": (2, 2), "dropout": 0.0, "num_outputs": 3}
    return FusionNet(backbones, fusion, used, **shape, **options)


def raw_batch(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, 4, generator=generator) for name in "ab"}


def test_a_found_network_keeps_the_inputs_that_its_output_reaches_back_to():
    """M = 4 with S = 2: the last two inputs are concatenated, whether or not a step reads them."""
    genotype = FusionGenotype(skips(0, 1, 0, 2), (SUM, SUM), (2, 3, 4, 5))
    net = fusion_net(FusionCell.fixed(genotype, 4, C, L, 0.0), genotype.used_inputs()).eval()
    batch = raw_batch()
    whole = net(batch)
    assert whole.shape == (4, 3)
    assert not torch.allclose(whole, net({**batch, "b": batch["b"] + 1.0}))


def with_gradient(net):
    """Whether every parameter that weight steps train has a gradient."""
    net.zero_grad(set_to_none=True)
    net(raw_batch()).sum().backward()
    return all(p.grad is not None for p in net.weights())


def test_uses_all_weights_is_what_backward_finds():
    """For genotypes of many sizes: DDP relies on it, so as not to wait for gradients that never come."""
    seen = {True: 0, False: 0}
    for seed in range(60):
        rng = random.Random(seed)
        node_steps = rng.randint(1, 3)
        sizes = {
            "steps": rng.randint(1, 3),
            "multiplier": rng.randint(1, 2),
            "node_steps": node_steps,
            "node_multiplier": rng.randint(1, node_steps),
        }
        torch.manual_seed(seed)
        genotype = random_genotype(rng, list(STEP_OPERATIONS), num_inputs=4, **sizes)
        net = fusion_net(FusionCell.fixed(genotype, 4, C, L, 0.0), read_by_output(genotype))
        answer = net.uses_all_weights()
        assert answer == with_gradient(net), str(genotype)
        seen[answer] += 1
    assert min(seen.values()) > 5


def read_by_output(genotype):
    """Inputs that some step reads or that the output concatenates."""
    read = {index for _, index in genotype.edges} | set(genotype.concat)
    return {index for index in read if index < genotype.num_inputs}


IDLE = {
    "chain": (skips(0, 1, 4, 2), (SUM, SUM), (5,), True),
    "first step unread": (skips(0, 1, 2, 3), (SUM, SUM), (5,), False),
    "both concatenated": (skips(0, 1, 2, 3), (SUM, SUM), (4, 5), True),
    "first inner step unread": (
        skips(0, 1),
        (StepGenotype(skips(0, 1, 1, 0), ("ConcatFC", "ConcatFC"), (3,)),),
        (4,),
        False,
    ),
    "inner chain": (skips(0, 1), (StepGenotype(skips(0, 1, 2, 0), ("ConcatFC", "ConcatFC"), (3,)),), (4,), True),
    "y of a node unread": (
        skips(0, 1),
        (StepGenotype(skips(0, 0), ("ConcatFC",), (2,)),),
        (4,),
        False,
    ),
    "step read as an unread y": (
        skips(0, 1, 2, 4),
        (StepGenotype(skips(0, 1), ("ConcatFC",), (2,)), StepGenotype(skips(0, 0), ("Sum",), (2,))),
        (5,),
        False,
    ),
}


@pytest.mark.parametrize("case", IDLE)
def test_idle_weights_are_noticed(case):
    edges, steps, concat, used = IDLE[case]
    genotype = FusionGenotype(edges, steps, concat)
    net = fusion_net(FusionCell.fixed(genotype, 4, C, L, 0.0), genotype.used_inputs())
    assert with_gradient(net) == used
    assert net.uses_all_weights() == used


def test_a_supernet_uses_everything():
    for steps, multiplier in itertools.product((1, 3), (1, 2)):
        net = fusion_net(mixed(steps=steps, multiplier=multiplier, node_steps=2), range(4))
        assert net.uses_all_weights() and with_gradient(net)
        assert all(p.grad is not None for p in net.arch_parameters().values())


class TestLateFusion:
    def net(self):
        torch.manual_seed(0)
        return fusion_net(LateFusion((1, 3), C, L), (1, 3)).double().eval()

    def test_modalities_do_not_interact(self):
        """f(a, b) - f(a0, b) - f(a, b0) + f(a0, b0) = 0, though f is not linear in a."""
        net = self.net()
        one, two = ({k: v.double() for k, v in raw_batch(seed=s).items()} for s in (0, 1))
        corners = [net({"a": a, "b": b}) for a in (one["a"], two["a"]) for b in (one["b"], two["b"])]
        mixed_difference = corners[0] - corners[1] - corners[2] + corners[3]
        assert mixed_difference.abs().max() < 1e-12
        assert (corners[0] - corners[2]).abs().max() > 1e-3
        middle = net({"a": (one["a"] + two["a"]) / 2, "b": one["b"]})
        assert (corners[0] + corners[2] - 2 * middle).abs().max() > 1e-6

    def test_a_cell_does_interact(self):
        """The same measure detects a fusion that is not late."""
        net = fusion_net(FusionCell.fixed(FusionGenotype(skips(1, 3), (SUM,), (4,)), 4, C, L, 0.0), (1, 3)).eval()
        one, two = raw_batch(seed=0), raw_batch(seed=1)
        corners = [net({"a": a, "b": b}) for a in (one["a"], two["a"]) for b in (one["b"], two["b"])]
        assert (corners[0] - corners[1] - corners[2] + corners[3]).abs().max() > 1e-4

    def test_reads_the_last_features_only(self):
        fusion = LateFusion((1, 3), C, L)
        x = features(4)
        expected = torch.cat([x[1].reshape(3, -1), x[3].reshape(3, -1)], dim=1)
        assert torch.equal(fusion([None, x[1], None, x[3]]), expected)
        assert fusion.width == expected.shape[1]

    def test_has_nothing_to_search_and_uses_every_weight(self):
        net = self.net()
        assert net.arch_parameters() == {} and net.uses_all_weights()
        net({k: v.double() for k, v in raw_batch().items()}).sum().backward()
        assert all(p.grad is not None for p in net.weights())


def test_fixed_edges_pair_up():
    with pytest.raises(ValueError):
        FixedEdges(skips(0, 1, 2))
