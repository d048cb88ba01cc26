"""What a draw leaves unread: work that changes neither an output nor a gradient, to the bit, is not done.

Where edges are drawn one by one (not in pairs), a step reads a sum of states times one or zero. A state times zero only
gives parameters gradients of zero, which optimisers with momentum tell from none. So these are given without computing
them: `sum_of_taken` leaves zeros out, and `with_zero_gradients` stands for the backward pass of features that no step
reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from search.choice import Choice


def taken_states(choice: Choice) -> list[set[int]] | None:
    """For each step the states that a draw lets pass with weight one; None: the strategy's weights decide.

    Args:
        choice: The `Choice` of edges, which has `search.choice.ArgumentPairs`.
    """
    drawn = choice.drawn
    if drawn is None or drawn.gated or drawn.pairs:
        return None
    active = iter(drawn.active)
    # The range comes first: where it ends, nothing of the next step is consumed.
    chosen, counts = choice.pairs.chosen, choice.pairs.counts
    return [{s for s, k in zip(range(count), active, strict=False) if k == chosen} for count in counts]


def unread_sources(choice: Choice) -> frozenset[int]:
    """States before the first step that no step reads in the next forward pass, because of a draw."""
    taken = taken_states(choice)
    return frozenset() if taken is None else _unread(choice, taken)


def _unread(choice, taken):
    return frozenset(range(choice.pairs.counts[0])).difference(*taken)


def sum_of_taken(choice: Choice, states: Sequence[torch.Tensor], taken: Sequence[set[int]], step: int) -> torch.Tensor:
    """The sum of the states that a step takes, in a graph with the parameters of all states.

    Left out are sources that another step reads, and those without gradients.

    Args:
        choice: See `taken_states`.
        states: All states that the step could read.
        taken: From `taken_states`.
        step: Number of the step.
    """
    unread, own = _unread(choice, taken), taken[step]
    idle = {s for s in range(choice.pairs.counts[0]) if s not in unread or not states[s].requires_grad}
    parts = [(x if s in own else x * 0.0) for s, x in enumerate(states) if s in own or s not in idle]
    return sum(parts) if parts else torch.zeros_like(states[0])  # type: ignore[return-value]


def with_zero_gradients(output: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """``output``, whose backward pass gives ``parameters`` gradients of zero."""
    return _ZeroGradients.apply(output, *parameters)


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, output, *parameters):
        ctx.parameters = parameters
        return output.view_as(output)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, *map(torch.zeros_like, ctx.parameters)
