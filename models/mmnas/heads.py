"""What follows the encoder-decoder in each task of MMNas (specification section 3, item 7).

Outputs are float32 also under autocast, and float64 in a float64 network.
"""

from torch import nn

from models.mmnas.layers import AttentionPooling, LayerNorm
from models.mmnas.rows import FLOOR, Rows
from util.dtypes import at_least_float32


class PoolingHead(nn.Module):
    """Both sides pooled by attention, added, normalised and projected.

    Args:
        hsize: H.
        dropout: Dropout rate of the poolings.
        outputs: Width of the projection.
        pooled_width: Width of the pooled vectors; 2 H if None.
        pooling: ``hidden`` and ``glimpses`` of `AttentionPooling`.
    """

    reads_padding = False

    def __init__(self, hsize, dropout, outputs, pooled_width=None, **pooling):
        super().__init__()
        width = pooled_width or 2 * hsize
        self.attflat_x = AttentionPooling(hsize, width, dropout, **pooling)
        self.attflat_y = AttentionPooling(hsize, width, dropout, **pooling)
        self.proj_norm = LayerNorm(width)
        self.proj = nn.Linear(width, outputs)

    def forward(self, x, y, x_mask=None, y_mask=None):
        """Project the sum of both sides.

        Args:
            x, y: Words and regions, float (B, L, H) or packed (R, H).
            x_mask, y_mask: Boolean (B, 1, 1, L), True = padding, or their `Rows`.

        Returns:
            float (B, outputs).
        """
        return self.proj(self.proj_norm(self.attflat_x(x, x_mask) + self.attflat_y(y, y_mask)))

    def weights(self, x, y, x_mask=None, y_mask=None):
        """What the poolings look at: weights of the words (B, T, G) and of the regions (B, N, G)."""
        return self.attflat_x.weights(x, x_mask), self.attflat_y.weights(y, y_mask)


class AnswerHead(PoolingHead):
    """Visual question answering: logits of the answers, float32 (B, A)."""

    def forward(self, x, y, x_mask=None, y_mask=None):
        return at_least_float32(super().forward(x, y, x_mask, y_mask))


class MatchingHead(PoolingHead):
    """Image-text matching: the score of each pair, float32 (B,) in 0..1, the sigmoid taken."""

    def __init__(self, hsize, dropout, pooled_width=None, **pooling):
        super().__init__(hsize, dropout, 1, pooled_width, **pooling)

    def forward(self, x, y, x_mask=None, y_mask=None):
        return self.score(self.attflat_x(x, x_mask) + self.attflat_y(y, y_mask))

    def score(self, pooled):
        """Scores float32 (B,) of pairs, from the sums (B, W) of their pooled words and regions."""
        return at_least_float32(self.proj(self.proj_norm(pooled)).squeeze(1)).sigmoid()


class GroundingHead(nn.Module):
    """Visual grounding: a score and a box offset for every region.

    Args:
        hsize, dropout, pooled_width, pooling: See `PoolingHead`.
        scores_loss: ``kld`` makes the scores log probabilities, ``bce`` leaves them logits.
        padded_regions: ``ignore`` gives padding a score of -1e9 before the softmax, and offsets of 0, so that
            nothing depends on how far a batch is padded; ``score`` does as the original: padding is scored like any
            region, and shares in the softmax over regions, so that batches need the official length. Where every
            image has that many regions, as in the official features, both are the same.
    """

    def __init__(self, hsize, dropout, pooled_width=None, scores_loss="kld", padded_regions="ignore", **pooling):
        super().__init__()
        width = pooled_width or 2 * hsize
        self.scores_loss = scores_loss
        self.reads_padding = padded_regions == "score"
        self.attflat_x = AttentionPooling(hsize, width, dropout, **pooling)
        self.attfc_y = nn.Linear(hsize, width)
        self.proj_norm = LayerNorm(width)
        self.proj_scores = nn.Linear(width, 1)
        self.proj_reg = nn.Linear(width, 4)

    def forward(self, x, y, x_mask=None, y_mask=None):
        """Score and place every region.

        Args:
            x, y, x_mask, y_mask: See `PoolingHead`; ``y`` is not packed if padding is scored.

        Returns:
            Scores (B, N) and offsets of the boxes (B, N, 4) as of `util.boxes.encode_boxes`, float32.
        """
        rows = Rows.of(y_mask)
        both = self.proj_norm(self.attflat_x(x, x_mask)[:, None] + rows.pad(self.attfc_y(y)))
        scores, offsets = map(at_least_float32, (self.proj_scores(both).squeeze(-1), self.proj_reg(both)))
        if not self.reads_padding and rows.mask is not None:
            padding = rows.mask[:, 0, 0]
            scores, offsets = scores.masked_fill(padding, FLOOR), offsets.masked_fill(padding[..., None], 0.0)
        return scores.log_softmax(-1) if self.scores_loss == "kld" else scores, offsets
