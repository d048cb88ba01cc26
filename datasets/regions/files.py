"""Region features as one ``.npz`` file per image: names, reading, checking and writing; and reading the images.

A file contains ``x``, (D, n) with a column per region or (n, D) with a row per region, ``bbox`` (n, 4) with x1, y1, x2,
y2 in pixels, and the numbers ``image_h`` and ``image_w``. Both layouts of ``x`` are in use; the number of boxes shows
which one it is. If n equals D, the text ``layout`` (columns or rows) is required. The image id is the integer between
the last ``_`` and the first ``.`` of the file's name.
"""

import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.storage.pictures import open_picture
from util.cli import UserError
from util.files import atomic_path, read_json
from util.trees import list_files

ENDING, META_FILE = ".npz", "meta.json"
ARRAYS = ("x", "bbox", "image_h", "image_w")
# Optional arrays.
LAYOUT, COUNT = "layout", "num_bbox"
LAYOUTS = ("columns", "rows")
# Exceptions that numpy and zipfile raise on damaged bytes.
DAMAGE = (OSError, ValueError, EOFError, KeyError, RuntimeError, struct.error, tokenize.TokenError, SyntaxError)
DAMAGE = (*DAMAGE, zipfile.BadZipFile, zlib.error)
IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Maximum number of regions per image in the published features; networks do not read more.
MAX_REGIONS = 100


