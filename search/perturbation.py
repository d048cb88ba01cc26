"""Perturbation-based selection: keep what a trained supernet misses most (DARTS-PT, Wang et al., ICLR 2021).

After a mixture, in which every candidate runs, the choices of operations are visited in random order. Each candidate is
masked in turn: its weight is set to 0, and the others stay as they are. The candidate whose masking lowers the dev
score most is kept, alone and with weight 1, before the next visit. Then, step by step, each edge is masked, and the
pair that is missed most is kept. A candidate is dead if masking it changes neither score nor loss; it is only kept if
all are dead.

In a supernet of single paths (MMNas, GDAS, random search with weight sharing) nothing can be masked. There, coordinate
search improves the strongest path: visits in random order try every candidate, or pair of arguments, in place of the
current one and keep the best, with the shared weights. A candidate whose output is zero is only kept if all are zero.

A score is a tuple; larger is better, and later entries break ties.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from search.choice import Choice, Draw
from search.ordered_pairs import draw_of, firsts, strongest_pairs
from search.paths import FixedPath, scores_of_path
from search.relaxation import Relaxation
from util.distributed import gather

logger = logging.getLogger("mdarts")

Score = tuple[float, ...]


def perturbation(
    space: Any,
    relaxation: Relaxation,
    score: Callable[[], Score],
    generator: torch.Generator,
    remember: Callable[[Callable[[], Sequence]], Sequence] = lambda compute: compute(),
) -> tuple[Any, list[str]]:
    """Select an architecture from a trained supernet, whose weights do not change.

    Args:
        space: A `search.choice.SearchSpace`.
        relaxation: The `Relaxation` that it was trained with.
        score: Function without arguments that returns the dev score of the space as it is relaxed at the time.
        generator: Draws the order of the visits.
        remember: Called with a function that computes a sequence of numbers. It returns this sequence, or the one
            remembered from an interrupted selection.

    Returns:
        (architecture, descriptions of the visits).
    """
    relaxation.decide()
    choices = space.choices()
    if relaxation.runs_all or any(choice.drawn is None for choice in choices):
        return _Masking(space, relaxation, lambda: tuple(remember(score)), generator).select()
    return _Coordinates(space, score, generator, remember).select()


class _Masked(Relaxation):
    """A trained mixture in which some candidates are masked, and some rows are reduced to one candidate."""

    def __init__(self, trained):
        super().__init__()
        self.trained, self.ordered_pairs = trained, trained.ordered_pairs
        # (key, row) -> the candidate that is kept; the set of masked (key, row, candidate).
        self.kept: dict[tuple[str, int], int] = {}
        self.masked: set[tuple[str, int, int]] = set()

    def weights(self, choice, logits):
        weights = self.trained.weights(choice, logits).clone()
        rows = weights.view(-1, weights.shape[-1])
        for key, row, candidate in self.masked:
            if key == choice.key:
                rows[row, candidate] = 0.0
        return weights

    def combine(self, choice, candidates, logits, row=None, gates=None):
        kept = self.kept.get((choice.key, row or 0))
        return super().combine(choice, candidates, logits, row, gates) if kept is None else candidates[kept]()


class _Masking:
    """Selection after a mixture, see the module."""

    def __init__(self, space, trained, score, generator):
        self.space, self.score, self.generator, self.trained = space, score, generator, trained
        self.choices = space.choices()
        self.masked, self.visits = _Masked(trained), []
        self.scores = {choice.key: torch.zeros(choice.logits.shape) for choice in self.choices}

    def select(self):
        """Return the architecture and the descriptions of the visits."""
        for choice in self.choices:
            # `decide` may have left only the most probable candidates.
            choice.relaxation, choice.drawn = self.masked, None
        visits = [(choice, row) for choice in self.choices if choice.pairs is None for row in range(_rows(choice))]
        for index in torch.randperm(len(visits), generator=self.generator).tolist():
            self._operation(*visits[index])
        for choice in self.choices:
            if choice.pairs is not None:
                self._edges(choice)
        architecture = self.space.discretise(self.scores)
        for choice in self.choices:
            choice.relaxation = self.trained
        return architecture, self.visits

    def _operation(self, choice, row):
        candidates, whole = range(len(choice.candidates)), self.score()
        without = [self._without((choice.key, row, k)) for k in candidates]
        live = [k for k in candidates if without[k] != whole] or list(candidates)
        kept = min(live, key=without.__getitem__)
        self.masked.kept[choice.key, row] = kept
        self.scores[choice.key].view(-1, len(candidates))[row, kept] = 1.0
        self._note(f"{choice.key} row {row}: {choice.candidates[kept]}", whole, without[kept])

    def _edges(self, choice):
        pairs: list[tuple[int, int]] = []
        chosen, start = choice.pairs.chosen, 0
        for step, count in enumerate(choice.pairs.counts):
            eligible, whole = choice.pairs.eligible(step, pairs), self.score()
            states = firsts(eligible)
            without = {state: self._without((choice.key, start + state, chosen)) for state in states}
            # The edge that is missed most has the highest rank, and edges that are not missed have the lowest.
            order = sorted(states, key=lambda state: (without[state] != whole, [-x for x in without[state]]))
            ranks = {state: rank for rank, state in enumerate(order, start=1)}
            best = max((pair for pair in eligible if pair[0] < pair[1]), key=lambda p: ranks[p[0]] * ranks[p[1]])
            best = tuple(sorted(best, key=lambda state: -ranks[state]))
            dropped = set(range(count)) - set(best)
            self.masked.masked |= {(choice.key, start + state, chosen) for state in dropped}
            for state, value in zip(best, (2.0, 1.0), strict=True):
                self.scores[choice.key][start + state, chosen] = value
            self._note(f"{choice.key} step {step}: {best[0]}, {best[1]}", whole, without[best[0]])
            pairs.append(best)
            start += count

    def _without(self, mask):
        before = set(self.masked.masked)
        self.masked.masked.add(mask)
        try:
            return self.score()
        finally:
            self.masked.masked = before

    def _note(self, text, whole, without):
        self.visits.append(f"{text} ({whole[0]:.4f} with all, {without[0]:.4f} without)")
        logger.info("kept %s", self.visits[-1])


class _Watched(FixedPath):
    """A path that records whether the output of one row's operation has any non-zero element."""

    def __init__(self):
        super().__init__()
        self.row: tuple[str, int] | None = None
        self.alive: torch.Tensor | None = None

    def combine(self, choice, candidates, logits, row=None, gates=None):
        output = super().combine(choice, candidates, logits, row, gates)
        if self.row == (choice.key, row or 0):
            alive = output.detach().ne(0).any()
            self.alive = alive if self.alive is None else self.alive | alive
        return output


