"""Cells that may read earlier cells (--chain_cells): derivation, random draws, found network, picture and file."""

import random

import torch

from models.bmnas.cells import SKIP, FusionCell
from models.genotypes import FusionGenotype, ordered_eligible_pairs, random_genotype
from search.derive import argmax
from search.paths import scores_of_path
from search.random_shared import RandomShared
from search.relaxation import WEIGHTS
from tests.search.small_spaces import INPUTS, SIZES, C, L, drawn_genotype, features, found_cell, generator

SPACE = {"num_inputs": 4, "steps": 3, "multiplier": 1, "node_steps": 1, "node_multiplier": 1}


def chained(**sizes):
    torch.manual_seed(0)
    return FusionCell.mixed(INPUTS, C, L, 0.0, **(SIZES | sizes), chain=True).eval()


def preferring(cell, *rows):
    """The genotype that is derived if the edges ``rows``, strongest first, are likelier than the others."""
    with torch.no_grad():
        for value, row in enumerate(reversed(rows), start=1):
            cell.edges.logits[row, SKIP] = float(value)
    return argmax(cell)


def test_a_step_takes_an_earlier_step_only_where_it_may():
    # Edges: 0 to 3 into step 0, 4 to 8 into step 1, of which 8 comes from step 0.
    assert preferring(chained(), 8, 4, 0, 1).edges == (("skip", 0), ("skip", 1), ("skip", 0), ("skip", 4))
    torch.manual_seed(0)
    released = FusionCell.mixed(INPUTS, C, L, 0.0, **SIZES)
    edges = preferring(released, 8, 4, 0, 1).edges
    assert max(index for _, index in edges) < INPUTS and edges[2] == ("skip", 0)


def test_pairs_of_a_step():
    """A pair must contain a state that no step has read; the output of the previous step is such a state."""
    assert ordered_eligible_pairs(2, 0, []) == [(0, 1), (1, 0)]
    assert ordered_eligible_pairs(2, 1, [(0, 1)]) == [(0, 1), (1, 0)]  # every pair is taken, so all are eligible again
    assert set(ordered_eligible_pairs(2, 1, [(0, 1)], chain=True)) == {(0, 2), (1, 2), (2, 0), (2, 1)}
    assert set(ordered_eligible_pairs(2, 2, [(0, 1), (0, 2)], chain=True)) >= {(2, 3), (0, 3)}


def test_random_genotypes_are_chained_only_if_they_may_be():
    draws = [random_genotype(random.Random(seed), ["Sum"], **SPACE, chain=True) for seed in range(60)]
    chains = [any(index >= 4 for _, index in genotype.edges) for genotype in draws]
    assert 20 < sum(chains) < 60
    for genotype in draws:
        genotype.check(["Sum"], 4)
        pairs = list(zip(genotype.edges[::2], genotype.edges[1::2], strict=True))
        earlier = []
        for step, ((_, first), (_, second)) in enumerate(pairs):
            assert (first, second) in ordered_eligible_pairs(4, step, earlier, chain=True)
            earlier.append((first, second))
    assert not any(
        index >= 4 for seed in range(60) for _, index in random_genotype(random.Random(seed), ["Sum"], **SPACE).edges
    )


def test_a_drawn_chain_is_its_found_network():
    net = chained(steps=3, multiplier=1)
    shared, depths = RandomShared(generator(2)).attach(net), set()
    for _ in range(8):
        shared.draw(WEIGHTS)
        genotype = net.discretise(scores_of_path(net.choices()))
        assert genotype == drawn_genotype(net)
        assert torch.equal(net(features()), found_cell(net, genotype)(features()))
        depths.add(max(index for _, index in genotype.edges) >= INPUTS)
    assert True in depths


def test_files_and_pictures_keep_chains():
    genotype = preferring(chained(), 8, 4, 0, 1)
    assert FusionGenotype.from_dict(genotype.to_dict()) == genotype
    assert genotype.used_inputs() == [0, 1]
    grey = "#f1f1f1"
    alone = FusionGenotype(genotype.edges, genotype.steps, (5,)).to_svg()
    edges = (*genotype.edges[:2], ("skip", 2), ("skip", 3))
    assert alone.count(grey) < FusionGenotype(edges, genotype.steps, (5,)).to_svg().count(grey)
