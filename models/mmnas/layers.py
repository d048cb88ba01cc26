"""Building blocks of operations and heads: normalisation, MLPs, attention, pooling.

What runs are the fast forms of these classes (`models.mmnas.fast`), except for those whose code is changed here.
Each side of a batch, words or regions, is a padded tensor (B, L, H) with a boolean mask (B, L), True = padding.
Parameters are named as in the original, so that its state dicts can be translated name by name.
"""

import torch
from torch import nn
from torch.nn import functional as F

NORM_EPSILON = 1e-6
# Width of an embedded relation between two regions.
RELATION_SIZE = 64
# The score of padding before a softmax, as in the original.
MASK_VALUE = -1e9
# Lower bound of relation weights before the logarithm.
MIN_RELATION = 1e-6


def mask_value(dtype: torch.dtype) -> float:
    """`MASK_VALUE`, or half of the lowest number of ``dtype`` if that is higher: float16 cannot represent -1e9."""
    return max(MASK_VALUE, torch.finfo(dtype).min / 2)


class LayerNorm(nn.Module):
    """a_2 * (x - mean) / (std + 1e-6) + b_2 over the last axis.

    Unlike `torch.nn.LayerNorm`, it divides by the unbiased standard deviation (n - 1), and it adds epsilon to the
    deviation and not to the variance. Under autocast it computes in, and returns, the dtype of its parameters.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(width))
        self.b_2 = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise float (..., width)."""
        x = x.to(self.a_2.dtype)
        deviation = x.std(-1, keepdim=True)
        return self.a_2 * (x - x.mean(-1, keepdim=True)) / (deviation + NORM_EPSILON) + self.b_2


class FC(nn.Module):
    """Linear, ReLU, dropout."""

    def __init__(self, width: int, out_width: int, rate: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out_width)
        self.dropout = nn.Dropout(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to (..., out_width)."""
        return self.dropout(F.relu(self.linear(x), inplace=True))


class MLP(nn.Module):
    """An `FC` layer to the hidden width, then a linear layer."""

    def __init__(self, width: int, hidden: int, out_width: int, rate: float) -> None:
        super().__init__()
        self.fc = FC(width, hidden, rate)
        self.linear = nn.Linear(hidden, out_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to (..., out_width)."""
        return self.linear(self.fc(x))


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with heads of ``head_width``. The four projections have no bias.

    Args:
        width: Width H of inputs and output.
        inner: Width of queries, keys and values over all heads.
        head_width: Width of a head.
        rate: Dropout rate of the attention map.
        relation_size: Width of the embedded relation between two positions. If it is not 0,
            log max(relu(linear_r(relation)), 1e-6) is added to the scores.

    Raises:
        ValueError: ``head_width`` does not divide ``inner``.
    """

    def __init__(self, width: int, inner: int, head_width: int, rate: float, relation_size: int = 0) -> None:
        super().__init__()
        if inner % head_width:
            raise ValueError(f"heads of width {head_width} do not divide {inner}")
        self.heads = inner // head_width
        self.linear_v = nn.Linear(width, inner, bias=False)
        self.linear_k = nn.Linear(width, inner, bias=False)
        self.linear_q = nn.Linear(width, inner, bias=False)
        self.linear_r = nn.Linear(relation_size, self.heads) if relation_size else None
        self.linear_merge = nn.Linear(inner, width, bias=False)
        self.dropout = nn.Dropout(rate)

    def forward(
        self,
        x: torch.Tensor,
        keys: torch.Tensor,
        mask: torch.Tensor | None = None,
        relation: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Let ``x`` attend to ``keys``. A sample whose keys are all padding attends evenly to all of them.

        Args:
            x: float (B, L, H).
            keys: float (B, M, H).
            mask: bool (B, M), True where ``keys`` are padding; None: there is no padding.
            relation: float (B, L, M, relation_size); required if ``relation_size`` is not 0.

        Returns:
            float (B, L, H).
        """
        q, k, v = (self._split(y) for y in (self.linear_q(x), self.linear_k(keys), self.linear_v(keys)))
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        if self.linear_r is not None:
            scores = scores + self.relation_scores(relation).permute(0, 3, 1, 2)
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None], mask_value(scores.dtype))
        attended = self.dropout(scores.softmax(-1)) @ v
        return self.linear_merge(attended.transpose(1, 2).flatten(2))

    def relation_scores(self, relation: torch.Tensor) -> torch.Tensor:
        """Return the terms (..., heads) that relations (..., relation_size) add to the scores.

        Autocast is off here: the logarithm is steep near zero and needs the precision of the parameters.
        """
        with torch.autocast(relation.device.type, enabled=False):
            return self.linear_r(relation).clamp(min=MIN_RELATION).log()

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, heads * C) -> (B, heads, L, C)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentionPooling(nn.Module):
    """Weighted sums over the positions of a side, then a linear layer (AttFlat in the original).

    Args:
        width: Width H of the input.
        out_width: Width of the output.
        rate: Dropout rate inside the MLP that computes the weights.
        hidden: Hidden width of that MLP.
        glimpses: Number G of weighted sums, which are concatenated.
    """

    def __init__(self, width: int, out_width: int, rate: float, hidden: int = 512, glimpses: int = 1) -> None:
        super().__init__()
        self.mlp = MLP(width, hidden, glimpses, rate)
        self.linear_merge = nn.Linear(width * glimpses, out_width)

    def weights(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the weight of every position in each sum.

        Args:
            x: float (B, L, H).
            mask: bool (B, L), True = padding; or None.

        Returns:
            float (B, L, G), which sums to 1 over L. Padding has weight 0, unless a sample is all padding: then all
            positions have the same weight.
        """
        scores = self.mlp(x)
        if mask is not None:
            scores = scores.masked_fill(mask[..., None], mask_value(scores.dtype))
        return scores.softmax(1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool (B, L, H) to (B, out_width); arguments as in `weights`."""
        sums = self.weights(x, mask).transpose(1, 2).to(x.dtype) @ x
        return self.linear_merge(sums.flatten(1))
