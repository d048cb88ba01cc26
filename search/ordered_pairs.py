"""Ordered pairs of edges: which states are the first and the second argument of each step.

The published search of BM-NAS gives both arguments of a step the same mixture of states, while the network that it
derives has two different ones in order. Strategies that draw pairs close this gap; it is our own addition. The edges of
a step compete: with s the log odds of letting a state pass, the probability of being the first argument is
p = softmax(s) over the states that the step may take, and the pair (i, j) has p_i p_j / (1 - p_i), or with fewer
eligible partners of i, p_i p_j / sum of the partners' p (Gumbel top-2, Kool et al., ICML 2019).
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
    """Of every edge the probability of being a first argument, among all states that the step may ever take.

    Args:
        choice: Has `ArgumentPairs` and two candidates.
        logits: float (rows, 2).

    Returns:
        float (rows, 2): for the candidate that lets the state pass this probability, for the other the rest.
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
    """States that can be the first argument, ascending."""
    return sorted({first for first, _ in eligible})


def partners(eligible: list[tuple[int, int]], first: int) -> list[int]:
    """States that can be the second argument beside ``first``, ascending."""
    return sorted(second for one, second in eligible if one == first)


def top_pairs(pairs: ArgumentPairs, scores: torch.Tensor) -> list[tuple[int, int]]:
    """For each step the state with the largest score (rows,), and the largest of its partners."""

    def top(step, eligible):
        values = scores.split(pairs.counts)[step].tolist()
        first = max(firsts(eligible), key=values.__getitem__)
        return first, max(partners(eligible, first), key=values.__getitem__)

    return _of_steps(pairs, top)


def strongest_pairs(pairs: ArgumentPairs, weights: torch.Tensor) -> list[tuple[int, int]]:
    """For each step the eligible pair with the largest product of ``weights`` (rows,), the larger one first."""

    def strongest(step, eligible):
        values = weights.split(pairs.counts)[step]
        # The lower index comes first of equals, as in a derivation.
        best = max((p for p in eligible if p[0] < p[1]), key=lambda p: (values[p[0]] * values[p[1]]).item())
        return tuple(sorted(best, key=lambda state: -values[state].item()))

    return _of_steps(pairs, strongest)


def uniform_pairs(pairs: ArgumentPairs, generator: torch.Generator | None) -> list[tuple[int, int]]:
    """For each step one of its eligible ordered pairs, all equally likely."""

    def draw(_, eligible):
        return eligible[int(torch.randint(len(eligible), (1,), generator=generator))]

    return _of_steps(pairs, draw)


def draw_of(choice: Choice, pairs: list[tuple[int, int]], gated: bool = False) -> Draw:
    """The `Draw` of the edges in ``pairs``, one pair for each step."""
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
