"""Reshape layers: a backbone feature of any shape becomes (N, C, L)."""

import math

from torch import nn
from torch.nn import functional as F


class ReshapeLayer(nn.Module):
    """One backbone feature to (N, C, L): adaptive max pool, Conv1d(1), BatchNorm, ReLU, Dropout.

    Args:
        in_channels: Channels of the feature.
        channels: C.
        pool: Output size (rows, columns) of the pool; L = rows * columns.
        dropout: Dropout rate.
    """

    def __init__(self, in_channels, channels, pool, dropout):
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv1d(in_channels, channels, 1)
        self.bn = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, feature):
        """(N, in_channels, ...) with up to three more axes -> (N, C, L)."""
        pooled = pool_feature(feature, self.pool).flatten(2)
        return self.dropout(F.relu(self.bn(self.conv(pooled))))


def pool_feature(feature, pool):
    """Adaptive max pool of a feature (N, C, ...) to (N, C, *pool); pooling twice changes nothing.

    Everything after the third axis counts as one: (N, C) -> (N, C, 1, 1), (N, C, T) -> (N, C, T, 1),
    (N, C, T, H, W) -> (N, C, T, H*W).
    """
    if feature.dim() < 4:
        feature = feature[(...,) + (None,) * (4 - feature.dim())]
    return F.adaptive_max_pool2d(feature.flatten(3), pool)


def square_pool(length):
    """Pool size (r, r) with r*r = length (MM-IMDB).

    Raises:
        ValueError: ``length`` is no perfect square.
    """
    side = math.isqrt(length)
    if side * side != length:
        raise ValueError(f"L = {length} is not a perfect square; use 4, 9, 16, 25, ...")
    return side, side
