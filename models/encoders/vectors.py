"""A small MLP for vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.encoders.base import Staged


class VectorNet(Staged):
    """An MLP: each hidden layer is linear, layer norm, ReLU, dropout. Tap 0 is the vector itself.

    It uses layer norm, since batch norm would make features depend on the other samples of a batch. The vector itself
    can be tapped too: a fusion may read it directly, and unlike the hidden layers it needs no training.

    Args:
        size: Length d of the vectors.
        widths: Sizes of the hidden layers; None: two layers of `default_width`.
        taps, num_outputs, dropout: See `models.encoders.base.Staged`.
    """

    cacheable = False  # computing the features is faster than reading them from a cache

    def __init__(
        self,
        size: int,
        widths: Sequence[int] | None,
        taps: Sequence[int] | None,
        num_outputs: int,
        dropout: float,
    ) -> None:
        widths = list(widths or [default_width(size)] * 2)
        sizes = [size, *widths]
        stages = [
            nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU(), nn.Dropout(dropout))
            for inputs, outputs in zip(sizes, widths, strict=False)
        ]
        super().__init__(stages, sizes, taps, num_outputs, dropout, "mlp")

    @staticmethod
    def default_taps(available: int) -> tuple[int, ...]:
        """All taps."""
        return tuple(range(available))

    def forward(self, inputs: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` (None: all) tapped features, (N, width) each, of vectors (N, d)."""
        wanted = self.wanted(count)
        states = [inputs.to(self.dtype)]
        for stage in self.stages[: wanted[-1]]:
            states.append(stage(states[-1]))
        return [states[tap] for tap in wanted]


def default_width(size: int) -> int:
    """Default width of a hidden layer for vectors of length ``size``: the next power of two, between 64 and 256."""
    return min(256, max(64, 1 << (size - 1).bit_length()))
