"""Equivalence of genotypes of small cells, and the list of all genotypes up to equivalence.

Swapping two steps that only read input features, or the arguments of a symmetric operation, gives a network that
computes the same function once its weights are permuted. Initial weights are drawn independently, so trainings of both
networks have the same distribution of results, and a table of results needs only one of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from models.genotypes import FusionGenotype, StepGenotype, ordered_eligible_pairs, tail_indices

if TYPE_CHECKING:
    from models.bmnas.genotype_space import FusionSpace

# Operations that are symmetric in their arguments, possibly after a permutation of their weights.
SYMMETRIC = frozenset({"Sum", "Product", "Max", "Average", "LinearGLU", "ConcatFC"})
ORDERS = ((0, 1), (1, 0))


def canonical(genotype: FusionGenotype) -> FusionGenotype:
    """The representative of all genotypes that are equivalent to this one, without names of inputs.

    Raises:
        ValueError: some step has several inner steps, reads another step, or is not concatenated.
    """
    count = genotype.num_inputs
    reads = [index for _, index in genotype.edges]
    single = all(len(step.inner_steps) == len(step.inner_concat) == 1 for step in genotype.steps)
    if not single or max(reads) >= count or len(genotype.concat) != len(genotype.steps):
        raise ValueError(f"{genotype} has chained steps, inner chains, or steps that are not concatenated")
    steps = []
    for number, step in enumerate(genotype.steps):
        if step.inner_steps[0] in SYMMETRIC:
            step = dataclasses.replace(step, inner_edges=tuple(sorted(step.inner_edges)))
        steps.append((genotype.edges[2 * number : 2 * number + 2], step))
    # Sort by operation first, so that networks with the same operations have them in the same order.
    steps.sort(key=lambda pair: (pair[1].inner_steps, pair[1].inner_edges, pair[0]))
    edges = tuple(edge for pair, _ in steps for edge in pair)
    return FusionGenotype(edges, tuple(step for _, step in steps), genotype.concat)


def all_genotypes(space: FusionSpace) -> list[FusionGenotype]:
    """All networks of a space whose steps have one inner step each, without duplicates.

    Returns:
        Canonical genotypes, sorted.

    Raises:
        ValueError: as in `canonical`, or the space has chained cells.
    """
    if space.chain:
        raise ValueError("a space with chained cells has no canonical genotypes")
    count, steps = space.num_inputs, space.sizes["steps"]
    concat = tail_indices(count + steps, space.sizes["multiplier"])
    inner_concat = tail_indices(2 + space.sizes["node_steps"], space.sizes["node_multiplier"])
    nodes = [
        StepGenotype(tuple(("skip", state) for state in order), (name,) * space.sizes["node_steps"], inner_concat)
        for name in space.step_operations
        for order in ORDERS
    ]
    found = set()
    for pairs in _pair_sequences(count, steps):
        edges = tuple(("skip", state) for pair in pairs for state in pair)
        for chosen in itertools.product(nodes, repeat=steps):
            found.add(canonical(FusionGenotype(edges, chosen, concat)))
    return sorted(found, key=lambda g: ([(step.inner_steps, step.inner_edges) for step in g.steps], g.edges))


def _pair_sequences(count: int, steps: int) -> list[tuple[tuple[int, int], ...]]:
    """All sequences of one pair (j, k), j < k, of input features per step that a search can derive."""
    sequences: list[tuple[tuple[int, int], ...]] = [()]
    for step in range(steps):
        sequences = [
            (*earlier, pair)
            for earlier in sequences
            for pair in ordered_eligible_pairs(count, step, earlier)
            if pair[0] < pair[1]
        ]
    return sequences
