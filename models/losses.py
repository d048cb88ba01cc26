"""Classification losses: (outputs, batch) -> scalar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

if TYPE_CHECKING:
    import torch


def binary_cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Binary cross entropy of logits (N, K) with ``batch["label"]`` (N, K), mean over all elements."""
    return F.binary_cross_entropy_with_logits(outputs, batch["label"])


def summed_binary_cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Binary cross entropy of logits (N, K) with ``batch["label"]`` (N, K), summed over K, mean over the samples."""
    return F.binary_cross_entropy_with_logits(outputs, batch["label"], reduction="sum") / len(outputs)


def cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Cross entropy of logits (N, K) with the classes ``batch["label"]``, int64 (N,), mean over the samples."""
    return F.cross_entropy(outputs, batch["label"])
