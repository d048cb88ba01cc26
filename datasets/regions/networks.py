"""Region features of photographs by torchvision networks: cells of a grid, or boxes of a detector, 2048 numbers each.

Both use the last convolutional features (C5) of a ResNet-101, since the detector's own box features have only 1024
numbers. The paper's results need the published bottom-up features, whose detector was trained on Visual Genome.
"""

import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.regions.files import MAX_REGIONS
from util.cli import UserError
from util.torchvision_weights import fetch

GRID_NAME, BOXES_NAME = "resnet101-grid", "fasterrcnn"
FEATURE_SIZE = 2048
# Pixels of the resized image per cell of C5.
STRIDE = 32
# The longer side of a resized image is at most this many times the requested shorter side.
MAX_SIDE_RATIO = 5 / 3
SHORT_SIDES = (64, 2048)
# Means and standard deviations of ImageNet: red, green, blue in 0..1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Seed of random weights, which only tests use.
_SEED = 0

COCO_CLASSES = 91
# Number of region proposals, as in the paper on Faster R-CNN; torchvision's 1000 take four times as long on a CPU.
PROPOSALS = 300
MIN_BOXES = 10
MIN_SCORE = 0.05
# If two boxes of any classes overlap more than this (intersection over union), only the one with the higher score is
# kept.
MAX_OVERLAP = 0.7
RANDOM = "random"
# Prefix of the `source` of a network with torchvision's own weights.
TORCHVISION = "torchvision "


class Shrunk(NamedTuple):
    """An image resized for a network, uint8 (h, w, 3), and its original height and width."""

    image: np.ndarray
    height: int
    width: int


class Shrink:
    """Resizes a uint8 (H, W, 3) image to a shorter side of ``short_side`` pixels and a longer one of at most 5/3 of it.

    The shorter side becomes smaller if the longer one would exceed this limit.
    """

    def __init__(self, short_side):
        if not SHORT_SIDES[0] <= short_side <= SHORT_SIDES[1]:
            raise UserError(f"--short_side {short_side}: must be {SHORT_SIDES[0]} to {SHORT_SIDES[1]}")
        self.short_side = short_side

    @property
    def long_side(self):
        """Maximum pixels of the longer side."""
        return round(MAX_SIDE_RATIO * self.short_side)

    def __call__(self, image):
        """Resize ``image``; returns a `Shrunk`."""
        import cv2

        height, width = image.shape[:2]
        scale = min(self.short_side / min(height, width), self.long_side / max(height, width))
        size = max(1, round(scale * width)), max(1, round(scale * height))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return Shrunk(cv2.resize(image, size, interpolation=how), height, width)


class _ResNetC5:
    """Computes the last convolutional features (C5) of a ResNet-101.

    Args:
        weights: See `Weights.load`.
        device: torch device.
    """

    def __init__(self, weights, device):
        import torch
        from torchvision.models import resnet101

        # If the last norm of each block is zero, blocks return their input, so that random weights give outputs of the
        # usual magnitude.
        net = _drawn(lambda: resnet101(zero_init_residual=True))
        self.source = RESNET101.load(net, weights)
        self.digest = digest(net)
        self.device = device
        self._body = torch.nn.Sequential(*list(net.children())[:-2]).eval().to(device)
        self._mean, self._std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (_MEAN, _STD))

    def images(self, items):
        """Stack `Shrunk` images of one size: float32 (B, 3, h, w) in 0..1 on the device."""
        import torch

        pixels = torch.from_numpy(np.stack([item.image for item in items]))
        return pixels.to(self.device).permute(0, 3, 1, 2).float().div_(255)

    def features(self, images):
        """Compute C5 of ``images`` (from `images`): (B, 2048, ceil(h / 32), ceil(w / 32))."""
        return self._body((images - self._mean) / self._std)


