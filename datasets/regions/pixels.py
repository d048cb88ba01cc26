"""Regions of drawn pictures without any network: the picture and its connected foreground parts, as pixels."""

import math

import numpy as np

from datasets.regions.files import MAX_REGIONS
from util.cli import UserError

NAME = "pixels"
# Largest difference of a colour channel (of 255) that still counts as background.
BACKGROUND_TOLERANCE = 32
# Parts below this share of the picture, or below this number of pixels, are left out.
MIN_SHARE = 1 / 4096
MIN_PIXELS = 4
# x1, y1, x2, y2 and the area, as shares of the picture.
PLACE = 5
FEATURE_SIZES = (53, 16384)


class PixelRegions:
    """Finds the objects of a picture on a plain background and turns each into numbers between 0 and 1.

    A region is the whole picture (always the first) or the box of one connected foreground part, the largest first.
    Foreground is what differs from the background colour, the median colour of the picture's border. This suits drawn
    objects that do not touch each other; photographs need a network.

    Args:
        feature_size: D, numbers per region: the region resized to the largest c x c with 3 c^2 + 5 <= D, row by row,
            red, green, blue; then x1/W, y1/H, x2/W, y2/H and the area over that of the picture; then zeros.
        boxes: Most regions per picture.

    Raises:
        UserError: a number is out of range.
    """

    # Pictures that `finish` is given at once.
    window = 1

    def __init__(self, feature_size=512, boxes=MAX_REGIONS):
        if not FEATURE_SIZES[0] <= feature_size <= FEATURE_SIZES[1]:
            raise UserError(f"--feature_size {feature_size}: must be {FEATURE_SIZES[0]} to {FEATURE_SIZES[1]}")
        if not 1 <= boxes <= MAX_REGIONS:
            raise UserError(f"--boxes {boxes}: must be 1 to {MAX_REGIONS}")
        self.feature_size, self.boxes = feature_size, boxes
        self.crop = math.isqrt((feature_size - PLACE) // 3)
        self.settings = {"backbone": NAME, "feature_size": feature_size, "boxes": boxes}
        # All of the work is done where the picture is read.
        self.prepare = self

    def __call__(self, image):
        """Features (n, D) float32 and boxes (n, 4) float32 in pixels of a uint8 (H, W, 3) picture."""
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
        """The list of (features, boxes) as given: nothing is left to do."""
        return items

    def _resize(self, image):
        import cv2

        shrinks = min(image.shape[:2]) >= self.crop
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(image), (self.crop, self.crop), interpolation=how)


def object_boxes(image):
    """Boxes of the connected foreground parts of a picture, the largest (in foreground pixels) first.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        int64 (n, 4): x1, y1, x2, y2 in pixels; x2 and y2 lie just behind the part, so that x2 - x1 is its width.
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
    """bool (H, W): pixels of a uint8 (H, W, 3) picture whose colour is not that of its border."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    background = np.median(border, axis=0).astype(np.int16)
    return (np.abs(image.astype(np.int16) - background) > BACKGROUND_TOLERANCE).any(axis=2)
