"""Runs one architecture at a time: every choice is decided, and every step has an ordered pair of arguments."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from search.choice import Choice, Draw
from search.ordered_pairs import draw_of, strongest_pairs, uniform_pairs
from search.relaxation import Relaxation


class FixedPath(Relaxation):
    """Only the drawn candidates run, with weight one; the supernet computes exactly what the derived network would."""

    ordered_pairs = True

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """One-hot weights of the drawn candidates."""
        assert choice.drawn is not None  # `draw` comes first
        active = torch.tensor(choice.drawn.active, device=logits.device).view(logits.shape[:-1])
        return torch.nn.functional.one_hot(active, logits.shape[-1]).to(logits.dtype)

    def decide(self) -> None:
        """Use the most probable candidates and, where edges form pairs, the strongest pairs."""
        super().decide()
        for choice in self.choices:
            if choice.pairs is not None:
                taken = choice.probabilities()[:, choice.pairs.chosen].cpu()
                choice.drawn = draw_of(choice, strongest_pairs(choice.pairs, taken))


def draw_uniformly(choices: Iterable[Choice], generator: torch.Generator | None) -> None:
    """Draw an architecture: all candidates of a row, and all eligible pairs of a step, are equally likely."""
    for choice in choices:
        if choice.pairs is not None:
            choice.drawn = draw_of(choice, uniform_pairs(choice.pairs, generator))
            continue
        shape = choice.logits.shape
        rows = torch.randint(shape[-1], (shape[:-1].numel(),), generator=generator)
        choice.drawn = Draw(tuple(rows.tolist()))


def scores_of_path(choices: Iterable[Choice]) -> dict[str, torch.Tensor]:
    """Scores from which `search.choice.SearchSpace.discretise` derives the drawn architecture. Rows sum to one.

    The first argument of a pair has the larger score.
    """
    return {choice.key: _scores(choice, choice.drawn) for choice in choices}


def _scores(choice, drawn):
    scores = torch.zeros(choice.logits.shape)
    rows = scores.view(-1, scores.shape[-1])
    if choice.pairs is None:
        rows[range(len(rows)), list(drawn.active)] = 1.0
        return scores
    other = next(k for k in range(len(choice.candidates)) if k != choice.pairs.chosen)
    rows[:, other] = 1.0
    start = 0
    for count, pair in zip(choice.pairs.counts, drawn.pairs, strict=True):
        for state, share in zip(pair, (1.0, 0.75), strict=True):
            rows[start + state] = 0.0
            rows[start + state, choice.pairs.chosen] = share
            rows[start + state, other] = 1 - share
        start += count
    return scores
