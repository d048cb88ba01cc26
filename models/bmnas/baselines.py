"""Baselines whose fusion has no architecture to search. (Late fusion is in `models.bmnas.late_fusion`.)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from models.bmnas.late_fusion import LateFusion


class ConcatFusion(LateFusion):
    """Baseline: concatenates the last feature of each modality and applies a hidden layer.

    Together with the network's classifier this is an MLP on the concatenation: linear, ReLU, dropout, linear.

    Args:
        last: Index of the last feature of each modality.
        channels, length: C and L of the features.
        dropout: Dropout rate after the hidden layer.
    """

    def __init__(self, last: Iterable[int], channels: int, length: int, dropout: float) -> None:
        super().__init__(last, channels, length)
        inputs, self.width = self.width, 2 * channels
        self.hidden = nn.Sequential(nn.Linear(inputs, self.width), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the features, of which the last ones (N, C, L) are read, to (N, 2 * C)."""
        return self.hidden(super().forward(features))
