"""Image-text matching: words encoded once, regions projected once, and many pairs of the two scored.

What a caption is before it meets an image depends on the caption alone, and what an image is before the first
operation that reads words depends on the image alone. `MatchingNet.encode` and `MatchingNet.project` compute these
once; `MatchingNet.match` does the rest for the pairs that are asked for, and computes keys and values of captions
and the relations of regions once for all pairs that share them. The scores equal those of whole forwards.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from models.mmnas.net import MultimodalNet
from models.mmnas.relations import Relation
from models.mmnas.rows import Rows

# (image, caption) of the three scores of a training sample; 0 is its own, 1 the hard negative.
TRIPLE = ((0, 0), (0, 1), (1, 0))


class Captions(NamedTuple):
    """Encoded captions, C of them.

    Attributes:
        states: Their rows after the encoder, one caption after the other: float (R, H).
        pooled: What the head pools of them: float (C, W).
        starts, widths: First row and number of rows of each: int64 (C,).
        lengths: Words of each, the first of its rows; the others are padding: int64 (C,).
    """

    states: torch.Tensor
    pooled: torch.Tensor
    starts: torch.Tensor
    widths: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def joined(cls, parts):
        """One `Captions` of a list of them, in their order."""
        firsts = torch.tensor([0, *(len(part.states) for part in parts)]).cumsum(0).tolist()
        starts = [part.starts + first for part, first in zip(parts, firsts, strict=False)]
        states, pooled, _, widths, lengths = (torch.cat(same) for same in zip(*parts, strict=True))
        return cls(states, pooled, torch.cat(starts), widths, lengths)

    def padded(self, which):
        """The captions ``which`` int64 (U,): states (U, T, H), mask (U, T) with True = padding, pooled (U, W)."""
        widths = self.widths[which]
        place = torch.arange(int(widths.max()), device=which.device)
        rows = self.starts[which, None] + torch.minimum(place, widths[:, None] - 1)
        return F.embedding(rows, self.states), place >= self.lengths[which, None], self.pooled[which]


class Images(NamedTuple):
    """Images up to the first decoder block that reads words, I of them.

    Attributes:
        states: float (I, N, H), also where their `Rows` are packed.
        mask: Boolean (I, N), True = padding.
        rows: `Rows` of the images.
        relation: `Relation` of their regions, or None where nothing reads it.
    """

    states: torch.Tensor
    mask: torch.Tensor
    rows: Rows
    relation: Relation | None


class MatchingNet(MultimodalNet):
    """`MultimodalNet` for pairs of images and captions; its head is a `heads.MatchingHead`."""

    def forward(self, batch):
        """Scores of pairs, float32 in 0..1.

        Args:
            batch: A batch of pairs as for `MultimodalNet` gives (B,). One of training samples, every entry with
                a second axis of 2, own and negative, gives (B, 3): image and caption; image and negative caption;
                negative image and caption. Each caption is then encoded once and each image projected once, so
                that the pairs that share them share their dropout.
        """
        if batch["tokens"].dim() == 2:
            return super().forward(batch)
        flat = {name: value.flatten(0, 1) for name, value in batch.items() if name not in ("label", "index")}
        count, device = len(batch["tokens"]), batch["tokens"].device
        firsts = 2 * torch.arange(count, device=device).view(-1, 1, 1)
        pairs = torch.tensor(TRIPLE, device=device) + firsts
        images, captions = pairs.flatten(0, 1).unbind(1)
        x, x_rows = self.embed_words(flat["tokens"])
        x = self.backbone.encode(x, x_rows)
        words = (x, x_rows, flat["tokens"] == 0, self.head.attflat_x(x, x_rows))
        return self._match(self.project(flat), words, images, captions).view(count, len(TRIPLE))

    def encode(self, tokens):
        """`Captions` of int64 (C, T) tokens, 0 = padding.

        Under autocast the states are kept in its type, in which the next layers read them anyway.
        """
        x, rows = self.embed_words(tokens)
        x = self.backbone.encode(x, rows)
        padded, pooled = rows.pad(x), self.head.attflat_x(x, rows)
        lengths = (tokens != 0).sum(1)
        # Of a caption without words the padding counts, as in a whole forward.
        every = self.needs_full_padding or bool((lengths == 0).any())
        widths = torch.full_like(lengths, tokens.shape[1]) if every else lengths
        kept = torch.arange(tokens.shape[1], device=tokens.device) < widths[:, None]
        kind = tokens.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else padded.dtype
        return Captions(padded[kept].to(dtype), pooled, widths.cumsum(0) - widths, widths, lengths)

    def project(self, batch):
        """`Images` of the regions, boxes and counts of a batch of I images."""
        y, rows = self.embed_regions(batch)
        relation = self.relation(batch, rows) if self.backbone.uses_relation() else None
        y = self.backbone.decode(y, None, rows, None, relation, slice(self.backbone.blocks_without_words()))
        return Images(rows.pad(y), rows.mask[:, 0, 0], rows, relation)

    def match(self, images, captions, image_index, caption_index):
        """Scores of pairs.

        Args:
            images: `Images`.
            captions: `Captions`.
            image_index, caption_index: int64 (P,), members of ``images`` and ``captions``; or (U, M) images for each
                of U captions (U,), which is faster the larger M is.

        Returns:
            float32 (P,) or (U, M) in 0..1.
        """
        together = image_index.dim() == 2
        if together:
            which = caption_index
            places = torch.arange(len(which), device=which.device).repeat_interleave(image_index.shape[1])
        else:
            which, places = caption_index.unique(return_inverse=True)
        states, mask, pooled = captions.padded(which)
        rows = self._rows(mask)
        words = (rows.pack(states), rows, mask, pooled)
        scores = self._match(images, words, image_index.flatten(), places, together)
        return scores.view(image_index.shape)

    def _match(self, images, words, image_index, caption_index, together=False):
        """Decoder and head for pairs; ``words``: states, their `Rows`, mask (C, T) and pooled vectors (C, W)."""
        x, x_rows, mask, pooled = words
        y_rows = _RegionRows(self._rows(images.mask[image_index]), images.rows, image_index)
        if self.needs_full_padding:
            # Such operations take the words of each pair; nothing is packed then.
            x, x_rows = _taken(x, caption_index), self._rows(mask[caption_index])
        else:
            x_rows = _KeyRows(x_rows, caption_index, together)
        y = y_rows.pack(_taken(images.states, image_index))
        first = self.backbone.blocks_without_words()
        y = self.backbone.decode(y, x, y_rows, x_rows, images.relation, slice(first, None))
        return self.head.score(_taken(pooled, caption_index) + self.head.attflat_y(y, y_rows))


class _KeyRows(Rows):
    """Words that pairs attend to, projected once per caption: `split` and `bias` are those of the pairs.

    Args:
        rows: `Rows` of the captions.
        index: int64 (P,), the caption of each pair.
        sharing: Whether all captions have as many pairs, those of the first first.
    """

    def __init__(self, rows, index, sharing):
        super().__init__(rows.mask[index])
        self._rows, self._pairs = rows, index
        self.shared = rows if sharing else None

    def split(self, rows, heads):
        return _taken(self._rows.split(rows, heads), self._pairs)

    def split_keys(self, rows, heads):
        return _taken(self._rows.split_keys(rows, heads), self._pairs)


class _RegionRows(Rows):
    """Regions of pairs, whose relations are computed once per image.

    Args:
        rows: `Rows` of the pairs.
        images: `Rows` of the images.
        index: int64 (P,), the image of each pair.
    """

    def __init__(self, rows, images, index):
        super().__init__()
        self.__dict__.update(rows.__dict__)
        self._images, self._pairs = images, index

    def pair_bias(self, values, pairs, dtype):
        return _taken(self._images.pair_bias(values, pairs, dtype), self._pairs)


def _taken(values, index):
    """``values[index]`` along the first axis, by the look-up whose backward is the fastest."""
    return F.embedding(index, values.flatten(1)).unflatten(1, values.shape[1:])
