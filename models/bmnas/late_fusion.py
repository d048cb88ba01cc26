"""The late-fusion baseline of BM-NAS' tables: no cell, only the last features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from search.choice import Choice


class LateFusion(nn.Module):
    """Baseline: concatenates the last feature of each modality, for a linear classifier.

    Args:
        last: Indices of the modalities' last features.
        channels, length: C and L of the features.
    """

    edge_choice = None

    def __init__(self, last: Iterable[int], channels: int, length: int) -> None:
        super().__init__()
        self.last = list(last)
        self.width = len(self.last) * channels * length

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Concatenate the chosen features (N, C, L) into (N, len(last)*C*L)."""
        return torch.cat([features[index] for index in self.last], dim=1).flatten(1)

    def choices(self) -> list[Choice]:
        """The choices: none."""
        return []

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters: none."""
        return {}

    def uses_all_weights(self) -> bool:
        """Whether every forward pass uses all weights: yes, there are none."""
        return True
