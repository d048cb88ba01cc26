"""A temporal convolutional network for sequences of any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.encoders.base import Staged, lengths_mask, segment_maxima

KERNEL = 5
DEFAULT_WIDTHS = (64, 64, 128)


class TimeConvolution(nn.Module):
    """Convolution along time, layer norm over channels, ReLU. Padding stays zero, so it does not affect the result.

    Args:
        inputs, outputs: Number of channels.
        dilation: Dilation of the kernel.
        dropout: Dropout rate.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, KERNEL, dilation=dilation, padding=dilation * (KERNEL // 2))
        self.norm = nn.LayerNorm(outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map states (N, inputs, T) to (N, outputs, T), zero where ``mask``, bool (N, 1, T), is False."""
        states = self.norm(self.conv(states).transpose(1, 2)).transpose(1, 2).relu()
        return self.dropout(states) * mask


class SequenceNet(Staged):
    """Convolutions along time whose dilation doubles. Features are maxima over segments of the true length.

    Args:
        size: Length d of the vector of a time step.
        widths: Number of channels of each convolution; None: `DEFAULT_WIDTHS`.
        pool: Size (rows, columns) of the features, see `segment_maxima`.
        taps: See `Staged`; None: all convolutions.
        num_outputs, dropout: See `Staged`.
        name: Name of the encoder, for messages.
    """

    def __init__(
        self,
        size: int,
        widths: Sequence[int] | None,
        pool: tuple[int, int],
        taps: Sequence[int] | None,
        num_outputs: int,
        dropout: float,
        name: str = "conv",
    ) -> None:
        widths = list(widths or DEFAULT_WIDTHS)
        sizes = [size, *widths]
        stages = [
            TimeConvolution(inputs, outputs, 2**i, dropout)
            for i, (inputs, outputs) in enumerate(zip(sizes, widths, strict=False))
        ]
        super().__init__(stages, sizes, taps, num_outputs, dropout, name)
        self.pool = pool

    @staticmethod
    def default_taps(available: int) -> tuple[int, ...]:
        """All taps except the input."""
        return tuple(range(1, available))

    def forward(self, inputs: dict[str, torch.Tensor], count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` tapped features, (N, C, *pool) each.

        Args:
            inputs: ``values``, (N, T, d), and ``length``, int64 (N,): the number of real time steps of each sample.
            count: Number of features; None: all.
        """
        return self.features(inputs["values"].transpose(1, 2), inputs["length"], count)

    def features(self, states: torch.Tensor, length: torch.Tensor, count: int | None) -> list[torch.Tensor]:
        """As `forward`, for states (N, d, T)."""
        wanted, mask = self.wanted(count), lengths_mask(length, states.shape[2])[:, None]
        found = [states.to(self.dtype) * mask]
        for stage in self.stages[: wanted[-1]]:
            found.append(stage(found[-1], mask))
        return [segment_maxima(found[tap], length, self.pool) for tap in wanted]

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return outputs (N, num_outputs), computed from the maximum of the last feature over time."""
        return self.classifier(features[-1].flatten(2).amax(2))
