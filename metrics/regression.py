"""Metrics of tasks whose label is a number."""

from typing import Any

import numpy as np
import torch

from util.distributed import gather

# Sentiment is labelled from -3 (very negative) to 3 (very positive).
SENTIMENT_LIMIT = 3


class Regression:
    """Mean absolute error, Pearson correlation and R2 over an epoch.

    Args:
        sentiment: Also compute the scores for sentiment in -3..3, see `sentiment_scores`.
        select: The score that selects an epoch: ``r2`` or ``correlation``. R2 is always defined, while the correlation
            of constant outputs is NaN.

    Raises:
        ValueError: ``select`` is neither.
    """

    def __init__(self, sentiment: bool = False, select: str = "r2") -> None:
        if select not in ("r2", "correlation"):
            raise ValueError(f"{select!r} is neither r2 nor correlation")
        self.sentiment, self.name = sentiment, select
        self.description = (
            "mean_absolute_error; correlation: Pearson's; r2: 1 - squared error / variance of the labels;"
            f" {select} selects the epoch"
        )
        if sentiment:
            self.description += (
                "; accuracy_7: outputs rounded to -3..3; accuracy_2, f1_2: positive against negative labels, without"
                " those that are 0; accuracy_2_with_zero, f1_2_with_zero: negative against all others; F1 weighted"
            )
        self.reset()

    def reset(self) -> None:
        """Start a new pass."""
        self._predicted: list[torch.Tensor] = []
        self._true: list[torch.Tensor] = []

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add outputs (N,) or (N, 1) and ``batch["label"]``, float (N,)."""
        # Kept on the device, since a copy to the CPU would make every step wait.
        self._predicted.append(outputs.detach().reshape(len(outputs)))
        self._true.append(batch["label"])

    def compute(self) -> dict[str, float]:
        """Return ``mean_absolute_error``, ``correlation``, ``r2`` and, if requested, the scores of sentiment.

        They are computed over the samples of all ranks; NaN without samples.
        """
        own = None
        if self._true:
            own = [torch.cat(parts).double().cpu().numpy() for parts in (self._true, self._predicted)]
        parts = [part for part in gather(own) if part is not None]
        names = ["mean_absolute_error", "correlation", "r2"]
        if not parts:
            return dict.fromkeys(names, float("nan"))
        true, predicted = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        values = float(np.abs(predicted - true).mean()), _correlation(true, predicted), _r2(true, predicted)
        scores = dict(zip(names, values, strict=True))
        return scores | (sentiment_scores(true, predicted) if self.sentiment else {})


def _correlation(true, predicted):
    true, predicted = true - true.mean(), predicted - predicted.mean()
    scale = np.sqrt((true**2).sum() * (predicted**2).sum())
    return float((true * predicted).sum() / scale) if scale > 0 else float("nan")


def _r2(true, predicted):
    """R2 as in scikit-learn: with constant labels, 1 if all outputs are right, else 0."""
    error, variation = ((predicted - true) ** 2).sum(), ((true - true.mean()) ** 2).sum()
    if variation == 0:
        return float(error == 0)
    return float(1 - error / variation)


def sentiment_scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Scores for sentiment in -3..3, as papers on CMU-MOSI and CMU-MOSEI report them.

    Args:
        true: Labels, float (N,).
        predicted: Outputs, float (N,).

    Returns:
        A dict of ``accuracy_7`` (both rounded to -3..3), ``accuracy_2`` and ``f1_2`` (positive against negative,
        without labels of 0), ``accuracy_2_with_zero`` and ``f1_2_with_zero`` (negative against all others), each in
        0..1. A score is NaN if no sample counts for it.
    """
    limit = SENTIMENT_LIMIT
    seven = np.rint(true.clip(-limit, limit)) == np.rint(predicted.clip(-limit, limit))
    scores = {"accuracy_7": float(seven.mean())}
    sided = true != 0
    pairs = {"": (true[sided] > 0, predicted[sided] > 0), "_with_zero": (true >= 0, predicted >= 0)}
    for ending, (labels, outputs) in pairs.items():
        scores[f"accuracy_2{ending}"] = float((labels == outputs).mean()) if len(labels) else float("nan")
        scores[f"f1_2{ending}"] = _weighted_f1(labels, outputs)
    return scores


def _weighted_f1(true, predicted):
    if not len(true):
        return float("nan")
    total = 0.0
    for side in (False, True):
        hits = ((true == side) & (predicted == side)).sum()
        either = (true == side).sum() + (predicted == side).sum()
        total += (true == side).sum() * (2 * hits / either if either else 0)
    return float(total / len(true))