class _Extractor:
    """Base class of both extractors: images of one size go through the networks together."""

    feature_size = FEATURE_SIZE

    def __init__(self, short_side, weights, device, batch_size):
        if batch_size < 1:
            raise UserError(f"--batch_size {batch_size}: must be 1 or more")
        self.prepare = Shrink(short_side)
        self._c5 = _ResNetC5(weights, device)
        self._batch_size = batch_size
        # Enough images that several of them probably have the same size.
        self.window = 4 * batch_size

    def finish(self, items):
        """Extract the regions of a list of `Shrunk` images.

        Returns:
            List with one (features float32 (n, 2048), boxes float32 (n, 4) in pixels) per image.
        """
        import torch

        sizes = {}
        for row, item in enumerate(items):
            sizes.setdefault(item.image.shape, []).append(row)
        results = [None] * len(items)
        with torch.inference_mode():
            for rows in sizes.values():
                for start in range(0, len(rows), self._batch_size):
                    some = rows[start : start + self._batch_size]
                    regions = self._regions([items[row] for row in some])
                    for row, result in zip(some, regions, strict=True):
                        results[row] = result
        return results


class GridExtractor(_Extractor):
    """Extractor of averages of C5 over the cells of a grid, row by row.

    Args:
        grid: Number of cells along each side.
        short_side: Pixels of the shorter side of the resized image.
        weights: File of a ResNet-101 state dict, ``random``, or None for torchvision's weights.
        device: torch device.
        batch_size: Maximum number of images that go through the network together.

    Raises:
        UserError: a number is out of range, or the weights are not available.
    """

    def __init__(self, grid=7, short_side=448, weights=None, device="cpu", batch_size=8):
        if not 1 <= grid <= math.isqrt(MAX_REGIONS):
            raise UserError(f"--grid {grid}: must be 1 to {math.isqrt(MAX_REGIONS)} (cells along each side)")
        super().__init__(short_side, weights, device, batch_size)
        self._grid = grid
        self.settings = {"backbone": GRID_NAME, "grid": grid, "short_side": short_side}
        self.settings |= {"weights": self._c5.source, "weights_digest": self._c5.digest}

    def _regions(self, items):
        from torch.nn.functional import adaptive_avg_pool2d

        cells = adaptive_avg_pool2d(self._c5.features(self._c5.images(items)), self._grid)
        x = cells.flatten(2).transpose(1, 2).cpu().numpy()
        return [(rows, grid_boxes(self._grid, item.height, item.width)) for rows, item in zip(x, items, strict=True)]


class BoxExtractor(_Extractor):
    """Extractor of the boxes of a Faster R-CNN (COCO), with C5 of a ResNet-101 averaged over 7 x 7 points (RoIAlign).

    Args:
        boxes: Maximum number of boxes per image; there are at least 10.
        detector_weights: Like ``weights``, for the detector ``fasterrcnn_resnet50_fpn``.
        short_side, weights, device, batch_size: See `GridExtractor`.

    Raises:
        UserError: a number is out of range, or the weights are not available.
    """

    def __init__(
        self, boxes=MAX_REGIONS, short_side=600, weights=None, detector_weights=None, device="cpu", batch_size=8
    ):
        if not MIN_BOXES <= boxes <= MAX_REGIONS:
            raise UserError(f"--boxes {boxes}: must be {MIN_BOXES} to {MAX_REGIONS}")
        super().__init__(short_side, weights, device, batch_size)
        self._boxes = boxes
        self._detector, source = self._build_detector(detector_weights)
        self.settings = {"backbone": BOXES_NAME, "boxes": boxes, "short_side": short_side}
        self.settings |= {"weights": self._c5.source, "weights_digest": self._c5.digest}
        self.settings |= {"detector_weights": source, "detector_digest": digest(self._detector)}

    def _build_detector(self, weights):
        from torchvision.models.detection import FasterRCNN
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.ops import FrozenBatchNorm2d

        def make():
            # torchvision builds it like this for its own weights, which were trained with norms that have eps 0.
            norm = functools.partial(FrozenBatchNorm2d, eps=0.0)
            body = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm)
            return FasterRCNN(body, COCO_CLASSES, rpn_post_nms_top_n_test=PROPOSALS, **limits)

        # With these limits the detector does not resize the image again.
        limits = {"min_size": self.prepare.short_side, "max_size": self.prepare.long_side}
        limits |= {"box_score_thresh": MIN_SCORE}
        net = _drawn(make)
        source = DETECTOR.load(net, weights)
        return net.eval().to(self._c5.device), source

    def _regions(self, items):
        from torchvision.ops import roi_align

        images = self._c5.images(items)
        chosen = [
            choose_boxes(detections["boxes"], detections["scores"], self._boxes, images.shape[2:])
            for detections in self._detector(list(images))
        ]
        scale = 1 / STRIDE
        points = roi_align(self._c5.features(images), chosen, 7, scale, sampling_ratio=2, aligned=True)
        x = points.mean((2, 3)).split([len(boxes) for boxes in chosen])
        height, width = images.shape[2:]
        for item, boxes in zip(items, chosen, strict=True):
            boxes *= boxes.new_tensor([item.width / width, item.height / height] * 2)
        return [(rows.cpu().numpy(), boxes.cpu().numpy()) for rows, boxes in zip(x, chosen, strict=True)]


