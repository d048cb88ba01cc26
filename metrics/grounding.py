"""Accuracy of visual grounding: the share of expressions whose box overlaps the true one by half or more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from util.boxes import clip_boxes, decode_boxes, overlaps
from util.distributed import gather
from util.files import json_text, write_text

# The published protocol, whatever threshold the training takes.
LEAST_OVERLAP = 0.5


def best_boxes(outputs: tuple[torch.Tensor, torch.Tensor], batch: dict[str, Any]) -> torch.Tensor:
    """The box of each sample: that of the region with the largest score, moved by its offsets, inside the image.

    Args:
        outputs: Scores (B, N) and offsets (B, N, 4), see `util.boxes.decode_boxes`.
        batch: dict with ``boxes`` float (B, N, 4) and ``image_size`` float (B, 2), height and width in pixels.

    Returns:
        float64 (B, 4), x1, y1, x2, y2 in pixels.
    """
    scores, offsets = outputs
    best = scores.argmax(dim=1)[:, None, None].expand(-1, 1, 4)
    chosen = decode_boxes(batch["boxes"].gather(1, best), offsets.gather(1, best))[:, 0]
    return clip_boxes(chosen, batch["image_size"])


class GroundingAccuracy:
    """Share of samples whose `best_boxes` overlaps the true box by 0.5 or more, and the mean overlap.

    With several processes `compute` and `results` are to be called by all of them.

    Args:
        convention: Of overlaps, see `util.boxes.CONVENTIONS`; published numbers are those of ``pixels``.
    """

    name = "accuracy"

    def __init__(self, convention: str = "pixels") -> None:
        self.convention = convention
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._rows: list[torch.Tensor] = []
        self._found: list[torch.Tensor] = []

    def update(self, outputs: tuple[torch.Tensor, torch.Tensor], batch: dict[str, Any]) -> None:
        """Add outputs as of `best_boxes`, for the samples ``batch["index"]`` whose true boxes are ``batch["label"]``.

        ``index`` is int64 (B,), ``label`` float (B, 4).
        """
        boxes = best_boxes(outputs, batch)
        own = overlaps(boxes[:, None], batch["label"][:, None], self.convention)
        # Kept on the device: a copy to the CPU would make every step wait.
        self._rows.append(batch["index"])
        self._found.append(torch.cat([boxes, own[:, 0]], dim=1))

    def results(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every sample seen on any rank, once: numbers int64 (n,) ascending, boxes float64 (n, 4), overlaps (n,)."""
        own = np.zeros(0, np.int64), np.zeros((0, 5))
        if self._rows:
            own = torch.cat(self._rows).cpu().numpy(), torch.cat(self._found).cpu().numpy()
        rows, found = (np.concatenate(parts) for parts in zip(*gather(own), strict=True))
        rows, firsts = np.unique(rows, return_index=True)
        return rows, found[firsts, :4], found[firsts, 4]

    def compute(self) -> dict[str, float]:
        """``{"accuracy": share in 0..1, "mean_iou": mean overlap}``; NaN without samples."""
        _, _, found = self.results()
        if not len(found):
            return {self.name: float("nan"), "mean_iou": float("nan")}
        return {self.name: float((found >= LEAST_OVERLAP).mean()), "mean_iou": float(found.mean())}


def write_boxes(
    path: Path | str,
    results: tuple[np.ndarray, np.ndarray, np.ndarray],
    image_ids: Sequence[Any] | np.ndarray,
    expressions: Sequence[Sequence[str]],
) -> None:
    """Write boxes as a JSON list of ``{"index", "image_id", "tokens", "bbox": [x, y, w, h], "iou"}``, atomically.

    Args:
        path: The file.
        results: What `GroundingAccuracy.results` returns; w is x2 - x1, as in the official files.
        image_ids, expressions: Image id and list of words of each sample of the data set.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for row, (x1, y1, x2, y2), overlap in zip(*(part.tolist() for part in results), strict=True):
        box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
        about = {"index": row, "image_id": int(image_ids[row]), "tokens": expressions[row]}
        lines.append(json_text(about | {"bbox": box, "iou": round(overlap, 6)}))
    write_text(path, "[" + ",\n".join(lines) + "]\n")
