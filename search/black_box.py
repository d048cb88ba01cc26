"""Search by trainings: propose a genotype, be told what its training gave. Knows no task, network or search space.

`RandomTrainings` draws uniformly, the baseline of Li and Talwalkar (UAI 2019). `Evolution` is regularised evolution
(Real et al., AAAI 2019): the best of a random sample of the population is mutated, the child joins, and the oldest
leaves. With several objectives the best is decided by non-dominated sorting and crowding (`search.pareto`).

What is proposed depends on the seed and on what was told alone: a proposal draws from a generator of its own, made
from the seed and its number. So all processes propose the same, and a resumed search goes on as it would have.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple, Protocol

from search.pareto import Values, ranks

# Draws in search of a genotype that was not trained yet; a small space may have no other.
ATTEMPTS = 100


class GenotypeSpace(Protocol):
    """What genotypes there are."""

    def sample(self, rng: random.Random) -> Any:
        """A genotype, all equally likely at each of its decisions."""

    def mutate(self, rng: random.Random, genotype: Any) -> Any:
        """``genotype`` with one decision changed; the same if there is nothing to change."""


class Told(NamedTuple):
    """A training that is over: its genotype, and its objectives, larger is better."""

    genotype: Any
    values: Values


class BlackBox:
    """Base: override `propose`.

    Args:
        space: The `GenotypeSpace`.
        seed: Of all draws.
    """

    def __init__(self, space: GenotypeSpace, seed: int) -> None:
        self.space, self.seed = space, seed
        self.history: list[Told] = []

    def ask(self) -> Any:
        """The genotype to train next; the same until the next `tell`."""
        rng = random.Random(f"{self.seed} {len(self.history)}")
        trained = [told.genotype for told in self.history]
        for _ in range(ATTEMPTS):
            genotype = self.propose(rng)
            if genotype not in trained:
                break
        return genotype

    def tell(self, genotype: Any, values: Values) -> None:
        """Take the result of a training into account."""
        self.history.append(Told(genotype, values))

    def propose(self, rng: random.Random) -> Any:
        """A genotype, drawn by ``rng``."""
        raise NotImplementedError


class RandomTrainings(BlackBox):
    """Uniform draws."""

    def propose(self, rng: random.Random) -> Any:
        """A draw from the space."""
        return self.space.sample(rng)


class Evolution(BlackBox):
    """Regularised evolution, see the module.

    Args:
        space, seed: See `BlackBox`.
        population: Genotypes that live at a time: the last ones.
        tournament: Of these, how many compete to be the parent.
    """

    def __init__(self, space: GenotypeSpace, seed: int, population: int = 10, tournament: int = 3) -> None:
        super().__init__(space, seed)
        self.population, self.tournament = population, tournament

    def propose(self, rng: random.Random) -> Any:
        """A draw from the space while the first population is made, then a child."""
        if len(self.history) < self.population:
            return self.space.sample(rng)
        living = self.history[-self.population :]
        keys = ranks([told.values for told in living])
        # Of equals the youngest, which stays longest.
        drawn = rng.sample(range(len(living)), self.tournament)
        parent = max(drawn, key=lambda i: (keys[i], i))
        return self.space.mutate(rng, living[parent].genotype)
