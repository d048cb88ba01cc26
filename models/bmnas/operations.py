"""Candidate operations of the BM-NAS search space (paper section 3.3), by name.

A step operation maps two tensors (N, C, L) to one (N, C, L). Its constructor takes the number of channels C, the length
L and the dropout rate. To add your own, write a module with this signature and pass ``module:Class`` to ``--step_ops``;
nothing has to change here. See ``docs/extend.md``.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.bmnas.more_operations import Average, FiLM, GatedMultimodalUnit, LowRankBilinear, Max, Product
from util.registry import Registry

# The original drops the attention output at this rate, whatever --drpt is.
ATTENTION_DROPOUT = 0.1


class Sum(nn.Module):
    """x + y."""

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class ScaleDotAttn(nn.Module):
    """Scaled dot-product attention with one head and no projections: LayerNorm(Dropout(softmax(x^T y / sqrt(C)) y^T)).

    Each of the L positions is a token. x provides the queries, y the keys and values. The result is transposed back to
    (N, C, L).
    """

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(ATTENTION_DROPOUT)
        self.norm = nn.LayerNorm((channels, length))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        tokens = y.transpose(1, 2)  # (N, L, C)
        attended = F.scaled_dot_product_attention(x.transpose(1, 2), tokens, tokens)
        return self.norm(self.dropout(attended.transpose(1, 2)))


class LinearGLU(nn.Module):
    """Gated linear unit: the concatenation of x and y is mapped to 2 C channels; first half * sigmoid(second half)."""

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * channels, 2 * channels, 1)
        self.bn = nn.BatchNorm1d(2 * channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.dropout(F.glu(self.bn(self.conv(torch.cat([x, y], dim=1))), dim=1))


class ConcatFC(nn.Module):
    """Fully connected layer on the concatenation of x and y at each position, with batch norm and ReLU."""

    def __init__(self, channels: int, length: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * channels, channels, 1)
        self.bn = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.dropout(F.relu(self.bn(self.conv(torch.cat([x, y], dim=1)))))


_OPERATIONS = {
    "Sum": Sum,
    "ScaleDotAttn": ScaleDotAttn,
    "LinearGLU": LinearGLU,
    "ConcatFC": ConcatFC,
    "Product": Product,
    "Max": Max,
    "Average": Average,
    "LowRankBilinear": LowRankBilinear,
    "GatedMultimodalUnit": GatedMultimodalUnit,
    "FiLM": FiLM,
}
# All operations that a genotype may name: these, and others as ``module:Class``. --step_ops selects the candidates.
STEP_OPERATIONS = Registry("operation", _OPERATIONS, nn.Module)
# The published candidates, in the order of the columns of gammas.
PUBLISHED_STEP_OPERATIONS = ("Sum", "ScaleDotAttn", "LinearGLU", "ConcatFC")


def has_weights(name: str) -> bool:
    """Whether a step operation has weights other than the scale and shift of a normalisation."""
    norms = (nn.LayerNorm, nn.BatchNorm1d, nn.GroupNorm)
    with torch.device("meta"):  # draws no random numbers
        modules = STEP_OPERATIONS[name](1, 1, 0.0).modules()
    return any(list(m.parameters(recurse=False)) for m in modules if not isinstance(m, norms))
