"""One side of a batch, words or regions: which of its positions are computed and which are attended to.

Two thirds of a batch padded to its longest sample can be padding. Nothing that is kept depends on it, so
the projections and feed-forward layers may work on the other rows alone, (R, H) instead of (B, L, H).
Only the product of queries and keys needs the padded form.
"""

import torch
from torch.nn import functional as F

# What the original writes over the scores of padded keys. Added to a score it has the same effect: the sum loses it.
FLOOR = -1e9


class Rows:
    """The positions of one side. Without a mask every position counts and nothing is packed.

    Args:
        mask: Boolean (B, 1, 1, L), True = padding; or None.
        pack: Leave the padding out: tensors of this side are (R, C), else (B, L, C).
        dtype: Type of `bias`, that of the attention's operands.

    Attributes:
        bias: (B, 1, 1, L), what is added to attention scores: 0, or about -1e9 for padding; None without a mask.
        index: int64 (R,), the kept rows among B * L; None where all are kept.
        sharing: Whether several samples in a row of the other side share one of these (`matching`).
    """

    sharing = False

    def __init__(self, mask=None, pack=False, dtype=torch.float32):
        self.bias = self.index = None
        if mask is None:
            return
        self.bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        # In float16 -1e9 would be -inf, and a sample of padding alone NaN; with this it attends by score, not evenly.
        self.bias.masked_fill_(mask, max(FLOOR, torch.finfo(dtype).min / 2))
        if pack:
            padding = mask[:, 0, 0]
            # A sample of padding alone attends evenly to all of it: its rows stay.
            self._kept = ~padding | padding.all(1, keepdim=True)
            index = self._kept.flatten().nonzero().squeeze(1)
            self.index = index if len(index) < padding.numel() else None

    @classmethod
    def of(cls, mask):
        """``mask`` itself if it is `Rows`, else `Rows` of a boolean mask or None."""
        return mask if isinstance(mask, cls) else cls(mask)

    def pack(self, padded):
        """Kept rows of (B, L, C): (R, C); unpacked sides are returned as they are."""
        if self.index is None:
            return padded
        # An embedding look-up, because its backward is the fastest there is for this.
        return F.embedding(self.index, padded.flatten(0, 1))

    def pad(self, rows):
        """Rows (R, C) in their places, (B, L, C), zeros elsewhere; unpacked sides are returned as they are."""
        return rows if self.index is None else _spread(rows, self.index, self._kept.shape)

    def split(self, rows, heads):
        """Projections, heads * C wide, as (B, heads, L, C)."""
        return self.pad(rows).unflatten(-1, (heads, -1)).transpose(1, 2)

    def merge(self, attended):
        """The inverse of `split`."""
        return self.pack(attended.transpose(1, 2).flatten(2))

    def pairs(self):
        """int64 (P,): the pairs of kept rows of a sample among B * L * L; None where all are kept."""
        if self.index is None:
            return None
        return (self._kept[:, :, None] & self._kept[:, None, :]).flatten().nonzero().squeeze(1)

    def pair_bias(self, values, pairs):
        """Scores per pair and head as a bias (B, heads, L, L), with `bias` added.

        Args:
            values: (P, heads) for ``pairs``, or (B, L, L, heads) if that is None.
            pairs: What `pairs` returned.
        """
        if pairs is not None:
            batch, length = self._kept.shape
            values = _spread(values, pairs, (batch, length, length))
        values = values.permute(0, 3, 1, 2)
        return values if self.bias is None else values + self.bias


def _spread(rows, index, shape):
    size = torch.Size(shape).numel()
    return rows.new_zeros(size, rows.shape[-1]).index_copy(0, index, rows).unflatten(0, shape)
