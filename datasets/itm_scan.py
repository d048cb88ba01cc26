"""The region features that SCAN published, ``<split>_ims.npy`` (images, 36, 2048) without boxes, into a store."""

import os
from pathlib import Path

import numpy as np

from datasets.itm_files import CAPTIONS_PER_IMAGE
from datasets.region_files import BadRegions, Regions
from datasets.region_store import RegionStore, RegionStoreWriter, encode_regions
from util.arrays import DamagedArray, read_array
from util.cli import UserError
from util.progress import progress

# Pixels of an image whose size nobody noted; only box features, which have no boxes here, would read it.
UNKNOWN_SIZE = 1.0


def scan_files(folder, splits):
    """Paths of ``<split>_ims.npy`` of those of the names ``splits`` that exist: dict split -> `Path`."""
    paths = {split: Path(folder) / f"{split}_ims.npy" for split in splits}
    return {split: path for split, path in paths.items() if path.is_file()}


def pack_scan(files, splits, out, *, remedy, dtype="float16"):
    """Write or complete the store of the images of ``splits``; what an interrupted call packed stays.

    Args:
        files: Split name -> path, see `scan_files`.
        splits: Split name -> `itm_files.Split`.
        out: Folder of the store.
        remedy: Command that makes it, for messages.
        dtype: ``float16`` or ``float32``.

    Returns:
        The finished `RegionStore`. Its boxes are zeros, and its description says so.

    Raises:
        UserError: a file is missing or of another form or width, or has another number of images than captions.
    """
    arrays = {split: _open(files, split, splits[split].total) for split in splits}
    ids = set()
    with RegionStoreWriter(out, dtype) as writer:
        stamps = writer.stamps()
        for split, (array, step) in arrays.items():
            status = os.stat(files[split])
            numbered = list(zip(splits[split].rows.tolist(), splits[split].image_ids.tolist(), strict=True))
            for row, image_id in progress(numbered, f"packing {split}", unit="image"):
                stamp = f"{files[split].name} {status.st_size} {status.st_mtime_ns} {row}"
                # An image can be in two splits (COCO's test and testall); its first row counts.
                if image_id in ids:
                    continue
                ids.add(image_id)
                if image_id not in stamps:
                    _add(writer, image_id, stamp, array[row * step], files[split])
                elif stamps[image_id] != stamp:
                    raise UserError(f"{files[split]} has changed since it was packed; delete {out} and pack again")
        name = next(iter(files.values())).parent.name
        about = {"description": f"SCAN's region features of {name} (no boxes)", "extraction": None, "boxes": False}
        writer.finish(sorted(ids), about)
    return RegionStore(out, remedy)


def _open(files, split, images):
    """The memory map of a split, and the number of its rows per image."""
    path = files.get(split)
    if path is None:
        folder = next(iter(files.values())).parent
        raise UserError(f"{folder} has no {split}_ims.npy but has captions of {split}; put the file there")
    try:
        array = read_array(path)
    except DamagedArray as reason:
        raise UserError(f"{path} {reason}; fetch it again") from None
    if array.ndim != 3 or array.dtype.kind != "f" or len(array) not in (images, CAPTIONS_PER_IMAGE * images):
        raise UserError(
            f"{path} has {array.dtype} of shape {array.shape}; expected numbers ({images:,} images, regions, width), or"
            f" a row for each of {CAPTIONS_PER_IMAGE * images:,} captions"
        )
    return array, len(array) // images


def _add(writer, image_id, stamp, features, path):
    count, width = features.shape
    if not np.isfinite(features).all():
        raise UserError(f"{path} holds NaN or infinite values (image {image_id}); fetch it again")
    regions = Regions(features, np.zeros((count, 4), dtype=np.float32), UNKNOWN_SIZE, UNKNOWN_SIZE)
    try:
        writer.add(image_id, stamp, encode_regions(regions, writer.dtype), count, width, (UNKNOWN_SIZE, UNKNOWN_SIZE))
    except BadRegions as reason:
        raise UserError(f"{path} {reason} (image {image_id}); every split needs the same features") from None
