"""MaxOut text network (MM-IMDB plots), after Goodfellow et al. 2013 and Arevalo et al. 2017."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch

TEXT_DIM = 300
_PIECES = 5
_DROPOUT = 0.5


class MaxOut(nn.Module):
    """MaxOut layer, the maximum over ``pieces`` linear maps: (N, inputs) -> (N, outputs)."""

    def __init__(self, inputs: int, outputs: int, pieces: int = _PIECES) -> None:
        super().__init__()
        self.pieces = pieces
        self.lin = nn.Linear(inputs, outputs * pieces)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x).view(x.shape[0], -1, self.pieces).max(dim=-1).values


class MaxOutMLP(nn.Module):
    """Two MaxOut layers and a linear head; parameter names are those of the original.

    Args:
        num_outputs: Number of classes of the unimodal head.
    """

    channels = (64, 128)
    deterministic_features = False
    # Computing the features is faster than reading them from a cache.
    cacheable = False

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.op1 = MaxOut(TEXT_DIM, 64)
        self.op2 = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(_DROPOUT))
        self.op3 = MaxOut(64, 128)
        self.op4 = nn.Sequential(nn.BatchNorm1d(128), nn.Dropout(_DROPOUT))
        self.hid2val = nn.Linear(128, num_outputs)

    def forward(self, text: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` of two features.

        Args:
            text: Text vectors (N, 300).
            count: 1: compute only the first layer; None: return both features.

        Returns:
            (N, 64) and (N, 128), each before its batch norm. The head reads the second.
        """
        first = self.op1(text.to(self.hid2val.weight.dtype))
        return [first] if count == 1 else [first, self.op3(self.op2(first))]

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return class logits (N, num_outputs) from the features of `forward`."""
        return self.hid2val(self.op4(features[-1]))

    def modules_of(self, count: int) -> list[nn.Module]:
        """Modules that the first ``count`` features depend on."""
        stages: list[list[nn.Module]] = [[], [self.op1], [self.op1, self.op2, self.op3]]
        return stages[count]
