"""Precomputed features: the data contain the layers of a network that ran elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.encoders.base import Encoder


class Layers(Encoder):
    """Returns its input as features; only the head has weights.

    Args:
        shapes: Shape of each layer's feature, channels first: (C,), (C, T) or (C, H, W).
        taps, num_outputs, dropout: See `models.encoders.base.Encoder`.
    """

    cacheable = False  # the features are in the data
    deterministic_features = True
    source = "features in the data"

    def __init__(
        self, shapes: Sequence[Sequence[int]], taps: Sequence[int] | None, num_outputs: int, dropout: float
    ) -> None:
        super().__init__([shape[0] for shape in shapes], taps, num_outputs, dropout, "layers")

    @staticmethod
    def default_taps(available: int) -> tuple[int, ...]:
        """All layers."""
        return tuple(range(available))

    def forward(self, inputs: dict[str, torch.Tensor], count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` (None: all) tapped features of ``inputs``, a dict "0", "1", ... -> (N, C, ...)."""
        kind = self.dtype
        return [inputs[str(tap)].to(kind) for tap in (self.taps if count is None else self.taps[:count])]

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return outputs (N, num_outputs), computed from the maximum of the last feature over its positions."""
        return self.classifier(features[-1].flatten(2).amax(2) if features[-1].dim() > 2 else features[-1])

    def modules_of(self, count: int) -> list[nn.Module]:
        """The modules that features depend on: none."""
        return []
