"""Random search with weight sharing: uniform draws, the found network, the best of n."""

import zlib
from collections import Counter

import pytest
import torch

from search.paths import scores_of_path
from search.random_shared import RandomShared
from search.relaxation import WEIGHTS
from search.strategies import build_strategy
from tests.search.small_spaces import cell, drawn_genotype, encoder_decoder, features, found_cell, generator
from util.cli import UserError


def test_all_architectures_are_drawn_equally_often():
    net = cell(steps=1, multiplier=1, node_steps=1)
    shared, draws = RandomShared(generator()).attach(net), 6000
    counts = Counter()
    for _ in range(draws):
        shared.draw(WEIGHTS)
        counts[tuple(choice.drawn for choice in net.choices())] += 1
    every = 12 * 2 * 4  # ordered pairs of 4 inputs, of x and y, and operations
    assert len(counts) == every
    spread = (draws / every) ** 0.5
    assert max(abs(count - draws / every) for count in counts.values()) < 5 * spread


def test_blocks_are_drawn_equally_often():
    net = encoder_decoder()
    shared, draws = RandomShared(generator(1)).attach(net), 3000
    counts = Counter()
    for _ in range(draws):
        shared.draw(WEIGHTS)
        counts.update((choice.key, choice.drawn.active[0]) for choice in net.choices())
    for choice in net.choices():
        share = 1 / len(choice.candidates)
        for k in range(len(choice.candidates)):
            assert abs(counts[choice.key, k] / draws - share) < 5 * (share * (1 - share) / draws) ** 0.5


def test_a_drawn_cell_is_its_found_network():
    net = cell(node_steps=3, node_multiplier=2)
    shared = RandomShared(generator(2)).attach(net)
    for _ in range(4):
        shared.draw(WEIGHTS)
        genotype = net.discretise(scores_of_path(net.choices()))
        assert genotype == drawn_genotype(net)
        assert torch.equal(net(features()), found_cell(net, genotype)(features()))


@pytest.mark.parametrize("make", [cell, encoder_decoder])
def test_the_best_of_n_is_derived_and_what_is_not_drawn_stays(make):
    net = make()
    before = {name: value.clone() for name, value in net.named_parameters()}
    shared, seen = RandomShared(generator(3), draws=7).attach(net), []

    def score():
        seen.append((float(zlib.crc32(str([c.drawn for c in net.choices()]).encode()) % 5), -float(len(seen))))
        drawn.append([choice.drawn for choice in net.choices()])
        return seen[-1]

    drawn = []
    told = shared.conclude(score)
    best = max(range(7), key=seen.__getitem__)
    assert len(seen) == 7 and told == {"architectures": 7, "score": seen[best][0]}
    assert [choice.drawn for choice in net.choices()] == drawn[best]
    derived = net.discretise({choice.key: choice.probabilities() for choice in net.choices()})
    assert derived == net.discretise(scores_of_path(net.choices()))
    if make is cell:
        assert derived == drawn_genotype(net)
    for choice in net.choices():
        assert torch.allclose(choice.probabilities().sum(-1), torch.ones(choice.logits.shape[:-1]))
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_it_resumes_and_needs_a_draw():
    first, second = cell(), cell()
    one, other = (RandomShared(generator(k)).attach(net) for k, net in enumerate((first, second)))
    one.draw(WEIGHTS)
    other.load_state_dict(one.state_dict())
    for shared in (one, other):
        shared.draw(WEIGHTS)
        torch.rand(2)
    assert [c.drawn for c in first.choices()] == [c.drawn for c in second.choices()]
    with pytest.raises(UserError, match="draws=0: it must be at least 1"):
        build_strategy("random-shared", None, 0, ["draws=0"])
