"""Fusions without an architecture to search: baselines for the searched ones. (Late fusion is in `late_fusion`.)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from models.bmnas.late_fusion import LateFusion


class ConcatFusion(LateFusion):
    """Baseline: concatenates the last feature of each modality and passes it through a hidden layer.

    The classifier after it makes this a network of two layers on the concatenation: linear, ReLU, dropout, linear.

    Args:
        last: Indices of the modalities' last features.
        channels, length: C and L of the features.
        dropout: Dropout rate after the hidden layer.
    """

    def __init__(self, last: Iterable[int], channels: int, length: int, dropout: float) -> None:
        super().__init__(last, channels, length)
        inputs, self.width = self.width, 2 * channels
        self.hidden = nn.Sequential(nn.Linear(inputs, self.width), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the chosen features (N, C, L) to (N, 2 C)."""
        return self.hidden(super().forward(features))
