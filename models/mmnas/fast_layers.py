"""The fast forms of MMNas' modules. `models.mmnas.fast.speed_up` puts them in the place of the plain ones.

Each class is named like the one that it replaces. Parameters stay the same, and results agree up to rounding; dropout
draws other random numbers. They save

- padding, on a CPU: two thirds of a batch can be padding, on which no result depends. Layers that work position by
  position only compute the real rows, (R, H) instead of (B, L, H). `PaddedSide` replaces a mask and converts between
  both forms. On a GPU this would not pay, since the CPU would have to wait for the number of rows;
- passes over memory: fused kernels for layer normalisation and attention, and 16 random bits per element for dropout;
- repetition in matching: keys and values are computed once per caption, and relations once per image.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.mmnas import heads, layers, matching, net, operations
from models.mmnas.layers import NORM_EPSILON, mask_value
from models.mmnas.matching import Captions, Images, Words
from models.mmnas.net import Batch
from models.mmnas.regions import box_features, padding_mask, relation_of

# Negligibly small; it keeps the inverse standard deviation of a constant row finite.
MIN_VARIANCE = 1e-20
_DRAWS = 2**16


class PairValues(NamedTuple):
    """Values, float (P, C), of the pairs, int64 (P,), of `PaddedSide.pairs`; or (B, L, L, C) of all pairs, and None."""

    values: Tensor
    pairs: Tensor | None = None


class PaddedSide:
    """One side of a batch, words or regions: its mask, and the conversion between padded and packed tensors.

    The plain attention fills the scores of padded keys with -1e9. Here `bias` is added, with the same result: the
    weight of a padded key is 0 either way, and so is its gradient. The exception is a sample with nothing but padding
    as keys: filling makes all of its scores equal. For it `split_keys` sets the keys to zero, and `bias` is 0. If -1e9
    were added, gradients of torch's fused kernels would be wrong: the sum of exponentials would lose the key count.

    Args:
        mask: bool (B, L), True = padding; None: there is no padding, and nothing is packed.
        pack: Leave out the padding: tensors of this side are (R, C) instead of (B, L, C).

    Attributes:
        index: int64 (R,), the kept rows among B * L; None: all are kept.
        shared: In matching, the side of the captions themselves if all of them have equally many pairs; else None.
    """

    shared: "PaddedSide | None" = None

    def __init__(self, mask: Tensor | None = None, pack: bool = False) -> None:
        self.mask, self.index = mask, None
        self._empty, self._biases = None, {}
        if mask is None:
            return
        empty = mask.all(1)
        # Packing reads the mask anyway. Without packing, `any` would make the CPU wait for a GPU.
        self._empty = None if pack and not empty.any() else empty.view(-1, 1, 1, 1)
        if pack:
            # A sample that is all padding attends evenly to all positions, so its rows are kept.
            self._kept = ~mask | empty[:, None]
            index = self._kept.flatten().nonzero().squeeze(1)
            self.index = index if len(index) < mask.numel() else None

    @classmethod
    def of(cls, mask: "Tensor | PaddedSide | None") -> "PaddedSide":
        """Wrap a boolean mask or None; a `PaddedSide` is returned as it is."""
        return mask if isinstance(mask, cls) else cls(mask)

    def pack(self, padded: Tensor) -> Tensor:
        """Select the kept rows of (B, L, C): (R, C). If nothing is packed, return the tensor as it is."""
        if self.index is None:
            return padded
        # An embedding look-up, since its backward pass is faster than that of indexing.
        return F.embedding(self.index, padded.flatten(0, 1))

    def pad(self, rows: Tensor) -> Tensor:
        """Inverse of `pack`: (R, C) -> (B, L, C), with zeros in the rows that were left out."""
        return rows if self.index is None else _spread(rows, self.index, self._kept.shape)

    def split(self, rows: Tensor, heads: int) -> Tensor:
        """Pad projections of width heads * C and split them into (B, heads, L, C)."""
        return self.pad(rows).unflatten(-1, (heads, -1)).transpose(1, 2)

    def split_keys(self, rows: Tensor, heads: int) -> Tensor:
        """`split` for keys: zeros in samples that are all padding, so that all of their scores are equal."""
        keys = self.split(rows, heads)
        return keys if self._empty is None else keys.masked_fill(self._empty, 0.0)

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """Bias for attention scores of type ``dtype``, (B, 1, 1, L); None without a mask."""
        if self.mask is not None and dtype not in self._biases:
            mask = self.mask[:, None, None]
            hidden = mask if self._empty is None else mask & ~self._empty
            zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
            self._biases[dtype] = zeros.masked_fill_(hidden, mask_value(dtype))
        return self._biases.get(dtype)

    def pairs(self) -> Tensor | None:
        """Indices, int64 (P,), of the pairs of kept rows among the B * L * L pairs; None: all are kept."""
        if self.index is None:
            return None
        return (self._kept[:, :, None] & self._kept[:, None, :]).flatten().nonzero().squeeze(1)

    def pair_bias(self, scores: PairValues, dtype: torch.dtype) -> Tensor:
        """Scores per pair and head as a bias (B, heads, L, L), replaced by `bias` where the key is padding."""
        values, pairs = scores
        if pairs is not None:
            batch, length = self._kept.shape
            values = _spread(values, pairs, (batch, length, length))
        values = values.permute(0, 3, 1, 2)
        return values if self.mask is None else torch.where(self.mask[:, None, None], self.bias(dtype), values)


def _spread(rows: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    size = torch.Size(shape).numel()
    return rows.new_zeros(size, rows.shape[-1]).index_copy(0, index, rows).unflatten(0, shape)


class _Normalise(torch.autograd.Function):
    """a * (x - mean) / (std + 1e-6) + b by torch's fused kernel, which divides by the biased deviation (n, not n - 1).

    With k = sqrt(n / (n - 1)) and r the kernel's inverse deviation, multiplying a row by 1 / (k + 1e-6 r) converts one
    form to the other. The gradient includes this factor, since Adam scales up gradients that are nearly zero.
    """

    @staticmethod
    def forward(ctx, x, a, b):
        n = x.shape[-1]
        scaled, mean, inverse = torch.native_layer_norm(x, (n,), a, None, MIN_VARIANCE)
        factor = 1 / ((n / (n - 1)) ** 0.5 + NORM_EPSILON * inverse)
        ctx.save_for_backward(x, a, mean, inverse, factor)
        return torch.addcmul(b, scaled, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, a, mean, inverse, factor = ctx.saved_tensors
        n = x.shape[-1]
        to_x, to_a, _ = torch.ops.aten.native_layer_norm_backward(
            gradient * factor, x, (n,), mean, inverse, a, None, (True, True, False)
        )
        centred = x - mean
        along = ((gradient * centred) @ a)[..., None]
        to_x.addcmul_(centred, (NORM_EPSILON / n) * (factor * inverse * inverse) ** 2 * along)
        return to_x, to_a, gradient.flatten(0, -2).sum(0)


class LayerNorm(layers.LayerNorm):
    def forward(self, x):
        return _Normalise.apply(x.to(self.a_2.dtype), self.a_2, self.b_2)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero elements of ``x`` with probability ``rate`` (on a CPU to within 2**-17) and scale the others up.

    On a CPU it draws 16 random bits per element, four elements at a time, which is several times faster than torch.
    """
    threshold = round(rate * _DRAWS)
    if not training or threshold == 0:
        return x
    if x.device.type != "cpu" or threshold == _DRAWS or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()] >= threshold - _DRAWS // 2
    return x * kept.view(x.shape).to(x.dtype).mul_(_DRAWS / (_DRAWS - threshold))


