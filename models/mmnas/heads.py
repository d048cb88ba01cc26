"""The heads that follow the encoder-decoder in each task of MMNas.

What runs are the fast forms of some classes (`models.mmnas.fast`), except for those whose code is changed here.
Outputs are float32, also under autocast; in a float64 network they are float64.
"""

import torch
from torch import nn

from models.mmnas.layers import MASK_VALUE, AttentionPooling, LayerNorm
from util.nested import at_least_float32


class PoolingHead(nn.Module):
    """Base class of heads that pool both sides by attention, add the results, normalise and project.

    Args:
        hsize: Width H of both sides.
        dropout: Dropout rate of the poolings.
        outputs: Width of the projection.
        pooled_width: Width W of the pooled vectors; None: 2 H.
        pooling: ``hidden`` and ``glimpses`` of `AttentionPooling`.

    Attributes:
        reads_padding: Whether outputs depend on padded regions.
    """

    reads_padding = False

    def __init__(
        self, hsize: int, dropout: float, outputs: int, pooled_width: int | None = None, **pooling: int
    ) -> None:
        super().__init__()
        width = pooled_width or 2 * hsize
        self.attflat_x = AttentionPooling(hsize, width, dropout, **pooling)
        self.attflat_y = AttentionPooling(hsize, width, dropout, **pooling)
        self.proj_norm = LayerNorm(width)
        self.proj = nn.Linear(width, outputs)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Project the sum of the pooled sides.

        Args:
            x, y: Words, float (B, T, H), and regions, float (B, N, H).
            x_mask, y_mask: Padding masks, bool (B, T) and (B, N), True = padding; or None.

        Returns:
            float (B, outputs).
        """
        return self.proj(self.proj_norm(self.attflat_x(x, x_mask) + self.attflat_y(y, y_mask)))

    def weights(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pooling weights of words, float (B, T, G), and of regions, float (B, N, G)."""
        return self.attflat_x.weights(x, x_mask), self.attflat_y.weights(y, y_mask)


class AnswerHead(PoolingHead):
    """Head for visual question answering: logits of the answers, float32 (B, A)."""

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return at_least_float32(super().forward(x, y, x_mask, y_mask))


class MatchingHead(PoolingHead):
    """Head for image-text matching: the score of each pair after the sigmoid, float32 (B,) in 0..1."""

    def __init__(self, hsize: int, dropout: float, pooled_width: int | None = None, **pooling: int) -> None:
        super().__init__(hsize, dropout, 1, pooled_width, **pooling)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.score(self.attflat_x(x, x_mask) + self.attflat_y(y, y_mask))

    def score(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the scores of pairs, float32 (B,), from the sums (B, W) of pooled words and regions."""
        return at_least_float32(self.proj(self.proj_norm(pooled)).squeeze(1)).sigmoid()


class GroundingHead(nn.Module):
    """Head for visual grounding: a score and a box offset for every region.

    Args:
        hsize, dropout, pooled_width, pooling: See `PoolingHead`.
        scores_loss: ``kld``: scores are log probabilities over the regions; ``bce``: scores are logits.
        padded_regions: ``ignore`` gives padding a score of -1e9 before the softmax and offsets of 0, so that results do
            not depend on how far a batch is padded. ``score`` does what the original does: padding is scored like a
            region and takes part in the softmax, so batches must be padded to the official length. If every image has
            that many regions, as in the official features, both are the same.
    """

    def __init__(
        self,
        hsize: int,
        dropout: float,
        pooled_width: int | None = None,
        scores_loss: str = "kld",
        padded_regions: str = "ignore",
        **pooling: int,
    ) -> None:
        super().__init__()
        width = pooled_width or 2 * hsize
        self.scores_loss = scores_loss
        self.reads_padding = padded_regions == "score"
        self.attflat_x = AttentionPooling(hsize, width, dropout, **pooling)
        self.attfc_y = nn.Linear(hsize, width)
        self.proj_norm = LayerNorm(width)
        self.proj_scores = nn.Linear(width, 1)
        self.proj_reg = nn.Linear(width, 4)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score and place every region.

        Args:
            x, y, x_mask, y_mask: See `PoolingHead`.

        Returns:
            Scores, float32 (B, N), and box offsets, float32 (B, N, 4), as defined by `util.boxes.encode_boxes`.
        """
        return self.place(self.attflat_x(x, x_mask), self.attfc_y(y), y_mask)

    def place(
        self, words: torch.Tensor, regions: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and offsets as `forward` does, from pooled words (B, W) and projected regions (B, N, W)."""
        both = self.proj_norm(words[:, None] + regions)
        scores, offsets = at_least_float32(self.proj_scores(both).squeeze(-1)), at_least_float32(self.proj_reg(both))
        if mask is not None and not self.reads_padding:
            scores, offsets = scores.masked_fill(mask, MASK_VALUE), offsets.masked_fill(mask[..., None], 0.0)
        return scores.log_softmax(-1) if self.scores_loss == "kld" else scores, offsets
