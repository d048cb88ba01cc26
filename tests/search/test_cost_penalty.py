"""--cost_weight: the expected cost is the mean over all architectures by their probabilities, and affects a search."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import main_darts_searchable_mmimdb as bmnas
import search_vqa as mmnas
from engine.cost import costs_of, latency_ms
from models.backbone_net import ReshapeLayer
from models.bmnas.cells import SKIP, FusionCell
from models.bmnas.expected_cost import ExpectedCost
from models.mmnas.cost import REGIONS, WORDS, architecture_cost
from models.mmnas.cost import ExpectedCost as ExpectedBlocks
from search.gdas import GDAS
from search.regularizers import CostPenalty
from search.relaxation import SoftmaxMixture
from search.strategies import build_strategy
from tests.search.small_spaces import INPUTS, C, L, cell, encoder_decoder, generator
from util.cli import UserError

CPU = torch.device("cpu")
WIDTHS = (7, 5, 3, 2)
POOL = (3, 1)


def expected_cost(net, kind):
    return ExpectedCost(net, kind, [ReshapeLayer(width, C, POOL, 0.0) for width in WIDTHS], (C, L))


class Space:
    """A cell with the expected cost that a network would have."""

    def __init__(self, net):
        self.net, self.choices = net, net.choices

    def expected_cost(self, kind):
        return expected_cost(self.net, kind)


def random_logits(net):
    with torch.no_grad():
        for choice in net.choices():
            choice.logits.copy_(torch.randn(choice.logits.shape, generator=generator(5)))
    return {choice.key: choice.probabilities() for choice in net.choices()}


def test_costs_of_a_module_are_those_worked_out_by_hand():
    layer = ReshapeLayer(7, C, POOL, 0.0)
    costs = costs_of(layer, lambda n, device: (torch.randn(n, 7, *POOL),), CPU)
    assert costs == {"parameters": 7 * C + C + 2 * C, "flops": 2 * 7 * C * L}
    state = torch.get_rng_state()
    assert latency_ms(layer, lambda n, device: (torch.randn(n, 7, *POOL),), CPU, 2) > 0
    assert torch.equal(torch.get_rng_state(), state) and layer.training


@pytest.mark.parametrize("kind", ["parameters", "flops"])
def test_the_expectation_is_the_sum_over_all_architectures(kind):
    """If edges are decided one by one, all architectures can be enumerated."""
    net = cell(steps=2, multiplier=1, node_steps=1)
    probabilities, cost = random_logits(net), expected_cost(net, kind)
    skips = probabilities["alphas_edges"][:, SKIP].split(net.edges.counts)
    total = 0.0
    for read in itertools.product((0, 1), repeat=2 * INPUTS):
        chance, used = 1.0, set()
        for position, taken in enumerate(read):
            step, feature = divmod(position, INPUTS)
            chance *= float(skips[step][feature]) if taken else 1 - float(skips[step][feature])
            used |= {feature} if taken else set()
        total += chance * sum(float(cost.features[feature]) for feature in used)
    for step in range(2):
        total += float(probabilities[f"step{step}.gammas"][0].double() @ cost.operations)
    assert float(cost(probabilities)) == pytest.approx(total / cost.most, rel=1e-5)
    if kind == "parameters":
        names = net.nodes[0].ops[0]
        assert cost.operations.tolist() == [sum(p.numel() for p in names[n].parameters()) for n in names]


def test_of_drawn_pairs_it_is_the_mean_of_the_draws():
    net = cell(steps=1, multiplier=1, node_steps=1)
    gdas = GDAS(generator(1), pairs=True).attach(net)
    random_logits(net)
    probabilities, cost = {choice.key: choice.probabilities() for choice in net.choices()}, expected_cost(net, "flops")
    costs = []
    for _ in range(4000):
        gdas.draw("weights")
        edges, _, operations = (choice.drawn for choice in net.choices())
        read = sum(float(cost.features[state]) for state in edges.pairs[0])
        costs.append((read + float(cost.operations[operations.active[0]])) / cost.most)
    spread = torch.tensor(costs).std() / len(costs) ** 0.5
    assert abs(float(cost(probabilities)) - sum(costs) / len(costs)) < 5 * spread


@pytest.mark.parametrize("name", ["mixture", "gdas", "drnas"])
def test_the_gradient_is_that_of_the_expectation(name):
    """Agrees with finite differences in float64, under the probabilities of the strategy."""
    net = cell().double()
    made = SoftmaxMixture() if name == "mixture" else build_strategy(name, None, 0)
    penalty = CostPenalty(3.0, "parameters")
    made.regularizers.append(penalty)
    made.attach(Space(net))
    random_logits(net)
    penalty.add_gradients(made.choices, scale=2.0)

    def value():
        return float(6.0 * penalty.cost({choice.key: choice.probabilities() for choice in made.choices}))

    for choice in made.choices:
        if ".betas" in choice.key:
            assert choice.logits.grad is None  # inner edges have no cost
            continue
        flat, slope = choice.logits.detach().view(-1), choice.logits.grad.view(-1)
        for k in range(0, len(flat), 5):
            middle, step = flat[k].item(), 1e-5
            ends = []
            for end in (middle - step, middle + step):
                flat[k] = end
                ends.append(value())
            flat[k] = middle
            assert float(slope[k]) == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-4, abs=1e-9)


def test_blocks_of_mmnas():
    net = encoder_decoder()
    probabilities = random_logits(net)
    for kind in ("parameters", "flops"):
        cost = ExpectedBlocks(net, kind)
        decided = {key: torch.nn.functional.one_hot(p.argmax(), len(p)).double() for key, p in probabilities.items()}
        found = architecture_cost(net.discretise(probabilities), hsize=32, batch=2, device=CPU)
        assert float(cost(decided)) * cost.most == pytest.approx(found["cost"][kind])
        assert 0 < float(cost(probabilities)) < 1
    assert found["latency"]["batch_2_ms"] > 0 and f"{WORDS} words and {REGIONS} regions" in found["cost"]["of"]


@pytest.mark.parametrize("script", [bmnas, mmnas])
def test_a_large_weight_leads_a_search_to_a_cheap_architecture(script, films, easy_vqa, narrow_backbones, tmp_path):
    shared = ["--epochs", "2", "--cost_weight", "1000", "--device", "cpu", "--out_dir", str(tmp_path)]
    if script is bmnas:
        result = bmnas.main([*films.flags, "--C", "8", "--L", "4", "--arch_learning_rate", "0.1", *shared])
        assert {name for step in result["genotype"]["steps"] for name in step["inner_steps"]} == {"Sum"}
    else:
        sizes = "--hsize 64 --enc_blocks 1 --dec_blocks 2 --batchsize 16 --alpha_start 0 --alpha_every 1"
        sizes += " --alpha_init uniform --alpha_lr 1"
        result = mmnas.main([*sizes.split(), *easy_vqa.flags, *shared])
        assert not any(name == "feed_forward" for side in ("enc", "dec") for (name,) in result["genotype"][side])
    assert result["cost"]["parameters"] > 0 and result["latency"]["on"] == "cpu"


def test_what_has_no_expected_cost_is_refused():
    with pytest.raises(UserError, match="--cost_weight: this network has no expected_cost"):
        CostPenalty(1.0, "flops").attach(SimpleNamespace(choices=list))
    assert isinstance(FusionCell.mixed(4, C, L, 0.0, steps=1, multiplier=1, node_steps=1, node_multiplier=1), nn.Module)
