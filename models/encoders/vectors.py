"""A small network on vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.encoders.base import Staged


class VectorNet(Staged):
    """Hidden layers, each linear, layer norm, ReLU; tap 0 is the vector itself.

    Layer norm, since batch norm would make a feature depend on the other samples of a batch. The vector itself is
    offered too: a fusion can read it without a layer in between, and it is as good before training as after.

    Args:
        size: d, length of the vectors.
        widths: Sizes of the hidden layers; None: two layers, see `default_width`.
        taps, num_outputs, dropout: See `models.encoders.base.Staged`.
    """

    cacheable = False  # computing its features is faster than reading them

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
        """All."""
        return tuple(range(available))

    def forward(self, inputs: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """The first ``count`` tapped features (N, width) of vectors (N, d)."""
        wanted = self.wanted(count)
        states = [inputs.to(self.dtype)]
        for stage in self.stages[: wanted[-1]]:
            states.append(stage(states[-1]))
        return [states[tap] for tap in wanted]


def default_width(size: int) -> int:
    """Width of a hidden layer for vectors of ``size`` numbers: the next power of two, between 64 and 256."""
    return min(256, max(64, 1 << (size - 1).bit_length()))
