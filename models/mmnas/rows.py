"""One side of a batch, words or regions: which of its positions are computed and which are attended to.

Two thirds of a batch padded to its longest sample can be padding. Nothing that is kept depends on it, so
the projections and feed-forward layers may work on the other rows alone, (R, H) instead of (B, L, H).
Only the product of queries and keys needs the padded form.
"""

import torch
from torch.nn import functional as F

# What the original writes over the scores of padded keys.
FLOOR = -1e9


def padding_of(counts, length):
    """bool (B, length), True from each sample's own number of positions on: the one mask of regions, everywhere.

    Args:
        counts: int64 (B,), positions of each sample.
        length: Positions that the batch is padded to.
    """
    return torch.arange(length, device=counts.device) >= counts[:, None]


def floor_of(dtype):
    """`FLOOR`, or half of the lowest number of ``dtype`` where that is higher (float16, in which -1e9 is -inf)."""
    return max(FLOOR, torch.finfo(dtype).min / 2)


class Rows:
    """The positions of one side. Without a mask every position counts and nothing is packed.

    The original fills the scores of padded keys with -1e9. Here `bias` adds it instead, which comes to the same: the
    weight of such a key is 0 either way, and so is every gradient through it. Only a sample of padding alone needs
    more. In the original all of its scores are alike, whatever queries and keys are: it attends evenly, and no
    gradient reaches them. So `split_keys` puts zeros in place of its keys, and `bias` is 0 for it: with -1e9 for all,
    torch's fused kernels lose the length in the sum of exponentials, and their gradients are wrong.

    Args:
        mask: Boolean (B, 1, 1, L), True = padding; or None.
        pack: Leave the padding out: tensors of this side are (R, C), else (B, L, C).

    Attributes:
        mask: As given.
        index: int64 (R,), the kept rows among B * L; None where all are kept.
        shared: `Rows` of the samples themselves where several samples in a row of the other side share one of these
            (`matching`), else None.
    """

    shared = None

    def __init__(self, mask=None, pack=False):
        self.mask, self.index = mask, None
        self._empty, self._biases = None, {}
        if mask is None:
            return
        padding = mask[:, 0, 0]
        empty = padding.all(1)
        # Packing has to look at the mask anyway. Otherwise a GPU would have to be waited for.
        self._empty = None if pack and not empty.any() else empty.view(-1, 1, 1, 1)
        if pack:
            # A sample of padding alone attends evenly to all of it: its rows stay.
            self._kept = ~padding | empty[:, None]
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

    def split_keys(self, rows, heads):
        """`split` for keys: zeros in samples of padding alone, so that all of their scores are alike."""
        keys = self.split(rows, heads)
        return keys if self._empty is None else keys.masked_fill(self._empty, 0.0)

    def bias(self, dtype):
        """What is added to attention scores: ``dtype`` (B, 1, 1, L), or None without a mask.

        It is `floor_of` for padding and 0 elsewhere, also in samples of padding alone. ``dtype`` is that of the
        attention's operands.
        """
        if self.mask is not None and dtype not in self._biases:
            zeros = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device)
            hidden = self.mask if self._empty is None else self.mask & ~self._empty
            self._biases[dtype] = zeros.masked_fill_(hidden, floor_of(dtype))
        return self._biases.get(dtype)

    def merge(self, attended):
        """The inverse of `split`."""
        return self.pack(attended.transpose(1, 2).flatten(2))

    def pairs(self):
        """int64 (P,): the pairs of kept rows of a sample among B * L * L; None where all are kept."""
        if self.index is None:
            return None
        return (self._kept[:, :, None] & self._kept[:, None, :]).flatten().nonzero().squeeze(1)

    def pair_bias(self, values, pairs, dtype):
        """Scores per pair and head as a bias (B, heads, L, L); `bias` takes their place where the second is padding.

        Args:
            values: (P, heads) for ``pairs``, or (B, L, L, heads) if that is None.
            pairs: What `pairs` returned.
            dtype: As of `bias`.
        """
        if pairs is not None:
            batch, length = self._kept.shape
            values = _spread(values, pairs, (batch, length, length))
        values = values.permute(0, 3, 1, 2)
        return values if self.mask is None else torch.where(self.mask, self.bias(dtype), values)


def _spread(rows, index, shape):
    size = torch.Size(shape).numel()
    return rows.new_zeros(size, rows.shape[-1]).index_copy(0, index, rows).unflatten(0, shape)
