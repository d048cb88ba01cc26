"""The networks of a small space: each is listed once, and equivalent ones compute the same function."""

import dataclasses
import random

import pytest
import torch

from models.bmnas.cells import FusionCell
from models.bmnas.equivalence import SYMMETRIC, all_genotypes, canonical
from models.bmnas.genotype_space import FusionSpace
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS, STEP_OPERATIONS
from models.genotypes import FusionGenotype

SIZES = {"steps": 2, "multiplier": 2, "node_steps": 1, "node_multiplier": 1}
SPACE = FusionSpace(PUBLISHED_STEP_OPERATIONS, 4, SIZES)


def test_the_space_has_every_network_once():
    found = all_genotypes(SPACE)
    # Two of six pairs, in any order. Each step has one of four operations; attention has two directions.
    assert len(found) == len(set(found)) == 15 * 5 * 5
    assert all(canonical(genotype) == genotype for genotype in found)
    drawn = {canonical(SPACE.sample(random.Random(seed))) for seed in range(3000)}
    assert drawn <= set(found) and len(drawn) > 340


def swapped_steps(genotype):
    edges, steps = genotype.edges, genotype.steps
    return FusionGenotype((*edges[2:], *edges[:2]), steps[::-1], genotype.concat)


def test_steps_may_change_places():
    genotype = SPACE.sample(random.Random(1))
    assert canonical(swapped_steps(genotype)) == canonical(genotype)
    first, second = (FusionCell.fixed(g, 4, 6, 1, 0.0) for g in (genotype, swapped_steps(genotype)))
    for node, other in zip(first.nodes, reversed(second.nodes), strict=True):
        node.load_state_dict(other.state_dict())
    features = [torch.randn(5, 6, 1) for _ in range(4)]
    outputs, others = first(features), second(features)
    torch.testing.assert_close(outputs.unflatten(1, (2, 6)), others.unflatten(1, (2, 6)).flip(1))


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
def test_arguments_of_symmetric_operations_may_change_places(name):
    torch.manual_seed(0)
    operation = STEP_OPERATIONS[name](4, 1, 0.0)
    x, y = torch.randn(2, 7, 4, 1)
    outputs = operation(x, y)
    if hasattr(operation, "conv"):  # weights on [x, y]: the two halves of the inputs must be swapped too
        weight = operation.conv.weight.data
        operation.conv.weight.data = torch.cat([weight[:, 4:], weight[:, :4]], dim=1)
    torch.testing.assert_close(operation(y, x), outputs)


def test_the_direction_of_attention_counts():
    genotype = next(g for g in all_genotypes(SPACE) if g.steps[0].inner_steps == ("ScaleDotAttn",))
    first = dataclasses.replace(genotype.steps[0], inner_edges=genotype.steps[0].inner_edges[::-1])
    other = dataclasses.replace(genotype, steps=(first, genotype.steps[1]))
    assert canonical(other) != canonical(genotype)


def test_chained_cells_are_refused():
    with pytest.raises(ValueError, match="chained"):
        all_genotypes(FusionSpace(PUBLISHED_STEP_OPERATIONS, 4, SIZES, chain=True))
    edges = tuple(("skip", state) for state in (0, 1, 2, 4))
    chained = FusionGenotype(edges, SPACE.sample(random.Random(0)).steps, (4, 5))
    with pytest.raises(ValueError, match="chained"):
        canonical(chained)
