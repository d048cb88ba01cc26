"""Inputs derived from an image's regions in addition to their features: the padding mask and the boxes' geometry."""

import torch

RELATION_FEATURES = 4
BOX_FEATURES = 5
# Lower bound of distances, relative to a box's size, before the logarithm.
MIN_DISTANCE = 1e-3


def padding_mask(counts: torch.Tensor, length: int) -> torch.Tensor:
    """Padding mask of a batch of regions. It depends on the counts only: a region of zeros is not padding.

    Args:
        counts: int64 (B,), number of regions of each image.
        length: N, the number of regions that the batch is padded to.

    Returns:
        bool (B, N), True = padding.
    """
    return torch.arange(length, device=counts.device) >= counts[:, None]


def box_relations(boxes: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Relative position and size of every pair of boxes of an image.

    Args:
        boxes: float (B, N, 4), x1, y1, x2, y2 in pixels.
        counts: int64 (B,), number of boxes of each image.

    Returns:
        float32 (B, N, N, 4), see `relation_of`; float64 for float64 boxes. Zeros where either box is padding.
    """
    real = ~padding_mask(counts, boxes.shape[1])
    values = relation_of(boxes[:, :, None], boxes[:, None])
    return values.masked_fill(~(real[:, :, None] & real[:, None])[..., None], 0.0)


def relation_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Position and size of the second box relative to the first.

    For boxes i and j with centres (cx, cy) and sizes w = x2 - x1 + 1, h = y2 - y1 + 1 in pixels, it is
    [log max(|cx_i - cx_j| / w_i, 1e-3), log max(|cy_i - cy_j| / h_i, 1e-3), log(w_i / w_j), log(h_i / h_j)].

    Args:
        first, second: float (..., 4), x1, y1, x2, y2 in pixels; their shapes are broadcast.

    Returns:
        float32 (..., 4); float64 for float64 boxes.
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    first, second = first.to(dtype), second.to(dtype)
    size, other = first[..., 2:] - first[..., :2] + 1, second[..., 2:] - second[..., :2] + 1
    centre, other_centre = (first[..., 2:] + first[..., :2]) / 2, (second[..., 2:] + second[..., :2]) / 2
    distance = ((centre - other_centre).abs() / size).clamp(min=MIN_DISTANCE)
    return torch.cat([distance.log(), (size / other).log()], dim=-1)


def box_features(boxes: torch.Tensor, image_size: torch.Tensor) -> torch.Tensor:
    """Position and area of boxes relative to their image: x1 / W, y1 / H, x2 / W, y2 / H, area / (W * H).

    Args:
        boxes: float (B, N, 4), x1, y1, x2, y2 in pixels; zeros in padding.
        image_size: float (B, 2), height and width in pixels.

    Returns:
        float32 (B, N, 5).
    """
    width_height = image_size.float().flip(-1)[:, None]
    corners = boxes.float() / torch.cat([width_height, width_height], dim=-1)
    area = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    return torch.cat([corners, area[..., None]], dim=-1)
