"""Losses of classification and regression: (outputs, batch) -> scalar tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F


def binary_cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Binary cross entropy of logits (N, K) and ``batch["label"]``, float (N, K); the mean over all elements."""
    return F.binary_cross_entropy_with_logits(outputs, batch["label"])


def summed_binary_cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Binary cross entropy of logits (N, K) and ``batch["label"]``, float (N, K); summed over K, mean over N."""
    return F.binary_cross_entropy_with_logits(outputs, batch["label"], reduction="sum") / len(outputs)


def cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Cross entropy of logits (N, K) and class indices ``batch["label"]``, int64 (N,); the mean over N."""
    return F.cross_entropy(outputs, batch["label"])


class WeightedCrossEntropy:
    """Cross entropy with a weight per class.

    Args:
        weights: Weight of each of the K classes.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = torch.tensor(weights, dtype=torch.float32)

    def __call__(self, outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """Return the loss of logits (N, K) and class indices ``batch["label"]``, int64 (N,).

        Unlike torch's weighted mean, the sum is divided by N and not by the weights in the batch. The mean over batches
        then equals the mean over all samples.
        """
        losses = F.cross_entropy(outputs, batch["label"], weight=self.weights.to(outputs.device), reduction="none")
        return losses.mean()


class StandardisedError:
    """Regression loss: squared or absolute error in units of the label's standard deviation.

    Args:
        mean, deviation: Mean and standard deviation of the training labels. The network predicts
            (label - mean) / deviation.
        kind: ``mse`` (squared error) or ``l1`` (absolute error).
    """

    def __init__(self, mean: float, deviation: float, kind: str) -> None:
        self.mean, self.deviation = mean, deviation
        self.error = {"mse": F.mse_loss, "l1": F.l1_loss}[kind]

    def __call__(self, outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """Return the mean error of outputs (N, 1) and ``batch["label"]``, float (N,)."""
        return self.error(outputs[:, 0], (batch["label"] - self.mean) / self.deviation)
