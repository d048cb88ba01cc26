"""Image-text matching: captions are encoded once, images are projected once, and many pairs of them are scored.

The encoder's output for a caption depends on the caption only. The decoder's state for an image, up to the first
operation that reads words, depends on the image only. `MatchingNet.encode` and `MatchingNet.project` compute these
once, and `MatchingNet.match` does the rest for the requested pairs. The scores equal those of complete forward passes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from models.mmnas.net import Batch, MultimodalNet

# (image, caption) of the three scores of a training sample; 0: its own, 1: the hard negative.
TRIPLE = ((0, 0), (0, 1), (1, 0))


class Words(NamedTuple):
    """C encoded captions, padded to the longest.

    Attributes:
        states: Words after the encoder, float (C, T, H).
        mask: Padding mask, bool (C, T), True = padding.
        pooled: The words as pooled by the head, float (C, W).
    """

    states: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor

    def take(self, index: torch.Tensor) -> "Words":
        """Select captions by ``index``, int64 (P,), which may contain repetitions."""
        return Words(*(value[index] for value in self))


class Captions(NamedTuple):
    """C encoded captions of different lengths, concatenated to save memory.

    Attributes:
        states: Words after the encoder without the padding of their batch, float (R, H).
        pooled: The words as pooled by the head, float (C, W).
        starts, widths: First row and number of rows of each caption, int64 (C,).
        lengths: Number of words of each caption, int64 (C,). The rest of its rows are padding.
    """

    states: torch.Tensor
    pooled: torch.Tensor
    starts: torch.Tensor
    widths: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence["Captions"]) -> "Captions":
        """Concatenate the captions of all parts."""
        firsts = torch.tensor([0, *(len(part.states) for part in parts)]).cumsum(0).tolist()
        starts = [part.starts + first for part, first in zip(parts, firsts, strict=False)]
        states, pooled, _, widths, lengths = (torch.cat(same) for same in zip(*parts, strict=True))
        return cls(states, pooled, torch.cat(starts), widths, lengths)

    def padded(self, which: torch.Tensor) -> Words:
        """Select captions by ``which``, int64 (U,), padded to the longest of them."""
        widths = self.widths[which]
        place = torch.arange(int(widths.max()), device=which.device)
        rows = self.starts[which, None] + torch.minimum(place, widths[:, None] - 1)
        return Words(F.embedding(rows, self.states), place >= self.lengths[which, None], self.pooled[which])


class Images(NamedTuple):
    """The states of I images before the first decoder block that reads words.

    Attributes:
        states: float (I, N, H).
        mask: Padding mask, bool (I, N), True = padding.
        relation: Embedded relations between regions, float (I, N, N, relation_size); None if no operation reads them.
    """

    states: torch.Tensor
    mask: torch.Tensor
    relation: torch.Tensor | None

    def take(self, index: torch.Tensor) -> "Images":
        """Select images by ``index``, int64 (P,), which may contain repetitions."""
        return Images(*(None if value is None else value[index] for value in self))


class MatchingNet(MultimodalNet):
    """`MultimodalNet` for pairs of images and captions. Its head is a `heads.MatchingHead`."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """Score pairs.

        Args:
            batch: A batch of pairs as in `MultimodalNet`; or of training samples, in which every entry has a second
                axis of size 2: the sample's own and the hard negative. Each caption is then encoded once and each image
                projected once, so pairs that share a caption or an image also share its dropout masks.

        Returns:
            float32 (B,) in 0..1. For training samples (B, 3): (image, caption), (image, negative caption), (negative
            image, caption).
        """
        if batch["tokens"].dim() == 2:
            return super().forward(batch)
        flat = {name: value.flatten(0, 1) for name, value in batch.items() if name not in ("label", "index")}
        count, device = len(batch["tokens"]), batch["tokens"].device
        firsts = 2 * torch.arange(count, device=device).view(-1, 1, 1)
        images, captions = (torch.tensor(TRIPLE, device=device) + firsts).flatten(0, 1).unbind(1)
        words = self.encode_words(flat["tokens"])
        return self.score_pairs(words, self.project(flat), captions, images).view(count, len(TRIPLE))

    def encode(self, tokens: torch.Tensor) -> Captions:
        """Encode captions, int64 (C, T) tokens, 0 = padding.

        Under autocast the states are kept in its dtype, in which the next layers read them anyway.
        """
        return self.keep(self.encode_words(tokens), tokens)

    def encode_words(self, tokens: torch.Tensor) -> Words:
        """Encode captions, int64 (C, T) tokens, and keep them padded."""
        x, mask = self.embed_words(tokens)
        x = self.encoder_decoder.encode(x, mask)
        return Words(x, mask, self.head.attflat_x(x, mask))

    def keep(self, words: Words, tokens: torch.Tensor) -> Captions:
        """Convert the result of `encode_words` for ``tokens`` to `Captions`."""
        lengths = (tokens != 0).sum(1)
        # Regions attend to the padding of a caption that has no words, so its padding is kept.
        every = self.needs_full_padding or bool((lengths == 0).any())
        widths = torch.full_like(lengths, tokens.shape[1]) if every else lengths
        kept = torch.arange(tokens.shape[1], device=tokens.device) < widths[:, None]
        kind = tokens.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else words.states.dtype
        return Captions(words.states[kept].to(dtype), words.pooled, widths.cumsum(0) - widths, widths, lengths)

    def project(self, batch: Batch) -> Images:
        """Project images, from the ``regions``, ``boxes`` and ``counts`` of a batch of I images."""
        y, mask, relation = self.embed_regions(batch)
        before_words = slice(self.encoder_decoder.blocks_without_words())
        return Images(self.encoder_decoder.decode(y, None, mask, None, relation, before_words), mask, relation)

    def match(
        self, images: Images, captions: Captions, image_index: torch.Tensor, caption_index: torch.Tensor
    ) -> torch.Tensor:
        """Score pairs.

        Args:
            images: The result of `project`.
            captions: The result of `encode`.
            image_index, caption_index: Indices into ``images`` and ``captions``: int64 (P,) each; or (U, M) images
                for each of U captions (U,).

        Returns:
            float32 (P,) or (U, M) in 0..1.
        """
        if image_index.dim() == 2:
            caption_index = caption_index[:, None].expand_as(image_index)
        which, places = caption_index.flatten().unique(return_inverse=True)
        return self.score_pairs(captions.padded(which), images, places, image_index.flatten()).view(image_index.shape)

    def score_pairs(
        self, words: Words, images: Images, caption_index: torch.Tensor, image_index: torch.Tensor
    ) -> torch.Tensor:
        """Return the scores, float32 (P,), of pairs given by indices into ``words`` and ``images``, int64 (P,) each."""
        x, x_mask, pooled = words.take(caption_index)
        y, y_mask, relation = images.take(image_index)
        reading_words = slice(self.encoder_decoder.blocks_without_words(), None)
        y = self.encoder_decoder.decode(y, x, y_mask, x_mask, relation, reading_words)
        return self.head.score(pooled + self.head.attflat_y(y, y_mask))