class Dropout(nn.Dropout):
    def forward(self, x):
        return dropout(x, self.p, self.training)


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, rate: float, training: bool) -> Tensor:
    """Attention, dropout(softmax(q k^T / sqrt(C) + bias)) v: tensors (B, heads, L, C), broadcastable bias or None."""
    if queries.device.type != "cpu" or not training or rate == 0:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=rate * training)
    # torch's fused CPU kernels do not support dropout, and its fallback is slower than this.
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return dropout(scores.softmax(-1), rate, training) @ values


class MultiHeadAttention(layers.MultiHeadAttention):
    """Has a further argument ``queries``, the `PaddedSide` of ``x``; needed if ``x`` is packed and not ``keys``."""

    def forward(self, x, keys, mask=None, relation=None, queries=None):
        key_side = PaddedSide.of(mask)
        side = key_side if x is keys else PaddedSide.of(queries)
        shared = key_side.shared
        if shared is not None and not self.training and self.heads * shared.mask.shape[-1] < x.shape[-1]:
            return self._attend_shared(x, keys, side, shared)
        queries = side.split(self.linear_q(x), self.heads)
        values = key_side.split(self.linear_v(keys), self.heads)
        keys = key_side.split_keys(self.linear_k(keys), self.heads)
        bias = key_side.bias(queries.dtype)
        if self.linear_r is not None:
            relations, pairs = relation if isinstance(relation, PairValues) else PairValues(relation)
            bias = key_side.pair_bias(PairValues(self.relation_scores(relations), pairs), queries.dtype)
        attended = attend(queries, keys, values, bias, self.dropout.p, self.training)
        return self.linear_merge(side.pack(attended.transpose(1, 2).flatten(2)))

    def _attend_shared(self, x, keys, side, key_side):
        """Attention in which equally many samples of ``x`` share each sample of ``keys``.

        The query projection is absorbed by the keys and the merging one by the values: neither runs per query.
        """
        heads, inner = self.heads, self.linear_q.out_features
        values, keys = key_side.split(self.linear_v(keys), heads), key_side.split_keys(self.linear_k(keys), heads)
        into_keys = self.linear_q.weight.unflatten(0, (heads, -1))
        into_values = self.linear_merge.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
        keys = (keys * (inner // heads) ** -0.5 @ into_keys).flatten(1, 2)
        values, padded = (values @ into_values).flatten(1, 2), side.pad(x)
        queries = padded.reshape(len(keys), -1, padded.shape[-1])
        scores = (queries @ keys.transpose(1, 2)).unflatten(-1, (heads, -1))
        scores = scores + key_side.bias(scores.dtype)
        return side.pack((scores.softmax(-1).flatten(2) @ values).view(padded.shape))


class GuidedAttention(operations.GuidedAttention):
    def forward(self, x, y=None, x_mask=None, y_mask=None, relation=None):
        return self.finish(x, self.mhatt(x, y, y_mask, queries=x_mask))


class AttentionPooling(layers.AttentionPooling):
    def weights(self, x, mask=None):
        side = PaddedSide.of(mask)
        scores = side.pad(self.mlp(x))
        if side.mask is not None:
            scores = scores.masked_fill(side.mask[..., None], mask_value(scores.dtype))
        return scores.softmax(1)

    def forward(self, x, mask=None):
        side = PaddedSide.of(mask)
        sums = self.weights(x, side).transpose(1, 2).to(x.dtype) @ side.pad(x)
        return self.linear_merge(sums.flatten(1))


class GroundingHead(heads.GroundingHead):
    def forward(self, x, y, x_mask=None, y_mask=None):
        side = PaddedSide.of(y_mask)
        return self.place(self.attflat_x(x, x_mask), side.pad(self.attfc_y(y)), side.mask)


class _PaddedSides:
    """Mix-in: tensors of both sides are packed, masks are `PaddedSide`, and relations are `PairValues`."""

    def embed_words(self, tokens):
        x, mask = super().embed_words(tokens)
        side = self.side(mask)
        return side.pack(x), side

    def embed_regions(self, batch):
        side = self.side(padding_mask(batch["counts"], batch["regions"].shape[1]), self.head.reads_padding)
        boxes = None if self.box_linear is None else side.pack(box_features(batch["boxes"], batch["image_size"]))
        y = self.project_regions(side.pack(batch["regions"]), boxes)
        return y, side, self.relations(batch, side) if self.encoder_decoder.uses_relation() else None

    def relations(self, batch: Batch, side: PaddedSide) -> PairValues:
        """Embedded relations between the kept regions."""
        pairs = side.pairs()
        if pairs is None:
            return PairValues(self.embed_relations(batch))
        given, boxes = batch.get("relations"), batch.get("boxes")
        values = pair_relations(boxes, batch["counts"], pairs) if given is None else given.flatten(0, 2)[pairs]
        return PairValues(self.project_relations(values), pairs)

    def side(self, mask: Tensor, reads_padding: bool = False) -> PaddedSide:
        """The `PaddedSide` of a mask, packed if requested and if no result depends on the padding."""
        pack = mask.device.type == "cpu" if self.pack is None else self.pack
        return PaddedSide(mask, pack and not (reads_padding or self.needs_full_padding))


def pair_relations(boxes: Tensor, counts: Tensor, pairs: Tensor) -> Tensor:
    """`box_relations` of the pairs, int64 (P,) indices among B * N * N: float32 (P, 4)."""
    length = boxes.shape[1]
    row, column = pairs // length, pairs // length**2 * length + pairs % length
    boxes, real = boxes.flatten(0, 1), ~padding_mask(counts, length).flatten()
    values = relation_of(boxes[row], boxes[column])
    return values.masked_fill(~(real[row] & real[column])[:, None], 0.0)


class MultimodalNet(_PaddedSides, net.MultimodalNet):
    """`models.mmnas.net.MultimodalNet` with packed inner tensors."""


class MatchingNet(_PaddedSides, matching.MatchingNet):
    """States of `Words` are packed and those of `Images` padded; the masks of both are `PaddedSide`."""

    def keep(self, words, tokens) -> Captions:
        return super().keep(words._replace(states=words.mask.pad(words.states)), tokens)

    def project(self, batch) -> Images:
        images = super().project(batch)
        return images._replace(states=images.mask.pad(images.states))

    def match(self, images, captions, image_index, caption_index):
        which, together = caption_index, image_index.dim() == 2
        if together:
            places = torch.arange(len(which), device=which.device).repeat_interleave(image_index.shape[1])
        else:
            which, places = which.unique(return_inverse=True)
        states, mask, pooled = captions.padded(which)
        side = self.side(mask)
        words = Words(side.pack(states), side, pooled)
        return self.score_pairs(words, images, places, image_index.flatten(), together).view(image_index.shape)

    def score_pairs(self, words, images, caption_index, image_index, together=False):
        """``together``: whether all captions have as many pairs, those of the first caption first."""
        x, x_side, pooled = words
        y_side = _Regions(self.side(images.mask.mask[image_index]), images.mask, image_index)
        if self.needs_full_padding:
            # Operations that depend on padding read the words of each pair, and nothing is packed.
            x, x_side = _taken(x, caption_index), self.side(x_side.mask[caption_index])
        else:
            x_side = _Keys(x_side, caption_index, together)
        y = y_side.pack(_taken(images.states, image_index))
        reading_words = slice(self.encoder_decoder.blocks_without_words(), None)
        y = self.encoder_decoder.decode(y, x, y_side, x_side, images.relation, reading_words)
        return self.head.score(_taken(pooled, caption_index) + self.head.attflat_y(y, y_side))


class _Keys(PaddedSide):
    """Words that pairs attend to, projected once per caption; ``index``, int64 (P,), is the caption of each pair."""

    def __init__(self, side: PaddedSide, index: Tensor, sharing: bool) -> None:
        super().__init__(side.mask[index])
        self._side, self._pair_index = side, index
        self.shared = side if sharing else None

    def split(self, rows, heads):
        return _taken(self._side.split(rows, heads), self._pair_index)

    def split_keys(self, rows, heads):
        return _taken(self._side.split_keys(rows, heads), self._pair_index)


class _Regions(PaddedSide):
    """Regions of pairs, with relations computed once per image; ``index``, int64 (P,), is the image of each pair."""

    def __init__(self, side: PaddedSide, images: PaddedSide, index: Tensor) -> None:
        super().__init__()
        self.__dict__.update(side.__dict__)
        self._images, self._pair_index = images, index

    def pair_bias(self, scores, dtype):
        return _taken(self._images.pair_bias(scores, dtype), self._pair_index)


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """``values[index]``, by an embedding look-up, since its backward pass is the fastest."""
    return F.embedding(index, values.flatten(1)).unflatten(1, values.shape[1:])
