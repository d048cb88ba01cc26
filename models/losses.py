"""Classification losses: (outputs, batch) -> scalar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F


def binary_cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Binary cross entropy of logits (N, K) with ``batch["label"]`` (N, K), mean over all elements."""
    return F.binary_cross_entropy_with_logits(outputs, batch["label"])


def summed_binary_cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Binary cross entropy of logits (N, K) with ``batch["label"]`` (N, K), summed over K, mean over the samples."""
    return F.binary_cross_entropy_with_logits(outputs, batch["label"], reduction="sum") / len(outputs)


def cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Cross entropy of logits (N, K) with the classes ``batch["label"]``, int64 (N,), mean over the samples."""
    return F.cross_entropy(outputs, batch["label"])


class WeightedCrossEntropy:
    """Cross entropy in which every class has a weight: a weighted mean over the samples.

    Args:
        weights: Weight of each class.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = torch.tensor(weights, dtype=torch.float32)

    def __call__(self, outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """The loss of logits (N, K) and ``batch["label"]`` int64 (N,).

        Not divided by the weights in the batch, so that the mean over batches is that over all samples.
        """
        losses = F.cross_entropy(outputs, batch["label"], weight=self.weights.to(outputs.device), reduction="none")
        return losses.mean()


class StandardisedError:
    """Squared or absolute error of a number, in units of its standard deviation.

    Args:
        mean, deviation: Of the training labels; the network puts out (label - mean) / deviation.
        kind: ``mse`` or ``l1``.
    """

    def __init__(self, mean: float, deviation: float, kind: str) -> None:
        self.mean, self.deviation = mean, deviation
        self.error = {"mse": F.mse_loss, "l1": F.l1_loss}[kind]

    def __call__(self, outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """The mean error of outputs (N, 1) and ``batch["label"]`` float (N,)."""
        return self.error(outputs[:, 0], (batch["label"] - self.mean) / self.deviation)
