"""Regions of drawn pictures without a network: the pixels of the picture and of its connected foreground parts."""

import math

import numpy as np

from datasets.regions.files import MAX_REGIONS
from util.cli import UserError

NAME = "pixels"
# Maximum difference of a colour channel (0 to 255) that still counts as background.
BACKGROUND_TOLERANCE = 32
# Parts with less than this share of the picture's pixels, or fewer than this number of pixels, are left out.
MIN_SHARE = 1 / 4096
MIN_PIXELS = 4
# Number of values for the position: x1, y1, x2, y2 and the area, relative to the picture.
PLACE = 5
FEATURE_SIZES = (53, 16384)


class PixelRegions:
    """Extractor that finds objects on a plain background, and represents each by numbers between 0 and 1.

    The first region is the whole picture; the others are the boxes of connected foreground parts, largest first. Pixels
    are foreground if they differ from the background colour, which is the median colour of the picture's border. This
    suits drawn objects that do not touch each other; photographs need a network.

    Args:
        feature_size: D, numbers per region: the region resized to the largest c x c with 3 c^2 + 5 <= D, row by row,
            red, green, blue; then x1/W, y1/H, x2/W, y2/H and the area divided by that of the picture; then zeros.
        boxes: Maximum number of regions per picture.

    Raises:
        UserError: a number is out of range.
    """

    # Number of pictures to pass to `finish` together.
    window = 1

    def __init__(self, feature_size=512, boxes=MAX_REGIONS):
        if not FEATURE_SIZES[0] <= feature_size <= FEATURE_SIZES[1]:
            raise UserError(f"--feature_size {feature_size}: must be {FEATURE_SIZES[0]} to {FEATURE_SIZES[1]}")
        if not 1 <= boxes <= MAX_REGIONS:
            raise UserError(f"--boxes {boxes}: must be 1 to {MAX_REGIONS}")
        self.feature_size, self.boxes = feature_size, boxes
        self.crop = math.isqrt((feature_size - PLACE) // 3)
        self.settings = {"backbone": NAME, "feature_size": feature_size, "boxes": boxes}
        # All work is done in the process that reads the picture.
        self.prepare = self

    def __call__(self, image):
        """Extract from a uint8 (H, W, 3) picture: (features float32 (n, D), boxes float32 (n, 4) in pixels)."""
        height, width = image.shape[:2]
        whole = np.array([[0, 0, width, height]])
        boxes = np.concatenate([whole, object_boxes(image)])[: self.boxes]
        x = np.zeros((len(boxes), self.feature_size), dtype=np.float32)
        pixels = 3 * self.crop**2
        for row, (x1, y1, x2, y2) in zip(x, boxes, strict=True):
            row[:pixels] = self._resize(image[y1:y2, x1:x2]).ravel()
            row[:pixels] /= 255
        x[:, pixels : pixels + 4] = boxes / [width, height, width, height]
        x[:, pixels + 4] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / (width * height)
        return x, boxes.astype(np.float32)

    def finish(self, items):
        """Returns the list of (features, boxes) unchanged, since nothing is left to do."""
        return items

    def _resize(self, image):
        import cv2

        shrinks = min(image.shape[:2]) >= self.crop
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(image), (self.crop, self.crop), interpolation=how)


def object_boxes(image):
    """Boxes of the connected foreground parts of a picture, sorted by decreasing number of foreground pixels.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        int64 (n, 4): x1, y1, x2, y2 in pixels; x2 and y2 are just beyond the part, so that x2 - x1 is its width.
    """
    import cv2

    _, _, parts, _ = cv2.connectedComponentsWithStats(foreground(image).astype(np.uint8), connectivity=8)
    # The first part is the background.
    left, top, width, height, area = parts[1:].astype(np.int64).T
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    order = np.lexsort((left, top, -area))
    least = max(MIN_PIXELS, MIN_SHARE * image.shape[0] * image.shape[1])
    return boxes[order[area[order] >= least]]


def foreground(image):
    """Pixels of a uint8 (H, W, 3) picture whose colour differs from that of its border: bool (H, W)."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    background = np.median(border, axis=0).astype(np.int16)
    return (np.abs(image.astype(np.int16) - background) > BACKGROUND_TOLERANCE).any(axis=2)