def choose_boxes(boxes, scores, most, size):
    """Choose the best boxes that do not overlap much; if there are few, add the image and the cells of a 3 x 3 grid.

    Args:
        boxes: float32 tensor (k, 4).
        scores: float32 tensor (k,).
        most: Maximum number of boxes.
        size: Height and width of the image.

    Returns:
        float32 tensor (n, 4), with detections by decreasing score first; n is from 10 to ``most``.
    """
    import torch
    from torchvision.ops import nms

    boxes = boxes[nms(boxes, scores, MAX_OVERLAP)[:most]]
    missing = max(0, MIN_BOXES - len(boxes))
    extra = np.concatenate([grid_boxes(1, *size), grid_boxes(3, *size)])[:missing]
    return torch.cat([boxes, torch.from_numpy(extra).to(boxes)])


def grid_boxes(grid, height, width):
    """Boxes of the cells of a grid over an image, row by row: float32 (grid^2, 4) in pixels."""
    row, column = np.divmod(np.arange(grid**2), grid)
    corners = np.stack([column, row, column + 1, row + 1], axis=1)
    return (corners * ([width / grid, height / grid] * 2)).astype(np.float32)


def _drawn(make):
    """Call ``make()`` with a fixed seed, without changing the state of torch's global generator; returns its result."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return make()


@dataclass(frozen=True)
class Weights:
    """Source of the weights of one network.

    Args:
        name: The network's name for messages.
        entry: Name of the weights for ``torchvision.models.get_weight``.
        flag: The flag that names a file, or ``random``.
    """

    name: str
    entry: str
    flag: str

    def load(self, net, value):
        """Load the weights that the flag names into ``net``.

        Args:
            net: A torchvision network with random weights.
            value: Path of a state dict, ``random`` (keep the random weights), or None (torchvision's cache or a
                download).

        Returns:
            Where the weights come from (str).

        Raises:
            UserError: the file is missing or does not fit, or there is neither a cached copy nor a network connection.
        """
        from util.checkpoint import load_state_dict_file

        if value == RANDOM:
            return RANDOM
        if value is None:
            net.load_state_dict(self._fetch())
            return TORCHVISION + self.entry
        try:
            state = load_state_dict_file(value)
        except UserError as error:
            raise UserError(f"{self.flag}: {error}; {self._expected()}") from None
        try:
            # torchvision's layers themselves rename tensors of older files, so that only they can decide what fits.
            missing, unknown = net.load_state_dict(state, strict=False)
        except RuntimeError:
            raise UserError(f"{self.flag} {value} has tensors of other shapes; {self._expected()}") from None
        if missing or unknown:
            first = (missing + unknown)[0]
            raise UserError(
                f"{self.flag} {value} belongs to another network ({len(missing)} tensors missing, {len(unknown)} "
                f"unknown, the first {first}); {self._expected()}"
            )
        return str(Path(value).resolve())

    def _expected(self):
        return f"expected torchvision's {self._entry().url.rsplit('/', 1)[-1]} ({self.name}), or {RANDOM}"

    def _entry(self):
        from torchvision import models

        return models.get_weight(self.entry)

    def _fetch(self):
        otherwise = f"get {{url}} elsewhere and pass {self.flag} FILE, or use --backbone pixels, which needs none"
        return fetch(self._entry(), self.name, otherwise)


# The first version of ImageNet weights, as in the rest of the project.
RESNET101 = Weights("ResNet-101", "ResNet101_Weights.IMAGENET1K_V1", "--weights")
DETECTOR = Weights("Faster R-CNN", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1", "--detector_weights")


def digest(net):
    """Short hex string of all weights and buffers of a network."""
    import torch

    result = hashlib.blake2b(digest_size=8)
    for name, value in sorted(net.state_dict().items()):
        result.update(name.encode())
        result.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return result.hexdigest()
