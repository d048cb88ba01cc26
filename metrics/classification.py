"""Metrics of classification tasks."""

import numpy as np
import torch

from util.distributed import gather


class MultilabelF1:
    """F1 of ``sigmoid(logit) > threshold`` over a whole epoch, by scikit-learn.

    Args:
        average: ``weighted`` (the papers' metric on MM-IMDB), ``macro``, ``micro`` or ``samples``.
        threshold: Probability above which a label is predicted.
        zero_division: Value of a label that is neither present nor predicted (1 in the original's training).
    """

    name = "f1"

    def __init__(self, average="weighted", threshold=0.3, zero_division=1.0):
        self.average, self.threshold, self.zero_division = average, threshold, zero_division
        self.reset()

    def reset(self):
        """Forget all samples."""
        self._predicted, self._true = [], []

    def update(self, outputs, batch):
        """Add logits (N, K) and ``batch["label"]`` (N, K) of zeros and ones."""
        self._predicted.append((torch.sigmoid(outputs) > self.threshold).cpu().numpy())
        self._true.append(batch["label"].bool().cpu().numpy())

    def compute(self):
        """``{"f1": value in 0..1}`` over all samples of all ranks; NaN without samples."""
        from sklearn.metrics import f1_score

        parts = gather((self._true, self._predicted))
        true = [array for part in parts for array in part[0]]
        if not true:
            return {self.name: float("nan")}
        predicted = np.concatenate([array for part in parts for array in part[1]])
        score = f1_score(np.concatenate(true), predicted, average=self.average, zero_division=self.zero_division)
        return {self.name: float(score)}
