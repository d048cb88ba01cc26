"""The late-fusion baseline of BM-NAS' tables: no cell, only the last feature of each modality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from search.choice import Choice


class LateFusion(nn.Module):
    """Baseline: concatenates the last feature of each modality; the network's linear classifier follows.

    Args:
        last: Index of the last feature of each modality.
        channels, length: C and L of the features.

    Attributes:
        width: Size of the output, len(last) * C * L.
    """

    edge_choice = None

    def __init__(self, last: Iterable[int], channels: int, length: int) -> None:
        super().__init__()
        self.last = list(last)
        self.width = len(self.last) * channels * length

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Concatenate the last features (N, C, L) to (N, len(last)*C*L)."""
        return torch.cat([features[index] for index in self.last], dim=1).flatten(1)

    def choices(self) -> list[Choice]:
        """The choices: none."""
        return []

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters: none."""
        return {}

    def uses_all_weights(self) -> bool:
        """Whether every forward pass uses all weights: yes."""
        return True
