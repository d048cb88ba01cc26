"""Geometry of the regions of an image, computed where the boxes are: on the device, for the pairs that are needed."""

from dataclasses import dataclass

import torch

from models.mmnas.rows import padding_of

RELATION_FEATURES = 4
BOX_FEATURES = 5
# Distances below this share of a box's size count as this share.
SMALLEST_DISTANCE = 1e-3


@dataclass(frozen=True)
class Relation:
    """What relation attention knows of pairs of positions.

    Attributes:
        values: (P, C) for the pairs in ``pairs``, or (B, L, L, C) for all.
        pairs: int64 (P,), places of the pairs among B * L * L (see `Rows.pairs`), or None.
    """

    values: torch.Tensor
    pairs: torch.Tensor | None = None

    @classmethod
    def of(cls, value):
        """``value`` itself if it is a `Relation`, else one of all pairs (B, L, L, C)."""
        return value if isinstance(value, cls) else cls(value)


def box_relations(boxes, counts, pairs=None):
    """Relative position and size of two boxes of an image: MMNas, specification section 5.

    With centres c and sizes w = x2 - x1 + 1, h = y2 - y1 + 1 in pixels, of boxes i and j:
    [log max(|cx_i - cx_j| / w_i, 1e-3), log max(|cy_i - cy_j| / h_i, 1e-3), log(w_i / w_j), log(h_i / h_j)].

    Args:
        boxes: float (B, N, 4), x1, y1, x2, y2 in pixels.
        counts: int64 (B,), number of boxes of each image.
        pairs: int64 (P,), places of pairs among B * N * N; None: all pairs.

    Returns:
        float32 (P, 4), or (B, N, N, 4) for all pairs; zeros where i or j is none of an image's boxes. float64 for
        boxes in float64.
    """
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    length = boxes.shape[1]
    real = ~padding_of(counts, length)
    if pairs is None:
        first, second = boxes[:, :, None], boxes[:, None]
        both = real[:, :, None] & real[:, None]
    else:
        row, column = pairs // length, pairs // length**2 * length + pairs % length
        first, second = boxes.flatten(0, 1)[row], boxes.flatten(0, 1)[column]
        both = real.flatten()[row] & real.flatten()[column]
    size, other = first[..., 2:] - first[..., :2] + 1, second[..., 2:] - second[..., :2] + 1
    centre, other_centre = (first[..., 2:] + first[..., :2]) / 2, (second[..., 2:] + second[..., :2]) / 2
    distance = ((centre - other_centre).abs() / size).clamp(min=SMALLEST_DISTANCE)
    values = torch.cat([distance.log(), (size / other).log()], dim=-1)
    return values.masked_fill(~both[..., None], 0.0)


def given_relations(relations, pairs=None):
    """The ``pairs`` (P,) of relations (B, N, N, C) that a batch carries; None: all."""
    return relations if pairs is None else relations.flatten(0, 2)[pairs]


def box_features(boxes, image_size):
    """Position and area of boxes relative to their image: x1 / W, y1 / H, x2 / W, y2 / H, area / (W * H).

    Args:
        boxes: float (B, N, 4), x1, y1, x2, y2 in pixels; zeros beyond the image's own.
        image_size: float (B, 2), height and width in pixels.

    Returns:
        float32 (B, N, 5).
    """
    width_height = image_size.float().flip(-1)[:, None]
    corners = boxes.float() / torch.cat([width_height, width_height], dim=-1)
    area = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    return torch.cat([corners, area[..., None]], dim=-1)
