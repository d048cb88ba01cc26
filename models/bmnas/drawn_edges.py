"""Skips work on states that a draw leaves unread, without changing any output or gradient.

If edges are drawn one by one (not in pairs), a step reads a sum of states that are multiplied by one or zero. A state
times zero adds nothing to the output, but it gives parameters a gradient of zero instead of None, and an optimiser with
momentum treats the two differently. These gradients are therefore set without computing them: `sum_of_taken` leaves
zero terms out where it can, and `with_zero_gradients` replaces the backward pass of features that no step reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from search.choice import Choice


def taken_states(choice: Choice) -> list[set[int]] | None:
    """For each step, the states that a draw lets pass with weight one.

    Args:
        choice: The `Choice` of edges, which has `search.choice.ArgumentPairs`.

    Returns:
        One set of states per step; None if nothing was drawn or the strategy's weights decide.
    """
    drawn = choice.drawn
    if drawn is None or drawn.gated or drawn.pairs:
        return None
    active = iter(drawn.active)
    chosen, counts = choice.pairs.chosen, choice.pairs.counts
    return [{s for s, k in enumerate(itertools.islice(active, count)) if k == chosen} for count in counts]


def unread_sources(choice: Choice) -> frozenset[int]:
    """Input states that no step reads in the next forward pass, because of a draw."""
    taken = taken_states(choice)
    return frozenset() if taken is None else _unread(choice, taken)


def _unread(choice, taken):
    return frozenset(range(choice.pairs.counts[0])).difference(*taken)


def sum_of_taken(choice: Choice, states: Sequence[torch.Tensor], taken: Sequence[set[int]], step: int) -> torch.Tensor:
    """Sum of the states that a step reads. States that would otherwise have no gradient stay part of the graph.

    To this end, states that the step does not read are added after multiplication by zero. Input states among them are
    left out if another step reads them or if they need no gradients.

    Args:
        choice: See `taken_states`.
        states: All states that the step could read, (N, C, L) each.
        taken: The result of `taken_states`.
        step: Index of the step.
    """
    unread, own = _unread(choice, taken), taken[step]
    idle = {s for s in range(choice.pairs.counts[0]) if s not in unread or not states[s].requires_grad}
    parts = [(x if s in own else x * 0.0) for s, x in enumerate(states) if s in own or s not in idle]
    return sum(parts) if parts else torch.zeros_like(states[0])  # type: ignore[return-value]


def with_zero_gradients(output: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Return ``output`` with a backward pass that also gives ``parameters`` gradients of zero."""
    return _ZeroGradients.apply(output, *parameters)


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, output, *parameters):
        ctx.parameters = parameters
        return output.view_as(output)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, *map(torch.zeros_like, ctx.parameters)