class BadRegions(Exception):
    """A file of region features that cannot be used; the message is a predicate without its name ("has no boxes")."""


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
    others: Paths of files whose names do not end with an image id.
    """

    ids: np.ndarray
    paths: np.ndarray
    others: list


def image_id_of(name):
    """The image id in the file name ``name``, or None if there is none."""
    text = name.rsplit("_", 1)[-1].split(".", 1)[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def list_region_files(folder, ending=ENDING):
    """List the feature files in ``folder`` and in the folders directly inside it; links are followed.

    Args:
        folder: The folder.
        ending: The ending of their names, which may be in upper case.

    Returns:
        `RegionFiles`.

    Raises:
        UserError: the folder cannot be read, or there are two files for one image.
    """
    folder, numbered, others = Path(folder), [], []
    for path in list_files(folder, depth=1):
        name = path.rsplit("/", 1)[-1]
        if not name.lower().endswith(ending) or name.startswith("."):
            continue
        number = image_id_of(name)
        if number is None:
            others.append(path)
        else:
            numbered.append((number, os.fsencode(path)))
    ids, paths = [], []
    for number, path in sorted(numbered):
        if ids and ids[-1] == number:
            if _same_file(folder, paths[-1], path):  # the same file, also reached through a link
                continue
            first, second = map(os.fsdecode, (paths[-1], path))
            raise UserError(f"{folder / first} and {second} are both of image {number}: remove one of them")
        ids.append(number)
        paths.append(path)
    return RegionFiles(np.array(ids, dtype=np.int64), np.array(paths, dtype=np.bytes_), sorted(others))


def _same_file(folder, first, second):
    try:
        return os.path.samefile(folder / os.fsdecode(first), folder / os.fsdecode(second))
    except OSError:
        return False


def extraction_of(folder):
    """Content of the ``meta.json`` of a feature extraction in ``folder`` or a folder inside it; None without one."""
    folder = Path(folder)
    for path in (folder / META_FILE, *sorted(folder.glob(f"*/{META_FILE}"))):
        if path.is_file():
            content = read_json(path)
            return content if isinstance(content, dict) else None
    return None


def describe(folder, extraction):
    """A description of the features in ``folder``; ``extraction`` is the result of `extraction_of`."""
    extractor = extraction.get("extractor") if extraction else None
    backbone = extractor.get("backbone") if isinstance(extractor, dict) else None
    return f"region features by {backbone}" if backbone else f"region features of {Path(folder).name}"


def read_regions(path):
    """Read the `Regions` of one file, with the features as they are stored (normally float32).

    Raises:
        BadRegions: the file is missing, damaged, or does not have the form that the module docstring describes.
    """
    try:
        # The file is opened here, since numpy does not close a damaged file.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            absent = [name for name in ARRAYS if name not in file.files]
            x, boxes, height, width = (None if absent else file[name] for name in ARRAYS)
            layout, count = (file[name] if name in file.files else None for name in (LAYOUT, COUNT))
    except FileNotFoundError:
        raise BadRegions("is missing") from None
    except (AttributeError, TypeError):
        raise BadRegions("is not an .npz file") from None
    except DAMAGE:
        raise BadRegions("is damaged or cut short") from None
    if absent:
        raise BadRegions(f"has no array {absent[0]}; expected {', '.join(ARRAYS)}")
    if x.ndim != 2 or boxes.ndim != 2 or x.dtype.kind != "f" or boxes.dtype.kind not in "fiu":
        raise BadRegions(f"has x {x.dtype} {x.shape} and bbox {boxes.dtype} {boxes.shape}")
    if boxes.shape[1] != 4 or len(boxes) not in x.shape:
        raise BadRegions(f"has x {x.shape} and bbox {boxes.shape}; expected (D, n) or (n, D), and (n, 4)")
    if count is not None and (count.shape != () or count.dtype.kind not in "iu" or count != len(boxes)):
        raise BadRegions(f"has {len(boxes)} boxes but num_bbox {_short(count)}")
    return checked_regions(x if _has_rows(x, len(boxes), layout) else x.T, boxes, height, width)


def _has_rows(x, count, layout):
    """Whether ``x`` has one row per region, rather than one column."""
    if x.shape[0] != x.shape[1]:
        return x.shape[0] == count
    if layout is None or str(layout) not in LAYOUTS:
        raise BadRegions(
            f"has x {x.shape} and {count} boxes, so that rows and columns cannot be told apart; add an array {LAYOUT}"
            f" with the text {' or '.join(LAYOUTS)}, whichever contains one region each"
        )
    return str(layout) == "rows"


def _short(value):
    return " ".join(str(value).split())[:40]


def checked_regions(features, boxes, height, width):
    """Check the parts of a `Regions`, and make it.

    Args:
        features: (n, D) of any float dtype.
        boxes: (n, 4) of any numbers.
        height, width: A number or array of one number each.

    Raises:
        BadRegions: there are no boxes, corners of a box are swapped, a size is not positive, or values are not finite.
    """
    if not len(boxes):
        raise BadRegions("has no boxes")
    sizes = [np.asarray(size).ravel() for size in (height, width)]
    if any(size.shape != (1,) or size.dtype.kind not in "fiu" or not 0 < size[0] < np.inf for size in sizes):
        raise BadRegions(f"has image_h {_short(height)} and image_w {_short(width)}; expected two numbers above 0")
    boxes = boxes.astype(np.float32)
    if not np.isfinite(features).all() or not np.isfinite(boxes).all():
        raise BadRegions("holds NaN or infinite values")
    # Features of relations between boxes contain the logarithm of width + 1 and height + 1.
    if (boxes[:, 2:] - boxes[:, :2] <= -1).any():
        raise BadRegions("has a box whose x2, y2 are before x1, y1; expected x1, y1, x2, y2 in pixels")
    return Regions(features, boxes, float(sizes[0][0]), float(sizes[1][0]))


def list_images(folder):
    """Sorted list of the paths of the images in a folder and its subfolders, relative to it, with ``/`` as separator.

    Links are followed; see `util.trees.list_files`.

    Raises:
        UserError: the folder is missing, cannot be read, or has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--images {folder} is not a directory; give the one with the images")
    names = [
        name
        for name in list_files(folder)
        if name.lower().endswith(IMAGE_ENDINGS) and not name.rsplit("/", 1)[-1].startswith(".")
    ]
    if not names:
        raise UserError(f"--images {folder} has no image ({' '.join(IMAGE_ENDINGS)}); is it the right folder?")
    return names


def read_image(path):
    """Read an image file with `datasets.storage.pictures.open_picture`: uint8 (H, W, 3), red, green, blue.

    Raises:
        BadImage: the file cannot be read.
    """
    return np.array(open_picture(path))


def write_regions(path, x, boxes, height, width):
    """Write the regions of one image atomically, in the form that the module docstring describes.

    Args:
        path: The .npz file.
        x: Features, float32 (n, D).
        boxes: float32 (n, 4), x1, y1, x2, y2 in pixels.
        height, width: Size of the image in pixels.
    """
    arrays = {"x": np.ascontiguousarray(x.T, dtype=np.float32), "bbox": boxes.astype(np.float32)}
    arrays |= {"image_h": np.int64(height), "image_w": np.int64(width)}
    if x.shape[0] == x.shape[1]:
        arrays[LAYOUT] = np.array("columns")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def stored_shape(path):
    """Shape (n, D) of the features in a file from `write_regions`; only headers are read. None if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            (size, count), boxes, height, width = (_member_shape(archive, key) for key in ARRAYS)
    except DAMAGE:
        return None
    return (count, size) if count and boxes == (count, 4) and height == width == () else None


def _member_shape(archive, key):
    with archive.open(f"{key}.npy") as member:
        np.lib.format.read_magic(member)
        return np.lib.format.read_array_header_1_0(member)[0]
