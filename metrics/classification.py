"""Metrics of classification tasks."""

from typing import Any

import numpy as np
import torch

from util.distributed import gather

# In multi-label tasks, labels with a larger probability are predicted.
THRESHOLD = 0.3


class Accuracy:
    """Fraction of samples whose largest logit is that of their class."""

    name = "accuracy"
    description = "accuracy: share of samples whose largest output is that of their class"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new pass."""
        self._correct: torch.Tensor | int = 0
        self._count = 0

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add logits (N, K) and class indices ``batch["label"]``, int64 (N,)."""
        # Summed on the device, since a copy to the CPU would make every step wait.
        self._correct = self._correct + (outputs.argmax(dim=1) == batch["label"]).sum()
        self._count += len(outputs)

    def compute(self) -> dict[str, float]:
        """Return ``{"accuracy": value in 0..1}`` over the samples of all ranks; NaN without samples."""
        parts = gather((float(self._correct), self._count))
        count = sum(part[1] for part in parts)
        return {self.name: sum(part[0] for part in parts) / count if count else float("nan")}


class AccuracyAndF1:
    """Accuracy and macro F1 over an epoch.

    As in scikit-learn, classes that are neither present nor predicted are left out of the mean, and the F1 of a class
    without a correct prediction is 0.

    Args:
        num_classes: Number of classes K.
        select: The score that selects an epoch: ``accuracy`` or ``macro_f1``.

    Raises:
        ValueError: ``select`` is neither.
    """

    def __init__(self, num_classes: int, select: str = "accuracy") -> None:
        if select not in ("accuracy", "macro_f1"):
            raise ValueError(f"{select!r} is neither accuracy nor macro_f1")
        self.name, self.num_classes = select, num_classes
        self.description = (
            "accuracy: share of samples whose largest output is that of their class; macro_f1: mean of the classes' F1;"
            f" {select} selects the epoch"
        )
        self.reset()

    def reset(self) -> None:
        """Start a new pass."""
        self._counts: torch.Tensor | None = None

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add logits (N, K) and class indices ``batch["label"]``, int64 (N,)."""
        # Counted on the device, since a copy to the CPU would make every step wait.
        pairs = batch["label"] * self.num_classes + outputs.argmax(dim=1)
        ones = torch.ones_like(pairs)
        counts = torch.zeros(self.num_classes**2, dtype=pairs.dtype, device=pairs.device).scatter_add_(0, pairs, ones)
        self._counts = counts if self._counts is None else self._counts + counts

    def compute(self) -> dict[str, float]:
        """Return ``accuracy`` and ``macro_f1``, each in 0..1, over the samples of all ranks; NaN without samples."""
        own = None if self._counts is None else self._counts.cpu().numpy()
        parts = [part for part in gather(own) if part is not None]
        if not parts:
            return {"accuracy": float("nan"), "macro_f1": float("nan")}
        table = np.sum(parts, axis=0).reshape(self.num_classes, self.num_classes)
        hits, either = np.diag(table), table.sum(0) + table.sum(1)
        seen = either > 0
        f1 = 2 * hits[seen] / either[seen]
        return {"accuracy": float(hits.sum() / table.sum()), "macro_f1": float(f1.mean())}


class SoftAccuracy(Accuracy):
    """Mean soft score (0..1) of the class with the largest logit. It is cheap enough for every training step."""

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add logits (N, A) and soft scores ``batch["label"]``, float (N, A)."""
        chosen = batch["label"].gather(1, outputs.argmax(dim=1, keepdim=True))
        self._correct = self._correct + chosen.double().sum()
        self._count += len(outputs)


class MultilabelF1:
    """F1 of the predictions ``sigmoid(logit) > threshold`` over an epoch, computed by scikit-learn.

    Args:
        average: ``weighted`` (the papers' metric on MM-IMDB), ``macro``, ``micro`` or ``samples``.
        threshold: Probability above which a label is predicted.
        zero_division: F1 of a label that is neither present nor predicted (1 in the original's training).
    """

    name = "f1"

    def __init__(self, average: str = "weighted", threshold: float = THRESHOLD, zero_division: float = 1.0) -> None:
        self.average, self.threshold, self.zero_division = average, threshold, zero_division
        self.description = (
            f"F1, {average} average (--f1_type {average}); a label with a probability above {threshold} is predicted; "
            f"one that is neither present nor predicted counts {zero_division:g}"
        )
        self.reset()

    def reset(self) -> None:
        """Start a new pass."""
        self._predicted: list[torch.Tensor] = []
        self._true: list[torch.Tensor] = []

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add logits (N, K) and ``batch["label"]``, (N, K) with values 0 and 1."""
        # Kept on the device, since a copy to the CPU would make every step wait.
        self._predicted.append(torch.sigmoid(outputs) > self.threshold)
        self._true.append(batch["label"].bool())

    def compute(self) -> dict[str, float]:
        """Return ``{"f1": value in 0..1}`` over the samples of all ranks; NaN without samples."""
        from sklearn.metrics import f1_score

        own = [torch.cat(parts).cpu().numpy() for parts in (self._true, self._predicted)] if self._true else None
        parts = [part for part in gather(own) if part is not None]
        if not parts:
            return {self.name: float("nan")}
        true, predicted = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return {self.name: float(f1_score(true, predicted, average=self.average, zero_division=self.zero_division))}
