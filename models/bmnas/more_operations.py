"""Further fusion operations for ``--step_ops``, off by default. The paper describes its pool as extensible.

They have the constructor and the forward signature of the published ones (`models.bmnas.operations`): x and y are
(N, C, L), and so is the result. Linear maps act on the channels of each position, as in the published operations.
Parameter counts are for C channels. There is no batch norm, since the step node normalises its output.
"""

import torch
from torch import nn


class Product(nn.Module):
    """x * y, the multiplication in the pools of DC-NAS and CSG-NAS. No parameters."""

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y


class Max(nn.Module):
    """The elementwise maximum of x and y; from the same pools. No parameters."""

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x, y)


class Average(nn.Module):
    """(x + y) / 2; from the same pools. No parameters."""

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y) / 2


class LowRankBilinear(nn.Module):
    """P (tanh(U x + b_x) * tanh(V y + b_y)) + b (Kim et al., Hadamard product for low-rank bilinear ..., ICLR 2017).

    The rank is r = max(1, C // 2), our choice. Parameters: 3 C r + 2 r + C.
    """

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()
        rank = max(1, channels // 2)
        self.first, self.second = nn.Conv1d(channels, rank, 1), nn.Conv1d(channels, rank, 1)
        self.out = nn.Conv1d(rank, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.out(torch.tanh(self.first(x)) * torch.tanh(self.second(y))))


class GatedMultimodalUnit(nn.Module):
    """z h_x + (1 - z) h_y (Arevalo et al., Gated multimodal units for information fusion, 2017; arXiv 1702.01992).

    h_x = tanh(W_x x + b_x), h_y = tanh(W_y y + b_y), z = sigmoid(W_z [x, y] + b_z). Parameters: 4 C^2 + 3 C.
    """

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, channels, 1)
        self.gate = nn.Conv1d(2 * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(torch.cat([x, y], dim=1)))
        return self.dropout(gate * torch.tanh(self.first(x)) + (1 - gate) * torch.tanh(self.second(y)))


class FiLM(nn.Module):
    """(1 + gamma) x + beta: y modulates the channels of x (Perez et al., FiLM, AAAI 2018).

    [gamma, beta] = W m + b, one pair per channel, where m is the mean of y over its positions. FiLM conditions on a
    vector; the mean is our choice of it. Parameters: 2 C^2 + 2 C.
    """

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()
        self.film = nn.Conv1d(channels, 2 * channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gamma, beta = self.film(y.mean(2, keepdim=True)).chunk(2, dim=1)
        return self.dropout((1 + gamma) * x + beta)
