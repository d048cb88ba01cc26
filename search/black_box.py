"""Black-box search: propose a genotype, train it, report its score. Independent of task, network and search space.

`RandomTrainings` draws uniformly, the baseline of Li and Talwalkar (UAI 2019). `Evolution` is regularised evolution
(Real et al., AAAI 2019): the best of a random sample of the population is mutated, the child joins the population, and
the oldest member leaves it. With several objectives, the best is determined by non-dominated sorting and crowding
(`search.pareto`).

A proposal depends only on the seed and on the results reported so far, since each proposal has its own generator,
seeded with the seed and the number of the proposal. All processes therefore propose the same genotypes, and a resumed
search continues as if it had not been interrupted.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple, Protocol

from search.pareto import Values, ranks

# Maximum number of draws until a genotype is found that was not trained yet. A small space may have none left.
ATTEMPTS = 100


class GenotypeSpace(Protocol):
    """A space of genotypes that can be sampled and mutated."""

    def sample(self, rng: random.Random) -> Any:
        """Draw a genotype; at each of its decisions, all options are equally likely."""

    def mutate(self, rng: random.Random, genotype: Any) -> Any:
        """Change one decision of ``genotype``; return it unchanged if nothing can be changed."""


class Told(NamedTuple):
    """A finished training: its genotype, and the values of its objectives (larger is better)."""

    genotype: Any
    values: Values


class BlackBox:
    """Base class of black-box strategies. Subclasses override `propose`.

    Args:
        space: The `GenotypeSpace`.
        seed: Seed of all draws.

    Attributes:
        history: All results that were reported, in order.
    """

    def __init__(self, space: GenotypeSpace, seed: int) -> None:
        self.space, self.seed = space, seed
        self.history: list[Told] = []

    def ask(self) -> Any:
        """Return the genotype to train next; the same one until the next `tell`."""
        rng = random.Random(f"{self.seed} {len(self.history)}")
        trained = [told.genotype for told in self.history]
        for _ in range(ATTEMPTS):
            genotype = self.propose(rng)
            if genotype not in trained:
                break
        return genotype

    def tell(self, genotype: Any, values: Values) -> None:
        """Report the result of a training.

        Args:
            genotype: The genotype that was trained.
            values: The values of its objectives (larger is better).
        """
        self.history.append(Told(genotype, values))

    def propose(self, rng: random.Random) -> Any:
        """Return a genotype, drawn with ``rng``. It is discarded if it was trained already."""
        raise NotImplementedError


class RandomTrainings(BlackBox):
    """Random search: every genotype is drawn uniformly."""

    def propose(self, rng: random.Random) -> Any:
        """Draw a genotype from the space."""
        return self.space.sample(rng)


class Evolution(BlackBox):
    """Regularised evolution, see the module.

    Args:
        space, seed: See `BlackBox`.
        population: Size of the population, which consists of the genotypes trained last.
        tournament: Number of members of the population that compete to become the parent.
    """

    def __init__(self, space: GenotypeSpace, seed: int, population: int = 10, tournament: int = 3) -> None:
        super().__init__(space, seed)
        self.population, self.tournament = population, tournament

    def propose(self, rng: random.Random) -> Any:
        """Draw a genotype from the space until the population is complete; afterwards mutate a parent."""
        if len(self.history) < self.population:
            return self.space.sample(rng)
        living = self.history[-self.population :]
        keys = ranks([told.values for told in living])
        # Among equals the youngest wins, since it stays in the population longest.
        drawn = rng.sample(range(len(living)), self.tournament)
        parent = max(drawn, key=lambda i: (keys[i], i))
        return self.space.mutate(rng, living[parent].genotype)
