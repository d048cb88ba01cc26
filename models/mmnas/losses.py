"""Losses of visual grounding and of image-text matching, as in the original code of MMNas.

Visual question answering uses `torch.nn.BCEWithLogitsLoss`.
"""

import torch
from torch.nn import functional as F

from models.mmnas.regions import padding_mask
from util.boxes import encode_boxes, overlaps
from util.distributed import sum_over_ranks

Batch = dict[str, torch.Tensor]

# Target scores of `bce`, (overlap, score): regions with a smaller overlap have this score, all others 1. As in the
# original, these numbers do not depend on the threshold.
BCE_STEPS = ((0.7, 0.9), (0.6, 0.8))
# The difference that `margin_loss` demands between the scores of a matching and a non-matching pair.
MARGIN = 0.2


def grounding_targets(
    batch: Batch, scores_loss: str = "kld", threshold: float = 0.5, convention: str = "pixels"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the training targets of every region.

    Args:
        batch: A dict with ``boxes``, float (B, N, 4), x1, y1, x2, y2 in pixels; ``counts``, int64 (B,); and
            ``label``, float (B, 4), the ground-truth box.
        scores_loss: ``kld``: scores of positive regions are their overlaps, divided by the sum of these; ``bce``: they
            are 0.8 for overlaps below 0.6, 0.9 for overlaps below 0.7, otherwise 1.
        threshold: Overlap (IoU) from which a region is positive.
        convention: See `util.boxes.CONVENTIONS`.

    Returns:
        Scores, float32 (B, N), zero except for positive regions; offsets to the ground-truth box, float32 (B, N, 4);
        and whether a region is positive, bool (B, N). Padding is never positive.
    """
    boxes, goals = batch["boxes"], batch["label"][:, None]
    overlap = overlaps(boxes, goals, convention).squeeze(-1)
    positive = (overlap >= threshold) & ~padding_mask(batch["counts"], boxes.shape[1])
    if scores_loss == "kld":
        # Filled instead of multiplied by 0, since the overlap of two boxes without area is NaN.
        scores = overlap.masked_fill(~positive, 0.0)
        scores = scores / (scores.sum(1, keepdim=True) + 1e-8)
    else:
        scores = positive.double()
        for limit, score in BCE_STEPS:
            scores = scores.masked_fill(positive & (overlap < limit), score)
    return scores.float(), encode_boxes(boxes, goals).float(), positive


class GroundingLoss:
    """Loss of the scores plus ``balance`` times the loss of the offsets of positive regions.

    Scores: ``kld`` is the sum over samples of m KL(target || scores), divided by the sum of m, where m is 1 for samples
    with a positive region and 0 for others. ``bce`` is the binary cross entropy, summed over regions and averaged over
    samples. Offsets: smooth L1 (beta 1), summed over positive regions and their four offsets, divided by the number of
    positive regions.

    `prepare` computes the divisors from the whole batch, over all ranks. The mean over samples then equals this loss,
    however the batch is split. A batch that was not prepared (evaluation) is divided sample by sample: it is the mean
    over samples of m KL plus ``balance`` times the mean over the sample's positive regions, which does not depend on
    the batch size or the number of processes. A term without any positive region is 0.

    Args:
        scores_loss, threshold, convention: See `grounding_targets`.
        balance: Weight of the offsets' loss, LOSS_LAMBDA in the original.
    """

    def __init__(
        self, scores_loss: str = "kld", balance: float = 0.5, threshold: float = 0.5, convention: str = "pixels"
    ) -> None:
        self.scores_loss, self.balance = scores_loss, balance
        self.threshold, self.convention = threshold, convention

    def prepare(self, batch: Batch) -> Batch:
        """Add the targets, and the weight of each sample, which depends on the whole batch.

        A collective call: all ranks must make it, each with its part of the batch.

        Args:
            batch: See `grounding_targets`.

        Returns:
            A new dict that also contains ``target_scores``, float32 (B, N); ``target_offsets``, float32 (B, N, 4);
            ``positive``, bool (B, N); ``score_weight`` and ``offset_weight``, float32 (B,).
        """
        batch = self._with_targets(batch)
        positive = batch["positive"]
        own = torch.stack([positive.new_tensor(len(positive), dtype=torch.float64), *_numbers(positive)])
        samples, grounded, regions = sum_over_ranks(own)
        return self._weighted(batch, samples / grounded.clamp(min=1), samples / regions.clamp(min=1))

    def __call__(self, outputs: tuple[torch.Tensor, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Compute the loss.

        Args:
            outputs: Scores, float32 (B, N), log probabilities (``kld``) or logits (``bce``), and offsets, float32
                (B, N, 4).
            batch: The result of `prepare` or some of its rows, or a batch that was not prepared.

        Returns:
            float32 scalar, the mean over the samples of ``batch``.
        """
        scores, offsets = outputs
        if "score_weight" not in batch:
            batch = self._with_targets(batch)
            own = batch["positive"].sum(1).clamp(min=1)
            batch = self._weighted(batch, torch.ones_like(own), 1 / own)
        target, positive = batch["target_scores"], batch["positive"]
        if self.scores_loss == "kld":
            of_scores = F.kl_div(scores, target, reduction="none").sum(1) * batch["score_weight"]
        else:
            of_scores = F.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(1)
        distances = F.smooth_l1_loss(offsets, batch["target_offsets"], reduction="none").sum(2)
        of_offsets = distances.masked_fill(~positive, 0.0).sum(1) * batch["offset_weight"]
        return (of_scores + self.balance * of_offsets).mean()

    def _with_targets(self, batch: Batch) -> Batch:
        names = ("target_scores", "target_offsets", "positive")
        targets = grounding_targets(batch, self.scores_loss, self.threshold, self.convention)
        return batch | dict(zip(names, targets, strict=True))

    @staticmethod
    def _weighted(batch: Batch, score_weight: torch.Tensor, offset_weight: torch.Tensor) -> Batch:
        size = (len(batch["positive"]),)
        weights = {"score_weight": score_weight, "offset_weight": offset_weight}
        return batch | {name: weight.float().expand(size) for name, weight in weights.items()}


def _numbers(positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of samples with a positive region, and number of positive regions, of bool (B, N)."""
    return positive.any(1).sum().double(), positive.sum().double()


def bce_loss(scores: torch.Tensor) -> torch.Tensor:
    """2 BCE(own, 1) + BCE(negative caption, 0) + BCE(negative image, 0), mean over samples.

    Args:
        scores: float32 (B, 3) in 0..1, the scores of three pairs per sample: (image, caption), (image, negative
            caption), (negative image, caption).

    Returns:
        float32 scalar.
    """
    own, caption, image = scores.unbind(1)
    positive = F.binary_cross_entropy(own, own.new_ones(own.shape))
    negatives = [F.binary_cross_entropy(one, one.new_zeros(one.shape)) for one in (caption, image)]
    return 2 * positive + sum(negatives)


def margin_loss(scores: torch.Tensor) -> torch.Tensor:
    """max(0, 0.2 + negative caption - own) + max(0, 0.2 + negative image - own), mean over samples.

    Args:
        scores: As in `bce_loss`.

    Returns:
        float32 scalar.
    """
    own, *negatives = scores.unbind(1)
    return sum((MARGIN + one - own).clamp(min=0) for one in negatives).mean()


class MatchingLoss:
    """`bce_loss` or `margin_loss` as a loss on the outputs of `matching.MatchingNet`.

    Args:
        kind: ``bce`` or ``margin``.
    """

    def __init__(self, kind: str) -> None:
        self._loss = {"bce": bce_loss, "margin": margin_loss}[kind]

    def __call__(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss of scores, float32 (B, 3), the mean over samples. ``batch`` is not read."""
        return self._loss(outputs)
