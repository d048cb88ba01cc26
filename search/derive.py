"""From what a search has learned to an architecture."""

import torch


@torch.no_grad()
def argmax(space):
    """The architecture of the largest probabilities, as published in both papers.

    Args:
        space: A `search.choice.SearchSpace`.
    """
    return space.discretise({choice.key: choice.probabilities() for choice in space.choices()})
