"""Derives an architecture from what a search has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from search.choice import SearchSpace


@torch.no_grad()
def argmax(space: SearchSpace) -> Any:
    """The architecture of the largest probabilities, as in both papers.

    Args:
        space: A `search.choice.SearchSpace`.
    """
    return space.discretise({choice.key: choice.probabilities() for choice in space.choices()})
