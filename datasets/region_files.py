"""Region features as one ``.npz`` file per image: names, reading and checking.

A file holds ``x`` (D, n), one column per region, ``bbox`` (n, 4) with x1, y1, x2, y2 in pixels, and the numbers
``image_h`` and ``image_w``. Its image id is the integer between the last ``_`` and the first ``.`` of its name.
"""

import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from util.cli import UserError
from util.files import read_json

ENDING, META_FILE = ".npz", "meta.json"
ARRAYS = ("x", "bbox", "image_h", "image_w")
# All that numpy and zipfile raise on damaged bytes.
DAMAGE = (OSError, ValueError, EOFError, KeyError, RuntimeError, struct.error, tokenize.TokenError, SyntaxError)
DAMAGE = (*DAMAGE, zipfile.BadZipFile, zlib.error)


class BadRegions(Exception):
    """A file of region features that cannot be used; the message follows the file's name in a sentence."""


class Regions(NamedTuple):
    """Regions of one image: features (n, D), boxes float32 (n, 4) in pixels, height and width of the image."""

    features: np.ndarray
    boxes: np.ndarray
    height: float
    width: float


class RegionFiles(NamedTuple):
    """Files of a tree, sorted by image id.

    ids: int64 (M,).
    paths: bytes array (M,), paths within the tree.
    others: Names of ``.npz`` files whose name ends with no image id.
    """

    ids: np.ndarray
    paths: np.ndarray
    others: list


def image_id_of(name):
    """The image id in the file name ``name``, or None where there is none."""
    text = name.rsplit("_", 1)[-1].split(".", 1)[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def list_region_files(folder):
    """The ``.npz`` files in ``folder`` and in the folders directly inside it.

    Returns:
        `RegionFiles`.

    Raises:
        UserError: the folder cannot be read, or two files are of the same image.
    """
    folder, found, others = Path(folder), [], []
    try:
        inner = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        for place in ("", *inner):
            for entry in os.scandir(folder / place):
                if not entry.name.endswith(ENDING) or entry.name.startswith("."):
                    continue
                path, number = os.path.join(place, entry.name), image_id_of(entry.name)
                if number is None:
                    others.append(path)
                else:
                    found.append((number, os.fsencode(path)))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}; give the folder of the .npz features") from None
    found.sort()
    ids = np.array([number for number, _ in found], dtype=np.int64)
    double = np.flatnonzero(np.diff(ids) == 0)
    if len(double):
        first, second = (os.fsdecode(found[at][1]) for at in (double[0], double[0] + 1))
        raise UserError(f"{folder / first} and {second} are both of image {ids[double[0]]}: remove one of them")
    return RegionFiles(ids, np.array([path for _, path in found], dtype=np.bytes_), sorted(others))


def extraction_of(folder):
    """What the ``meta.json`` of a feature extraction in ``folder``, or in a folder inside it, says; None without."""
    folder = Path(folder)
    for path in (folder / META_FILE, *sorted(folder.glob(f"*/{META_FILE}"))):
        if path.is_file():
            content = read_json(path)
            return content if isinstance(content, dict) else None
    return None


def describe(folder, extraction):
    """What the features in ``folder`` are, in words; ``extraction`` is that of `extraction_of`."""
    extractor = extraction.get("extractor") if extraction else None
    backbone = extractor.get("backbone") if isinstance(extractor, dict) else None
    return f"region features by {backbone}" if backbone else f"region features of {Path(folder).name}"


def read_regions(path):
    """The `Regions` of one file, with the features as they are stored (normally float32).

    Raises:
        BadRegions: the file is missing, damaged, or not of the form that the module describes.
    """
    try:
        # Opened here, since numpy leaves a damaged file open.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            absent = [name for name in ARRAYS if name not in file.files]
            features, boxes, height, width = (None if absent else file[name] for name in ARRAYS)
    except FileNotFoundError:
        raise BadRegions("is missing") from None
    except (AttributeError, TypeError):
        raise BadRegions("is no .npz file") from None
    except DAMAGE:
        raise BadRegions("is damaged or cut short") from None
    if absent:
        raise BadRegions(f"has no array {absent[0]}; expected {', '.join(ARRAYS)}")
    return _checked(features, boxes, height, width)


def _checked(features, boxes, height, width):
    if features.ndim != 2 or boxes.ndim != 2 or features.dtype.kind != "f" or boxes.dtype.kind not in "fiu":
        raise BadRegions(f"has x {features.dtype} {features.shape} and bbox {boxes.dtype} {boxes.shape}")
    count = boxes.shape[0]
    if boxes.shape[1] != 4 or features.shape[1] != count:
        raise BadRegions(f"has x {features.shape} and bbox {boxes.shape}; expected (D, n) and (n, 4)")
    if not count:
        raise BadRegions("has no boxes")
    sizes = [np.asarray(size).ravel() for size in (height, width)]
    if any(size.shape != (1,) or size.dtype.kind not in "fiu" or not 0 < size[0] < np.inf for size in sizes):
        raise BadRegions(f"has image_h {height} and image_w {width}; expected two numbers above 0")
    boxes = boxes.astype(np.float32)
    if not np.isfinite(features).all() or not np.isfinite(boxes).all():
        raise BadRegions("holds NaN or infinite values")
    # Relations between boxes take the logarithm of width + 1 and height + 1.
    if (boxes[:, 2:] - boxes[:, :2] <= -1).any():
        raise BadRegions("has a box whose x2, y2 lie before x1, y1; expected x1, y1, x2, y2 in pixels")
    return Regions(features.T, boxes, float(sizes[0][0]), float(sizes[1][0]))
