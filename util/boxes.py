"""Boxes of an image: overlaps in two conventions, and the offsets that move one box to another.

A box is x1, y1, x2, y2 in pixels. Everything is computed in float64, so that an overlap close to a threshold falls on
the same side of it on every device. The formulas are those of MMNas' code.
"""

import torch

# pixels: x2 and y2 are the last pixels that a box covers, so that its width is x2 - x1 + 1 (the published numbers);
# continuous: x2 and y2 are its edges (torchvision).
CONVENTIONS = ("pixels", "continuous")
# Offsets dx, dy, dw, dh are divided by these, so that networks regress numbers of similar size.
STDS = (0.1, 0.1, 0.2, 0.2)


def overlaps(boxes: torch.Tensor, others: torch.Tensor, convention: str = "pixels") -> torch.Tensor:
    """Intersection over union of every box with every other one.

    Args:
        boxes: float (..., N, 4).
        others: float (..., M, 4), with the same leading axes.
        convention: One of `CONVENTIONS`.

    Returns:
        float64 (..., N, M) in 0..1.

    Raises:
        ValueError: the convention is unknown.
    """
    # Imported here: importing torchvision takes seconds, and most users of this module do not need it.
    from torchvision.ops import box_iou

    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r}: expected one of {', '.join(CONVENTIONS)}")
    # The edge of a box is one pixel beyond its last pixel.
    edges = torch.tensor([0.0, 0.0, 1.0, 1.0] if convention == "pixels" else [0.0] * 4, dtype=torch.float64)
    boxes, others = boxes.double() + edges.to(boxes.device), others.double() + edges.to(others.device)
    function = box_iou
    for _ in range(boxes.dim() - 2):
        function = torch.vmap(function)
    return function(boxes, others)


def _centres_and_sizes(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    boxes = boxes.double()
    sizes = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + 0.5 * sizes, sizes


def encode_boxes(boxes: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """Compute the offsets from ``boxes`` to ``goals``, which a network regresses.

    With centres c and sizes s (both with the + 1 of the convention ``pixels``), they are (c_goal - c) / s and
    log(s_goal / s), divided by `STDS`.

    Args:
        boxes, goals: float (..., 4); their shapes are broadcast.

    Returns:
        float64 (..., 4): dx, dy, dw, dh.
    """
    centres, sizes = _centres_and_sizes(boxes)
    goal_centres, goal_sizes = _centres_and_sizes(goals)
    offsets = torch.cat([(goal_centres - centres) / sizes, (goal_sizes / sizes).log()], dim=-1)
    return offsets / offsets.new_tensor(STDS)


def decode_boxes(boxes: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move ``boxes`` by ``offsets``.

    NOTE: as in the original, the + 1 of the sizes is not subtracted again, so encoding and then decoding a box
    increases its x2 and y2 by one.

    Args:
        boxes, offsets: float (..., 4); their shapes are broadcast. Offsets are in the form of `encode_boxes`.

    Returns:
        float64 (..., 4).
    """
    centres, sizes = _centres_and_sizes(boxes)
    offsets = offsets.double() * offsets.new_tensor(STDS, dtype=torch.float64)
    centres = offsets[..., :2] * sizes + centres
    sizes = offsets[..., 2:].exp() * sizes
    return torch.cat([centres - 0.5 * sizes, centres + 0.5 * sizes], dim=-1)


def clip_boxes(boxes: torch.Tensor, image_size: torch.Tensor) -> torch.Tensor:
    """Clip ``boxes`` to their images: x to 0..W - 1 and y to 0..H - 1.

    Args:
        boxes: float (..., 4).
        image_size: float (..., 2), height and width in pixels; broadcast to the leading axes of ``boxes``.

    Returns:
        float64 (..., 4).
    """
    last = image_size.double().flip(-1) - 1
    return boxes.double().clamp(min=0).minimum(torch.cat([last, last], dim=-1))
