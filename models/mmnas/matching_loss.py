"""Losses of image-text matching (specification section 4), on scores in 0..1 of `MatchingNet`'s training samples."""

from torch.nn import functional as F

LOSSES = ("bce", "margin")
MARGIN = 0.2


def bce_loss(scores):
    """2 BCE(own, 1) + BCE(negative caption, 0) + BCE(negative image, 0), mean over the samples.

    Args:
        scores: float32 (B, 3): image and caption, image and negative caption, negative image and caption.
    """
    own, caption, image = scores.unbind(1)
    positive = F.binary_cross_entropy(own, own.new_ones(own.shape))
    negatives = [F.binary_cross_entropy(one, one.new_zeros(one.shape)) for one in (caption, image)]
    return 2 * positive + sum(negatives)


def margin_loss(scores):
    """max(0, 0.2 + negative caption - own) + max(0, 0.2 + negative image - own), mean over the samples.

    Args:
        scores: As of `bce_loss`.
    """
    own, *negatives = scores.unbind(1)
    return sum((MARGIN + one - own).clamp(min=0) for one in negatives).mean()


class MatchingLoss:
    """A loss of `LOSSES` as an `Updater` calls it.

    Args:
        kind: ``bce`` or ``margin``.
    """

    def __init__(self, kind):
        self._loss = {"bce": bce_loss, "margin": margin_loss}[kind]

    def __call__(self, outputs, batch):
        """Mean over the samples, of scores (B, 3); ``batch`` has nothing to add."""
        return self._loss(outputs)