class _Coordinates:
    """Coordinate search from the strongest path, see the module."""

    def __init__(self, space, score, generator, remember):
        self.space, self.score, self.generator, self.remember = space, score, generator, remember
        self.choices, self.path, self.visits = space.choices(), _Watched(), []
        for choice in self.choices:
            # Edges that were decided one by one are converted to pairs.
            if choice.pairs is not None and not choice.drawn.pairs:
                taken = choice.probabilities()[:, choice.pairs.chosen].cpu()
                choice.drawn = draw_of(choice, strongest_pairs(choice.pairs, taken))
            else:
                choice.drawn = Draw(choice.drawn.active, pairs=choice.drawn.pairs)

    def select(self):
        """Return the architecture and the descriptions of the visits. The path stays drawn."""
        for choice in self.choices:
            choice.relaxation = self.path
        visits = [
            (choice, number)
            for choice in self.choices
            for number in range(_rows(choice) if choice.pairs is None else len(choice.pairs.counts))
        ]
        for index in torch.randperm(len(visits), generator=self.generator).tolist():
            self._visit(*visits[index])
        return self.space.discretise(scores_of_path(self.choices)), self.visits

    def _visit(self, choice, number):
        options = [choice.drawn, *self._others(choice, number)]
        self.path.row = (choice.key, number) if choice.pairs is None else None
        found = []
        for option in options:
            choice.drawn = option
            found.append(tuple(self.remember(self._alive_and_score)))
        # Ties go to the current option, which comes first.
        best = max(range(len(options)), key=found.__getitem__)
        choice.drawn = options[best]
        name = options[best].pairs[number] if choice.pairs else choice.candidates[options[best].active[number]]
        place = "step" if choice.pairs else "row"
        self.visits.append(f"{choice.key} {place} {number}: {name} ({found[0][1]:.4f} -> {found[best][1]:.4f})")
        logger.info("kept %s", self.visits[-1])

    def _alive_and_score(self):
        self.path.alive = None
        score = self.score()
        # None: the visit is about a pair, so no operation is watched.
        alive = self.path.alive is None or any(gather(bool(self.path.alive)))
        return float(alive), *score

    def _others(self, choice, number):
        drawn = choice.drawn
        if choice.pairs is None:
            for k in range(len(choice.candidates)):
                if k != drawn.active[number]:
                    yield Draw((*drawn.active[:number], k, *drawn.active[number + 1 :]))
            return
        for pair in choice.pairs.eligible(number, list(drawn.pairs[:number])):
            pairs = [*drawn.pairs[:number], pair, *drawn.pairs[number + 1 :]]
            later = range(number + 1, len(pairs))
            if pair != drawn.pairs[number] and all(pairs[k] in choice.pairs.eligible(k, pairs[:k]) for k in later):
                yield draw_of(choice, pairs)


def _rows(choice: Choice) -> int:
    return choice.logits.shape[:-1].numel()
