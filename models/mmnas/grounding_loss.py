"""Targets and loss of visual grounding, computed where the network is: MMNas, specification sections 4 and 7."""

import torch
from torch.nn import functional as F

from models.mmnas.rows import padding_of
from util.boxes import encode_boxes, overlaps
from util.distributed import sum_over_ranks

SCORES_LOSSES = ("kld", "bce")
# What `bce` asks of regions that overlap less than this much, (overlap, score); of all others 1. Fixed numbers of the
# original, whatever the threshold.
STEPS = ((0.7, 0.9), (0.6, 0.8))


def grounding_targets(batch, scores_loss="kld", threshold=0.5, convention="pixels"):
    """What a network should say of every region.

    Args:
        batch: dict with ``boxes`` float (B, N, 4), x1, y1, x2, y2 in pixels, ``counts`` int64 (B,), and ``label``
            float (B, 4), the true box.
        scores_loss: ``kld``: scores are the overlaps of at least ``threshold``, divided by their sum; ``bce``: they
            are 0.8, 0.9 or 1 there by overlap (below 0.6, below 0.7, above).
        threshold: Overlap from which a region is positive.
        convention: See `util.boxes.CONVENTIONS`.

    Returns:
        Scores float32 (B, N), zero but for positive regions; offsets to the true box float32 (B, N, 4); whether a
        region is positive, bool (B, N). Padding never is.
    """
    boxes, goals = batch["boxes"], batch["label"][:, None]
    found = overlaps(boxes, goals, convention).squeeze(-1)
    positive = (found >= threshold) & ~padding_of(batch["counts"], boxes.shape[1])
    if scores_loss == "kld":
        # Not a product: two boxes without area overlap by NaN.
        scores = found.masked_fill(~positive, 0.0)
        scores = scores / (scores.sum(1, keepdim=True) + 1e-8)
    else:
        scores = positive.double()
        for limit, score in STEPS:
            scores = scores.masked_fill(positive & (found < limit), score)
    return scores.float(), encode_boxes(boxes, goals).float(), positive


class GroundingLoss:
    """Loss of the scores plus ``balance`` times that of the offsets of the positive regions.

    kld: sum of m KL(target || scores) over the samples / sum of m, where m is 1 for samples with a positive region
    and 0 for others; bce: binary cross entropy, summed over regions, mean over the samples. Offsets: smooth L1 (beta
    1), summed over the positive regions and their four offsets, divided by the number of positive regions.

    `prepare` divides by the numbers of the whole batch, over all ranks, so that the mean over the samples is this
    loss however the batch is cut. A batch that was not prepared (evaluation) is divided sample by sample: the mean
    over the samples of m KL + ``balance`` times the mean over the sample's positive regions, the same for every batch
    size and number of processes. A term without any positive region is 0.

    Args:
        scores_loss, threshold, convention: See `grounding_targets`.
        balance: Weight of the offsets' loss, LOSS_LAMBDA of the original.
    """

    def __init__(self, scores_loss="kld", balance=0.5, threshold=0.5, convention="pixels"):
        self.scores_loss, self.balance = scores_loss, balance
        self.threshold, self.convention = threshold, convention

    def prepare(self, batch):
        """``batch`` with the targets and each sample's weights, by the numbers of the whole batch.

        To be called by all ranks, each with its share.

        Args:
            batch: See `grounding_targets`.

        Returns:
            A new dict with ``target_scores`` float32 (B, N), ``target_offsets`` float32 (B, N, 4), ``positive`` bool
            (B, N), ``score_weight`` and ``offset_weight`` float32 (B,) besides.
        """
        batch = self._with_targets(batch)
        positive = batch["positive"]
        own = torch.stack([positive.new_tensor(len(positive), dtype=torch.float64), *_numbers(positive)])
        samples, grounded, regions = sum_over_ranks(own)
        return self._weighted(batch, samples / grounded.clamp(min=1), samples / regions.clamp(min=1))

    def __call__(self, outputs, batch):
        """The loss.

        Args:
            outputs: Scores float32 (B, N), log probabilities or for ``bce`` logits, and offsets float32 (B, N, 4).
            batch: What `prepare` returned or a part of its rows, or a batch that was not prepared.

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

    def _with_targets(self, batch):
        names = ("target_scores", "target_offsets", "positive")
        found = grounding_targets(batch, self.scores_loss, self.threshold, self.convention)
        return batch | dict(zip(names, found, strict=True))

    @staticmethod
    def _weighted(batch, score_weight, offset_weight):
        size = (len(batch["positive"]),)
        weights = {"score_weight": score_weight, "offset_weight": offset_weight}
        return batch | {name: weight.float().expand(size) for name, weight in weights.items()}


def _numbers(positive):
    """Samples with a positive region, and positive regions, of bool (B, N)."""
    return positive.any(1).sum().double(), positive.sum().double()
