"""The two ends of a feature extraction: images in a folder, and one .npz file of region features per image."""

import zipfile
from pathlib import Path

import numpy as np

from datasets.pictures import open_picture
from datasets.region_files import ARRAYS, DAMAGE, LAYOUT
from util.cli import UserError
from util.files import atomic_path
from util.trees import list_files

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Of the published features; the networks that read them take no more.
MOST_REGIONS = 100


def list_images(folder):
    """Names of the images in a folder and its subfolders, sorted, relative to it, with ``/`` between the parts.

    Links are followed; see `util.trees.list_files`.

    Raises:
        UserError: the folder is missing, cannot be read, or has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--images {folder} is no folder; give the one with the images")
    names = [
        name
        for name in list_files(folder)
        if name.lower().endswith(IMAGE_ENDINGS) and not name.rsplit("/", 1)[-1].startswith(".")
    ]
    if not names:
        raise UserError(f"--images {folder} has no image ({' '.join(IMAGE_ENDINGS)}); is it the right folder?")
    return names


def read_image(path):
    """Pixels of an image file, uint8 (H, W, 3) red, green, blue, as of `datasets.pictures.open_picture`.

    Raises:
        BadImage: it cannot be read.
    """
    return np.array(open_picture(path))


def write_regions(path, x, boxes, height, width):
    """Write the regions of one image atomically, in the form that `datasets.region_files` describes.

    Args:
        path: The .npz file.
        x: Features (n, D) float32.
        boxes: x1, y1, x2, y2 in pixels, (n, 4) float32.
        height, width: Of the image, in pixels.
    """
    arrays = {"x": np.ascontiguousarray(x.T, dtype=np.float32), "bbox": boxes.astype(np.float32)}
    arrays |= {"image_h": np.int64(height), "image_w": np.int64(width)}
    if x.shape[0] == x.shape[1]:
        arrays[LAYOUT] = np.array("columns")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def stored_shape(path):
    """(n, D) of a file of `write_regions`, read from its headers alone; None where it is missing or damaged."""
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
