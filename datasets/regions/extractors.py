"""Build extractors of region features, by name or from the settings of an earlier extraction, and apply them.

An extractor has ``feature_size`` (D), ``settings`` (from which it can be built again), ``prepare`` (a picklable
function of a uint8 (H, W, 3) image, which runs in the processes that read), ``finish`` (function from a list of
prepared images to a list of their regions) and ``window`` (the number of prepared images to pass to ``finish``
together).
"""

import inspect

from datasets.regions.files import read_image
from datasets.regions.networks import BOXES_NAME, GRID_NAME, TORCHVISION, BoxExtractor, GridExtractor
from datasets.regions.pixels import NAME as PIXELS
from datasets.regions.pixels import PixelRegions
from datasets.storage.pictures import BadImage
from util.cli import UserError

EXTRACTORS = {GRID_NAME: GridExtractor, BOXES_NAME: BoxExtractor, PIXELS: PixelRegions}
_WEIGHTS = ("weights", "detector_weights")
_DIGESTS = ("weights_digest", "detector_digest")


def build_extractor(backbone, **settings):
    """Build an extractor.

    Args:
        backbone: A key of `EXTRACTORS`.
        settings: Arguments of its class; None means the default.

    Raises:
        UserError: the extractor is unknown, a setting belongs to another one, a number is out of range, or weights are
            missing.
    """
    if backbone not in EXTRACTORS:
        raise UserError(f"--backbone {backbone} is unknown; choose one of {', '.join(EXTRACTORS)}")
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in accepted(backbone):
            owners = [other for other in EXTRACTORS if name in accepted(other)]
            raise UserError(f"--{name} belongs to --backbone {' or '.join(owners)}, not to {backbone}; leave it out")
    if "device" in given:
        given["device"] = pick_device(given["device"])
    return EXTRACTORS[backbone](**given)


def accepted(backbone):
    """List of the names of an extractor's settings; empty if there is no such extractor."""
    return list(inspect.signature(EXTRACTORS[backbone]).parameters) if backbone in EXTRACTORS else []


def pick_device(name):
    """torch device for ``--device``; ``auto`` is the GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"--device {name} is not available here; choose auto, cpu, cuda or cuda:N") from None


def extractor_from_meta(meta, device="auto", **weights):
    """Build the extractor that made the features in a folder.

    Args:
        meta: Content of the folder's meta.json.
        device: ``auto``, or the name of a torch device.
        weights: ``weights`` and ``detector_weights``: files to use instead of the recorded ones, if these have moved.

    Raises:
        UserError: ``meta`` does not describe an extraction, or the weights are missing or not the recorded ones.
    """
    noted = meta.get("extractor") if isinstance(meta, dict) else None
    noted = noted if isinstance(noted, dict) and isinstance(noted.get("backbone"), str) else {}
    settings = {name: value for name, value in noted.items() if name not in _DIGESTS}
    known = accepted(noted.get("backbone"))
    if not known or set(settings) - {"backbone", *known} or not _fits(noted["backbone"], settings):
        raise UserError("the features' meta.json does not record how they were made; extract_features.py writes one")
    # Without a file, an extractor uses torchvision's own weights.
    settings |= {name: None for name in _WEIGHTS if str(settings.get(name)).startswith(TORCHVISION)}
    settings |= {name: value for name, value in (weights | {"device": device}).items() if name in known and value}
    extractor = build_extractor(**settings)
    for name, flag in zip(_DIGESTS, _WEIGHTS, strict=True):
        if extractor.settings.get(name) != noted.get(name):
            raise UserError(
                f"{extractor.settings[flag]} does not hold the weights that the features were made with"
                f" ({noted[flag]}, digest {noted.get(name)}); give that file, or make the features again"
            )
    return extractor


def _fits(backbone, settings):
    """Whether recorded settings have the types of the extractor's arguments: int, or str and None."""
    for name, parameter in inspect.signature(EXTRACTORS[backbone]).parameters.items():
        value = settings.get(name, parameter.default)
        number = isinstance(parameter.default, int)
        if not (type(value) is int if number else value is None or isinstance(value, str)):
            return False
    return True


def regions_of_image(path, extractor):
    """Extract the regions of one image file.

    Returns:
        dict: ``x`` (n, D) float32, ``boxes`` (n, 4) float32 (x1, y1, x2, y2 in pixels), ``height`` and ``width``.

    Raises:
        UserError: the image cannot be read.
    """
    try:
        image = read_image(path)
    except BadImage as reason:
        raise UserError(f"{path} {reason}; give another image") from None
    ((x, boxes),) = extractor.finish([extractor.prepare(image)])
    return {"x": x, "boxes": boxes, "height": image.shape[0], "width": image.shape[1]}
