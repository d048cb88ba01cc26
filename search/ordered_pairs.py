"""Ordered pairs of edges: which states are the first and the second argument of each step.

The published search of BM-NAS passes the same mixture of states as both arguments of a step, while the derived network
has two different states in order. Strategies that draw pairs close this gap; this is our own addition. The edges of a
step compete: with s the log odds of letting a state pass, the probability of being the first argument is p = softmax(s)
over the states that the step may read. The pair (i, j) has probability p_i p_j / (1 - p_i), or, if i has fewer eligible
partners, p_i p_j / (sum of the partners' p) (Gumbel top-2, Kool et al., ICML 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from search.choice import ArgumentPairs, Choice, Draw


def pair_scores(choice: Choice, logits: torch.Tensor) -> torch.Tensor:
    """Log odds (rows,) of letting a state pass, from logits (rows, n)."""
    chosen = choice.pairs.chosen
    others = [k for k in range(logits.shape[-1]) if k != chosen]
    return logits[:, chosen] - logits[:, others].logsumexp(-1)


def probabilities(choice: Choice, logits: torch.Tensor) -> torch.Tensor:
    """Probability that an edge is the first argument of its step, among all states that the step may ever read.

    Args:
        choice: A `Choice` with `ArgumentPairs` and two candidates.
        logits: float (rows, 2).

    Returns:
        float (rows, 2): this probability for the candidate that lets the state pass, and its complement for the other.
    """
    parts = []
    for step, scores in enumerate(pair_scores(choice, logits).split(choice.pairs.counts)):
        allowed = firsts(choice.pairs.eligible(step, []))
        part = torch.zeros_like(scores)
        part[allowed] = scores[allowed].softmax(0)
        parts.append(part)
    taken = torch.cat(parts)
    result = (1 - taken).unsqueeze(-1).repeat(1, logits.shape[-1])
    result[:, choice.pairs.chosen] = taken
    return result


def firsts(eligible: list[tuple[int, int]]) -> list[int]:
    """States that can be the first argument, in ascending order."""
    return sorted({first for first, _ in eligible})


def partners(eligible: list[tuple[int, int]], first: int) -> list[int]:
    """States that can be the second argument if ``first`` is the first one, in ascending order."""
    return sorted(second for one, second in eligible if one == first)


def top_pairs(pairs: ArgumentPairs, scores: torch.Tensor) -> list[tuple[int, int]]:
    """For each step, the state with the largest score, and its partner with the largest score; ``scores`` (rows,)."""

    def top(step, eligible):
        values = scores.split(pairs.counts)[step].tolist()
        first = max(firsts(eligible), key=values.__getitem__)
        return first, max(partners(eligible, first), key=values.__getitem__)

    return _of_steps(pairs, top)


def strongest_pairs(pairs: ArgumentPairs, weights: torch.Tensor) -> list[tuple[int, int]]:
    """For each step, the eligible pair with the largest product of ``weights`` (rows,); the larger weight is first."""

    def strongest(step, eligible):
        values = weights.split(pairs.counts)[step]
        # Ties go to the lower indices, as in a derivation.
        best = max((p for p in eligible if p[0] < p[1]), key=lambda p: (values[p[0]] * values[p[1]]).item())
        return tuple(sorted(best, key=lambda state: -values[state].item()))

    return _of_steps(pairs, strongest)


def uniform_pairs(pairs: ArgumentPairs, generator: torch.Generator | None) -> list[tuple[int, int]]:
    """For each step, one of its eligible ordered pairs, drawn uniformly."""

    def draw(_, eligible):
        return eligible[int(torch.randint(len(eligible), (1,), generator=generator))]

    return _of_steps(pairs, draw)


def draw_of(choice: Choice, pairs: list[tuple[int, int]], gated: bool = False) -> Draw:
    """The `Draw` in which only the edges of ``pairs``, one pair for each step, let their states pass."""
    other = next(k for k in range(len(choice.candidates)) if k != choice.pairs.chosen)
    active = tuple(
        choice.pairs.chosen if state in pair else other
        for count, pair in zip(choice.pairs.counts, pairs, strict=True)
        for state in range(count)
    )
    return Draw(active, gated=gated, pairs=tuple(pairs))


def _of_steps(
    pairs: ArgumentPairs, choose: Callable[[int, list[tuple[int, int]]], tuple[int, int]]
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for step in range(len(pairs.counts)):
        found.append(choose(step, pairs.eligible(step, found)))
    return found
