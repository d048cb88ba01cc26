"""Retrieval metrics from the scores of all pairs of images and captions: recall at 1, 5 and 10, median and mean rank.

Image 0 has captions 0..4, image 1 captions 5..9, and so on. The rank of an image (i2t) is the best position of its own
captions among all captions in descending order of their scores; the rank of a caption (t2i) is the position of its
image. Among equal scores the lower index comes first, so a constant score gives chance results. The original reverses
an unstable sort, so its order of ties depends on the implementation. NaN counts as lower than any number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.classification import Accuracy
from util.cli import UserError

if TYPE_CHECKING:
    import torch

CAPTIONS_PER_IMAGE = 5
RECALLS = (1, 5, 10)
DIRECTIONS = ("i2t", "t2i")
MEAN_RECALL = "mean_recall"
# Number of rows that are compared at a time, which limits the memory needed in addition to the scores.
_BLOCK = 256


def retrieval_ranks(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute ranks, from 0, in both directions.

    Args:
        scores: float (n, 5 n), with a row per image and a column per caption.

    Returns:
        Ranks of the images, int64 (n,), and of the captions, int64 (5 n,).

    Raises:
        UserError: there are not five captions per image.
    """
    scores = np.asarray(scores)
    images = len(scores)
    if scores.shape != (images, CAPTIONS_PER_IMAGE * images) or not images:
        raise UserError(f"scores of shape {scores.shape}: retrieval needs n images and five captions of each, (n, 5 n)")
    captions = np.arange(scores.shape[1])
    right = captions // CAPTIONS_PER_IMAGE
    own = _finite(scores[right, captions])
    image_ranks, caption_ranks = np.zeros(images, dtype=np.int64), np.zeros(len(captions), dtype=np.int64)
    for start in range(0, images, _BLOCK):
        rows, block = np.arange(start, min(start + _BLOCK, images)), _finite(scores[start : start + _BLOCK])
        caption_ranks += _ahead(block, own, rows[:, None] < right).sum(axis=0)
        mine = own[CAPTIONS_PER_IMAGE * start :][: CAPTIONS_PER_IMAGE * len(rows)].reshape(-1, CAPTIONS_PER_IMAGE)
        best = CAPTIONS_PER_IMAGE * rows + mine.argmax(axis=1)
        image_ranks[rows] = _ahead(block, mine.max(axis=1)[:, None], captions < best[:, None]).sum(axis=1)
    return image_ranks, caption_ranks


def _finite(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), -np.inf, scores)


def _ahead(scores: np.ndarray, own: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    return (scores > own) | ((scores == own) & earlier)


def retrieval_scores(scores: np.ndarray, fold_size: int | None = None) -> dict[str, float]:
    """Compute recalls in 0..1 and ranks from 1, in both directions.

    Args:
        scores: float (n, 5 n), with a row per image and a column per caption.
        fold_size: Average the results over folds of this many consecutive images (COCO's 1K protocol: five folds of
            1,000), ignoring an incomplete last fold; None: score all images together.

    Returns:
        A dict of ``i2t R@1``, ``i2t R@5``, ``i2t R@10``, ``i2t medr`` (floor of the median rank from 0, plus 1),
        ``i2t meanr``, the same for ``t2i``, and ``mean_recall``, the mean of the six recalls.

    Raises:
        UserError: there are not five captions per image, or there are fewer images than a fold needs.
    """
    size = fold_size or len(scores)
    folds = len(scores) // size if size else 0
    if not folds:
        raise UserError(f"a fold needs {size:,} images; there are only {len(scores):,}")
    all_scores = [
        _of_fold(scores[n * size : (n + 1) * size, n * size * CAPTIONS_PER_IMAGE : (n + 1) * size * CAPTIONS_PER_IMAGE])
        for n in range(folds)
    ]
    return {name: float(np.mean([one[name] for one in all_scores])) for name in all_scores[0]}


def _of_fold(scores: np.ndarray) -> dict[str, float]:
    fold_scores: dict[str, float] = {}
    for direction, ranks in zip(DIRECTIONS, retrieval_ranks(scores), strict=True):
        fold_scores |= {f"{direction} R@{k}": float((ranks < k).mean()) for k in RECALLS}
        fold_scores |= {
            f"{direction} medr": float(np.floor(np.median(ranks)) + 1),
            f"{direction} meanr": ranks.mean() + 1.0,
        }
    recalls = [fold_scores[f"{direction} R@{k}"] for direction in DIRECTIONS for k in RECALLS]
    return {MEAN_RECALL: float(np.mean(recalls))} | fold_scores


def retrieval_table(scores: Mapping[str, float]) -> list[str]:
    """Format scores as the original prints them: recalls in %, median and mean rank, with two decimals.

    Args:
        scores: The result of `retrieval_scores`.

    Returns:
        One line per direction.
    """
    names = [f"R@{k}" for k in RECALLS]
    values = {
        direction: [100 * scores[f"{direction} {name}"] for name in names]
        + [scores[f"{direction} {name}"] for name in ("medr", "meanr")]
        for direction in DIRECTIONS
    }
    return [f"{direction} results: {' '.join(f'{value:.2f}' for value in row)}" for direction, row in values.items()]


def best_of_rows(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the ``count`` largest scores in each row: (m, k) -> int64 (m, count).

    The best comes first; ties go to the lower column.
    """
    rows = (np.argsort(-_finite(row), kind="stable")[:count] for row in scores)
    return np.stack(list(rows))


class TripleAccuracy(Accuracy):
    """Fraction of training samples whose own pair scores higher than both hard negatives."""

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add scores (B, 3), the first of which belongs to the sample's own pair."""
        self._correct = self._correct + (outputs[:, :1] > outputs[:, 1:]).all(dim=1).sum()
        self._count += len(outputs)
