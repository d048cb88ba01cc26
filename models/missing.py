"""Missing modalities: learned features in their place, and modality dropout, which makes a network expect them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class Placeholders(nn.Module):
    """A learned value per channel of a feature, which takes the place of the features of missing inputs.

    They start at zero, and nothing is drawn: a network without them has the same initial weights.

    Args:
        channels: Index of a feature -> its channels.
    """

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        self.values = nn.ParameterDict({str(i): nn.Parameter(torch.zeros(size)) for i, size in channels.items()})

    def forward(self, index: int, feature: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The feature (N, C, ...) with the learned values in the rows of samples that are not ``present``, bool (N,).

        Every value takes part in the result, so that each gets a gradient, which may be zero.
        """
        one = self.values[str(index)].to(feature.dtype).reshape(1, -1, *[1] * (feature.dim() - 2))
        return torch.where(present.reshape(-1, *[1] * (feature.dim() - 1)), feature, one)


def drop_modalities(present: torch.Tensor, rate: float) -> torch.Tensor:
    """Drop each modality of each sample with probability ``rate``, but never the last one that a sample has.

    Args:
        present: bool (N, M), which of the M modalities a sample has.
        rate: Probability in 0..1.

    Returns:
        bool (N, M), drawn from torch's global generator. A sample that would lose all keeps one of those it has.
    """
    draws = torch.rand(present.shape, device=present.device)
    kept = present & (draws >= rate)
    # The present modality with the largest draw is the one that would be dropped last.
    last = draws.masked_fill(~present, -1.0).argmax(dim=1, keepdim=True)
    return kept | (torch.zeros_like(kept).scatter(1, last, True) & present)
