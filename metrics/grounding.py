"""Accuracy of visual grounding: the fraction of expressions whose box has an IoU of at least 0.5 with the ground truth.

The published protocol does not depend on the overlap threshold that training uses.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from util.boxes import clip_boxes, decode_boxes, overlaps
from util.distributed import gather
from util.files import json_text, write_text

MIN_OVERLAP = 0.5


def best_boxes(outputs: tuple[torch.Tensor, torch.Tensor], batch: dict[str, Any]) -> torch.Tensor:
    """Predicted box of each sample: the region with the largest score, moved by its offsets, clipped to the image.

    Args:
        outputs: Scores (B, N) and offsets (B, N, 4), see `util.boxes.decode_boxes`.
        batch: A dict with ``boxes``, float (B, N, 4), and ``image_size``, float (B, 2), height and width in pixels.

    Returns:
        float64 (B, 4), x1, y1, x2, y2 in pixels.
    """
    scores, offsets = outputs
    best = scores.argmax(dim=1)[:, None, None].expand(-1, 1, 4)
    chosen = decode_boxes(batch["boxes"].gather(1, best), offsets.gather(1, best))[:, 0]
    return clip_boxes(chosen, batch["image_size"])


class GroundingAccuracy:
    """Fraction of samples whose box (`best_boxes`) has an IoU of at least 0.5 with the ground truth, and the mean IoU.

    `compute` and `results` are collective calls: all processes must make them.

    Args:
        convention: How overlaps are computed, see `util.boxes.CONVENTIONS`; published numbers use ``pixels``.
    """

    name = "accuracy"

    def __init__(self, convention: str = "pixels") -> None:
        self.convention = convention
        self.reset()

    def reset(self) -> None:
        """Start a new pass."""
        self._rows: list[torch.Tensor] = []
        self._boxes: list[torch.Tensor] = []

    def update(self, outputs: tuple[torch.Tensor, torch.Tensor], batch: dict[str, Any]) -> None:
        """Add a batch.

        Args:
            outputs: Scores and offsets, see `best_boxes`.
            batch: See `best_boxes`; also ``index``, int64 (B,), numbers of the samples, and ``label``, float (B, 4),
                ground-truth boxes.
        """
        boxes = best_boxes(outputs, batch)
        own = overlaps(boxes[:, None], batch["label"][:, None], self.convention)
        # Kept on the device, since a copy to the CPU would make every step wait.
        self._rows.append(batch["index"])
        self._boxes.append(torch.cat([boxes, own[:, 0]], dim=1))

    def results(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the results of all ranks, each sample once.

        Returns:
            Numbers of the samples, int64 (n,), ascending; predicted boxes, float64 (n, 4); overlaps, float64 (n,).
        """
        own = np.zeros(0, np.int64), np.zeros((0, 5))
        if self._rows:
            own = torch.cat(self._rows).cpu().numpy(), torch.cat(self._boxes).cpu().numpy()
        rows, boxes = (np.concatenate(parts) for parts in zip(*gather(own), strict=True))
        rows, firsts = np.unique(rows, return_index=True)
        return rows, boxes[firsts, :4], boxes[firsts, 4]

    def compute(self) -> dict[str, float]:
        """Return ``{"accuracy": value in 0..1, "mean_iou": mean overlap}``; NaN without samples."""
        _, _, overlap = self.results()
        if not len(overlap):
            return {self.name: float("nan"), "mean_iou": float("nan")}
        return {self.name: float((overlap >= MIN_OVERLAP).mean()), "mean_iou": float(overlap.mean())}


def write_boxes(
    path: Path | str,
    results: tuple[np.ndarray, np.ndarray, np.ndarray],
    image_ids: Sequence[Any] | np.ndarray,
    expressions: Sequence[Sequence[str]],
) -> None:
    """Write boxes as a JSON list of ``{"index", "image_id", "tokens", "bbox": [x, y, w, h], "iou"}``, atomically.

    Args:
        path: The file.
        results: The result of `GroundingAccuracy.results`. In the file, w is x2 - x1, as in the official files.
        image_ids, expressions: Image id and list of words of each sample in the data set.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for row, (x1, y1, x2, y2), overlap in zip(*(part.tolist() for part in results), strict=True):
        box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
        about = {"index": row, "image_id": int(image_ids[row]), "tokens": expressions[row]}
        lines.append(json_text(about | {"bbox": box, "iou": round(overlap, 6)}))
    write_text(path, "[" + ",\n".join(lines) + "]\n")
