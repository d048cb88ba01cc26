"""Which genotypes of small cells give the same network, and all genotypes up to that.

Two steps that read input features alone may change places, and so may the arguments of an operation that treats both
alike: such genotypes give networks that compute the same once their weights are permuted, and initial weights are
drawn independently. So their trainings have the same distribution, and a table needs one of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from models.genotypes import FusionGenotype, StepGenotype, ordered_eligible_pairs, tail_indices

if TYPE_CHECKING:
    from models.bmnas.genotype_space import FusionSpace

# Operations that treat both arguments alike, perhaps after a permutation of their weights.
SYMMETRIC = frozenset({"Sum", "Product", "Max", "Average", "LinearGLU", "ConcatFC"})
ORDERS = ((0, 1), (1, 0))


def canonical(genotype: FusionGenotype) -> FusionGenotype:
    """The genotype that stands for all that give the same network, without names of inputs.

    Raises:
        ValueError: the cell is not one of single inner steps that read input features and are all concatenated.
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
    # By operation first, so that networks with the same operations have them in the same order.
    steps.sort(key=lambda pair: (pair[1].inner_steps, pair[1].inner_edges, pair[0]))
    edges = tuple(edge for pair, _ in steps for edge in pair)
    return FusionGenotype(edges, tuple(step for _, step in steps), genotype.concat)


def all_genotypes(space: FusionSpace) -> list[FusionGenotype]:
    """Every network of a space of single inner steps, once: sorted canonical genotypes; see `genotype_counts`."""
    return sorted(
        genotype_counts(space), key=lambda g: ([(step.inner_steps, step.inner_edges) for step in g.steps], g.edges)
    )


def genotype_counts(space: FusionSpace) -> Counter[FusionGenotype]:
    """Canonical genotype -> how many of the genotypes of a space of single inner steps give its network.

    Raises:
        ValueError: as `canonical`, or the space has chained cells.
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
    found: Counter[FusionGenotype] = Counter()
    for pairs in _pair_sequences(count, steps):
        edges = tuple(("skip", state) for pair in pairs for state in pair)
        for chosen in itertools.product(nodes, repeat=steps):
            found[canonical(FusionGenotype(edges, chosen, concat))] += 1
    return found


def _pair_sequences(count: int, steps: int) -> list[tuple[tuple[int, int], ...]]:
    """Pairs j < k of input features for each step, as a search derives them."""
    sequences: list[tuple[tuple[int, int], ...]] = [()]
    for step in range(steps):
        sequences = [
            (*earlier, pair)
            for earlier in sequences
            for pair in ordered_eligible_pairs(count, step, earlier)
            if pair[0] < pair[1]
        ]
    return sequences
