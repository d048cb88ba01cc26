"""Gumbel-Rao, and ordered pairs of edges: frequencies, noise given the draw, gradients, the network of a draw."""

import math
from collections import Counter

import pytest
import torch

from models.bmnas.collapse import collapse_warnings
from search.derive import argmax
from search.gdas import GDAS
from search.ordered_pairs import pair_scores, strongest_pairs, top_pairs
from search.relaxation import ARCHITECTURE, WEIGHTS
from search.strategies import build_strategy
from tests.search.small_spaces import (
    INPUTS,
    SIZES,
    Logits,
    cell,
    drawn_genotype,
    encoder_decoder,
    features,
    found_cell,
    generator,
)
from util.cli import UserError

EULER = 0.5772156649


def gradients(space, samples, draws, outputs=None):
    """Architecture gradients (draws, n) of the draws that choose the first candidate."""
    gdas = GDAS(generator(4), temperature=(0.5, 0.5), gumbel_samples=samples).attach(space)
    outputs = outputs or [1.0, -2.0, 0.7]
    found = []
    while len(found) < draws:
        gdas.draw(ARCHITECTURE)
        if space.choice.running()[0] == 0:
            space.logits.grad = None
            weights = gdas.weights(space.choice, space.logits)
            (weights * torch.tensor(outputs, dtype=torch.float64)).sum().backward()
            found.append(space.logits.grad.clone())
    return torch.stack(found)


def test_the_variance_of_gumbel_rao_falls_with_its_samples_and_the_mean_stays():
    space, draws = Logits([0.3, 0.0, 0.4]), 400
    found = {samples: gradients(space, samples, draws) for samples in (1, 4, 16)}
    one, four, sixteen = (values.var(0).sum().item() for values in found.values())
    assert four < 0.4 * one and sixteen < 0.4 * four
    error = (found[1].var(0) / draws).sqrt()
    assert ((found[1].mean(0) - found[16].mean(0)).abs() < 5 * error).all()


def test_one_sample_is_gdas_to_the_bit():
    first, second = cell(), cell()
    one = GDAS(generator(1)).attach(first)
    other = build_strategy("gdas", None, 1, ["gumbel_samples=1"]).attach(second)
    for gdas, net in ((one, first), (other, second)):
        gdas.draw(ARCHITECTURE)
        net(features()).pow(2).sum().backward()
    for a, b in zip(first.choices(), second.choices(), strict=True):
        assert a.drawn == b.drawn and torch.equal(a.logits.grad, b.logits.grad)


def test_further_noise_agrees_with_the_draw_and_is_gumbel_noise():
    space = Logits([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])
    gdas, seen = GDAS(generator(), gumbel_samples=3).attach(space), []
    scores = space.logits.detach().log_softmax(-1)
    for _ in range(1500):
        gdas.draw(ARCHITECTURE)
        for noise in gdas._noises["one"]:
            assert (scores + noise).argmax(-1).tolist() == list(space.choice.drawn.active)
        seen.append(gdas._noises["one"][1])
    seen = torch.stack(seen)
    assert (seen.mean(0) - EULER).abs().max() < 5 * math.pi / math.sqrt(6 * len(seen))
    assert (seen.var(0) - math.pi**2 / 6).abs().max() < 0.35


def set_scores(choice, values):
    with torch.no_grad():
        choice.logits.zero_()
        choice.logits[: len(values), choice.pairs.chosen] = torch.tensor(values)


def test_pairs_come_as_often_as_their_closed_form_says():
    net = cell(steps=1, multiplier=1)
    gdas, draws = GDAS(generator(2), pairs=True).attach(net), 4000
    choice = net.edges.choice
    set_scores(choice, [1.0, 0.0, -0.5, 0.3])
    p = torch.tensor([1.0, 0.0, -0.5, 0.3]).softmax(0).tolist()
    counts = Counter()
    for _ in range(draws):
        gdas.draw(WEIGHTS)
        counts[choice.drawn.pairs[0]] += 1
    for i in range(INPUTS):
        for j in range(INPUTS):
            if i != j:
                expected = p[i] * p[j] / (1 - p[i])
                spread = math.sqrt(expected * (1 - expected) / draws)
                assert abs(counts[i, j] / draws - expected) < 5 * spread
    assert torch.allclose(choice.probabilities()[:, choice.pairs.chosen], torch.tensor(p))


def test_noise_given_pairs_finds_the_drawn_pairs_and_is_gumbel_noise():
    net = cell(steps=3)
    gdas, seen = GDAS(generator(3), gumbel_samples=2, pairs=True).attach(net), []
    choice = net.edges.choice
    set_scores(choice, [0.5, 0.0, -0.5, 0.2, 1.0])
    scores = pair_scores(choice, choice.logits.detach().double())
    for _ in range(1500):
        gdas.draw(ARCHITECTURE)
        for noise in gdas._noises[choice.key]:
            assert tuple(top_pairs(choice.pairs, scores + noise)) == choice.drawn.pairs
        seen.append(gdas._noises[choice.key][1])
    seen = torch.stack(seen)
    assert (seen.mean(0) - EULER).abs().max() < 5 * math.pi / math.sqrt(6 * len(seen))


