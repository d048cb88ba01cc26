"""Missing modalities: learned features that replace them, and modality dropout, which trains a network for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class Placeholders(nn.Module):
    """Learned values, one per channel of a feature, that replace the features of missing inputs.

    They start at zero and consume no random numbers, so the other weights of a network start the same with and
    without them.

    Args:
        channels: Index of a feature -> its number of channels.
    """

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        self.values = nn.ParameterDict({str(i): nn.Parameter(torch.zeros(size)) for i, size in channels.items()})

    def forward(self, index: int, feature: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Replace the rows of samples without this input.

        All values are part of the graph, so each of them has a gradient, which may be zero.

        Args:
            index: Index of the feature.
            feature: (N, C, ...).
            present: bool (N,), whether a sample has the input.

        Returns:
            (N, C, ...), with the learned values in the rows where ``present`` is False.
        """
        one = self.values[str(index)].to(feature.dtype).reshape(1, -1, *[1] * (feature.dim() - 2))
        return torch.where(present.reshape(-1, *[1] * (feature.dim() - 1)), feature, one)


def drop_modalities(present: torch.Tensor, rate: float) -> torch.Tensor:
    """Modality dropout: drop each modality of each sample with probability ``rate``, but never all of them.

    Args:
        present: bool (N, M), which of the M modalities a sample has.
        rate: Probability in 0..1.

    Returns:
        bool (N, M), the modalities that remain, drawn from torch's global generator. A sample that would lose all its
        modalities keeps one of them.
    """
    draws = torch.rand(present.shape, device=present.device)
    kept = present & (draws >= rate)
    # The present modality with the largest draw is the one that would be dropped last.
    last = draws.masked_fill(~present, -1.0).argmax(dim=1, keepdim=True)
    return kept | (torch.zeros_like(kept).scatter(1, last, True) & present)
