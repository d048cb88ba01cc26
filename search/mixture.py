"""The published relaxation of BM-NAS: the mixture of all candidates (DARTS, Liu et al., ICLR 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.relaxation import Relaxation

if TYPE_CHECKING:
    import torch

    from search.choice import Choice


class SoftmaxMixture(Relaxation):
    """out = sum_k softmax(logits)_k o_k: every candidate runs in every step.

    Args:
        generator: Unused, since nothing is drawn.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """The softmax over the candidates."""
        return logits.softmax(-1)