@pytest.mark.parametrize("sizes", [{}, {"node_steps": 3, "node_multiplier": 2}, {"steps": 3, "multiplier": 1}])
def test_a_drawn_cell_is_its_found_network_and_decided_it_is_the_derived_one(sizes):
    net = cell(**sizes)
    gdas = GDAS(generator(6), pairs=True).attach(net)
    inputs, seen = features(), set()
    for _ in range(6):
        gdas.draw(ARCHITECTURE)
        genotype = drawn_genotype(net)
        assert torch.equal(net(inputs), found_cell(net, genotype)(inputs))
        seen.add(genotype)
    assert len(seen) > 1
    gdas.decide()
    assert drawn_genotype(net) == argmax(net)
    assert not torch.is_grad_enabled() or torch.equal(net(inputs), found_cell(net, argmax(net))(inputs))


def test_gradients_of_pairs_against_finite_differences_with_the_noise_held():
    """d/dlogits of <soft_1, <s_k, a>> + <soft_2, <s_k, b>> for arguments x, y and the loss <x, a> + <y, b>."""
    net = cell(steps=2, multiplier=1)
    edges, temperature = net.edges.double(), 0.8
    gdas = GDAS(generator(8), temperature=(temperature, temperature), gumbel_samples=3, pairs=True).attach(net)
    gdas.draw(ARCHITECTURE)
    states = features(3, dtype=torch.float64)
    states.append(torch.randn_like(states[0]))
    a, b = torch.randn_like(states[0]), torch.randn_like(states[0])
    x, y = edges(states, 1)
    first, second = edges.choice.drawn.pairs[1]
    assert torch.equal(x, states[first]) and torch.equal(y, states[second])
    ((x * a).sum() + (y * b).sum()).backward()
    start, count = edges.counts[0], edges.counts[1]
    eligible = edges.choice.pairs.eligible(1, list(edges.choice.drawn.pairs[:1]))

    def expected(logits):
        scores, total = pair_scores(edges.choice, logits)[start : start + count], 0.0
        for noise in gdas._noises[edges.choice.key]:
            perturbed = (scores + noise[start : start + count]) / temperature
            one = sorted({i for i, _ in eligible})
            two = sorted(j for i, j in eligible if i == first)
            for allowed, other in ((one, a), (two, b)):
                weights = perturbed[allowed].softmax(0)
                total += sum(w * (states[k] * other).sum() for w, k in zip(weights, allowed, strict=True)) / 3
        return total.item()

    logits = edges.logits.detach()
    for row in range(start, start + count):
        for column in range(2):
            step = torch.zeros_like(logits)
            step[row, column] = 1e-6
            slope = (expected(logits + step) - expected(logits - step)) / 2e-6
            assert edges.logits.grad[row, column].item() == pytest.approx(slope, abs=1e-6)
    assert not edges.logits.grad[:start].any()


def test_what_was_not_drawn_keeps_its_bits():
    net = cell().train()
    gdas = GDAS(generator(9), pairs=True).attach(net)
    adam = torch.optim.Adam([p for name, p in net.named_parameters() if "ops." in name], lr=0.1)
    for _ in range(4):
        gdas.draw(WEIGHTS)
        before = {name: p.clone() for name, p in net.named_parameters() if ".ops." in name}
        adam.zero_grad()
        net(features(batch=4)).pow(2).sum().backward()
        adam.step()
        drawn = {
            f"nodes.{i}.ops.{step}.{node.choice.candidates[k]}."
            for i, node in enumerate(net.nodes)
            for step, k in enumerate(node.choice.drawn.active)
        }
        for name, p in net.named_parameters():
            if ".ops." in name and not name.startswith(tuple(drawn)):
                assert torch.equal(p, before[name])


def test_pairs_resume_and_are_the_same_for_equal_generators():
    first, second = cell(), cell()
    one, other = GDAS(generator(5), pairs=True).attach(first), GDAS(generator(7), pairs=True).attach(second)
    one.draw(ARCHITECTURE)
    other.load_state_dict(one.state_dict())
    for phase in (WEIGHTS, ARCHITECTURE, WEIGHTS):
        one.draw(phase)
        other.draw(phase)
        assert [c.drawn for c in first.choices()] == [c.drawn for c in second.choices()]


def test_the_strongest_pair_has_the_larger_state_first():
    choice = cell(**SIZES).edges.choice
    weights = torch.tensor([0.1, 0.6, 0.5, 0.2, 0.3, 0.3, 0.3, 0.3, 0.9])
    assert strongest_pairs(choice.pairs, weights) == [(1, 2), (0, 1)]


def test_edges_that_compete_have_not_collapsed():
    net = cell(steps=1, multiplier=1)
    GDAS(generator(), pairs=True).attach(net)
    with torch.no_grad():
        net.edges.logits.zero_()
        net.nodes[0].gammas[:, net.nodes[0].choice.candidates.index("ConcatFC")] = 1.0
    rows = net.probabilities()["alphas, step 1"]
    assert [row["skip"] for row in rows.values()] == pytest.approx([1 / INPUTS] * INPUTS)
    wider = {"alphas, step 1": {f"state {k}": {"none": 0.9, "skip": 0.1} for k in range(10)}}
    assert collapse_warnings(argmax(net), wider) == []
    cut = {"alphas, step 1": {f"state {k}": {"none": 0.9, "skip": 0.1} for k in range(9)}}
    assert collapse_warnings(argmax(net), cut)


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match="gumbel_samples=0: it must be at least 1"):
        build_strategy("gdas", None, 0, ["gumbel_samples=0"])
    with pytest.raises(UserError, match="do not have two arguments"):
        build_strategy("gdas", None, 0, ["pairs=True"]).attach(encoder_decoder())
