"""The genotypes of BM-NAS as a space to sample and mutate, for black-box searches (`search.black_box`)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.genotypes import FusionGenotype, eligible_pairs, random_genotype


class FusionSpace:
    """All genotypes that a search can derive from a supernet of the given sizes.

    Args:
        step_operations: Names of the candidate operations.
        num_inputs: Number of input features I.
        sizes: ``steps``, ``multiplier``, ``node_steps`` and ``node_multiplier``, see `FusionGenotype.sizes`.
        inputs: Names of the features.
        chain: Whether a step may read the outputs of earlier steps.
    """

    def __init__(
        self,
        step_operations: Sequence[str],
        num_inputs: int,
        sizes: Mapping[str, int],
        inputs: Sequence[str] = (),
        chain: bool = False,
    ) -> None:
        self.step_operations, self.num_inputs = tuple(step_operations), num_inputs
        self.sizes, self.inputs, self.chain = dict(sizes), tuple(inputs), chain

    def sample(self, rng: random.Random) -> FusionGenotype:
        """Draw a random genotype, see `models.genotypes.random_genotype`."""
        space: dict[str, Any] = {**self.sizes, "inputs": self.inputs, "chain": self.chain}
        return random_genotype(rng, self.step_operations, num_inputs=self.num_inputs, **space)

    def mutate(self, rng: random.Random, genotype: FusionGenotype) -> FusionGenotype:
        """Change one edge, one operation or one inner edge. Kinds that can change are equally likely.

        If no other state exists for an inner edge, the two inner edges of the step are swapped.
        """
        kinds = [list(found) for found in (self._edges(genotype), self._operations(genotype), self._inner(genotype))]
        kinds = [found for found in kinds if found]
        return rng.choice(rng.choice(kinds)) if kinds else genotype

    def _edges(self, genotype: FusionGenotype) -> Iterator[FusionGenotype]:
        """Genotypes that differ in one edge and in which the pair of every step is eligible."""
        pairs = [(genotype.edges[2 * k][1], genotype.edges[2 * k + 1][1]) for k in range(len(genotype.steps))]
        for step, pair in enumerate(pairs):
            for other in self._eligible(step, pairs):
                changed = [*pairs[:step], other, *pairs[step + 1 :]]
                later = range(step + 1, len(pairs))
                if len({*pair, *other}) == 3 and all(changed[k] in self._eligible(k, changed) for k in later):
                    edges = tuple(("skip", state) for both in changed for state in both)
                    yield dataclasses.replace(genotype, edges=edges)

    def _eligible(self, step, pairs):
        taken = {state for pair in pairs[:step] for state in pair}
        return eligible_pairs(self.num_inputs, taken, step if self.chain else 0)

    def _operations(self, genotype: FusionGenotype) -> Iterator[FusionGenotype]:
        for number, step in enumerate(genotype.steps):
            for k, own in enumerate(step.inner_steps):
                for name in self.step_operations:
                    if name != own:
                        names = (*step.inner_steps[:k], name, *step.inner_steps[k + 1 :])
                        yield _with_step(genotype, number, inner_steps=names)

    def _inner(self, genotype: FusionGenotype) -> Iterator[FusionGenotype]:
        for number, step in enumerate(genotype.steps):
            for k in range(len(step.inner_steps)):
                (_, first), (_, second) = step.inner_edges[2 * k : 2 * k + 2]
                others = [(s, second) for s in range(2 + k) if s not in (first, second)]
                others += [(first, s) for s in range(2 + k) if s not in (first, second)]
                for pair in others or [(second, first)]:
                    own = tuple(("skip", state) for state in pair)
                    edges = (*step.inner_edges[: 2 * k], *own, *step.inner_edges[2 * k + 2 :])
                    yield _with_step(genotype, number, inner_edges=edges)


def _with_step(genotype, number, **changes):
    step = dataclasses.replace(genotype.steps[number], **changes)
    return dataclasses.replace(genotype, steps=(*genotype.steps[:number], step, *genotype.steps[number + 1 :]))
