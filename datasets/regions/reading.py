"""Region features of images, from a packed store or a tree of ``.npz`` files, and batches of them."""

import hashlib
import logging
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from datasets.regions import grid, tsv
from datasets.regions.files import MAX_REGIONS, BadRegions, describe, extraction_of, list_region_files, read_regions
from datasets.regions.store import REGIONS, RegionStore
from util.cli import UserError
from util.hashes import files_hash

PADDING = ("batch", "full")
# The command that packs region features, if the caller has no more specific one.
PACK = "python datasets/prepare_vqa.py --data data/vqa --out STORE"

log = logging.getLogger("mdarts")


class RegionTree:
    """Features as one ``.npz`` file per image, in a folder or in the folders directly inside it.

    Images are numbered in the order of their ids. Features keep the dtype of the first file.

    Args:
        folder: The folder.
        remedy: Command that makes a store of these files, for messages.

    Attributes:
        ids: Image ids, ascending: int64 (M,).
        feature_size, dtype, description, extraction: As in `RegionStore`.

    Raises:
        UserError: there are no such files, there are two for one image, or the first one is damaged.
    """

    def __init__(self, folder, remedy=PACK):
        self.folder, self._remedy = Path(folder), remedy
        self.ids, self._paths, others = list_region_files(self.folder)
        if others:
            log.warning("%s: %s files have no image id in their names, first %s", folder, f"{len(others):,}", others[0])
        if not len(self.ids):
            raise UserError(_why_nothing(self.folder, remedy))
        self.extraction = extraction_of(self.folder)
        self.description = describe(self.folder, self.extraction)
        self.feature_size, self._logged_cut = None, False
        first = self.load(0)
        self.feature_size, self.dtype = first.features.shape[1], first.features.dtype

    def _path(self, row):
        return self.folder / os.fsdecode(self._paths[row])

    def load(self, row):
        """Read the `Regions` of image number ``row``.

        Raises:
            UserError: the file is damaged, or its features have another width than those of the first file.
        """
        path = self._path(row)
        try:
            regions = read_regions(path)
        except BadRegions as reason:
            raise UserError(
                f"{path} {reason}; fetch the file again, or pack the features without faulty files"
                f" (`{self._remedy} --skip_invalid`)"
            ) from None
        width = regions.features.shape[1]
        if self.feature_size not in (None, width):
            raise UserError(f"{path} has features of width {width}, not {self.feature_size} like {self._path(0)}")
        return regions

    def is_intact(self, row):
        """Always true: the files have no check sums."""
        return True

    def counts(self):
        """Always None: the number of regions is only known once a file has been read."""
        return None

    def log_cut(self, row, max_regions):
        """Log, once per process, that an image has more than ``max_regions`` regions."""
        if not self._logged_cut:
            what = "%s has more than %d regions: only the first %d regions of such images are used"
            log.info(what, self._path(row), max_regions, max_regions)
            self._logged_cut = True

    @cached_property
    def fingerprint(self):
        """Short hex string that changes with the names, sizes and modification times of the files."""
        digest = hashlib.blake2b(digest_size=8)
        for name in self._paths.tolist():
            status = os.stat(self.folder / os.fsdecode(name))
            digest.update(b"%s %d %d\n" % (name, status.st_size, status.st_mtime_ns))
        return digest.hexdigest()

    @cached_property
    def identity(self):
        """Short hex string that changes with the names and content of the files, but not with their folder."""
        names = map(os.fsdecode, self._paths.tolist())
        return files_hash([(name, self.folder / name) for name in names])


def _why_nothing(folder, remedy):
    """The message about a folder without ``.npz`` features."""
    ending = tsv.ENDING if tsv.tsv_files(folder) else ""
    ending = grid.ENDING if len(list_region_files(folder, grid.ENDING).ids) else ending
    if not ending:
        return f"{folder} has no features <image id>.npz; give the folder of the .npz files or of a store"
    command = remedy.replace("NPZ_DIR", str(folder))
    command += "" if "--features" in command else f" --features {folder}"
    return f"{folder} holds {ending} files, which have to be packed into a store first: `{command}`"


def open_regions(
    folder,
    feature_size=None,
    max_regions=MAX_REGIONS,
    *,
    remedy=PACK,
):
    """Open the region features in ``folder``.

    Args:
        folder: A store, or a folder of ``.npz`` files, or of folders of them.
        feature_size: The width that the features must have; None for any.
        max_regions: Number of regions that will be used; the number of images with more is logged.
        remedy: Command that makes the store, for messages.

    Returns:
        `RegionStore` or `RegionTree`.

    Raises:
        UserError: there are no region features, or they are damaged or unfinished, or have another width.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a directory; give a store of region features (`{remedy}`) or a folder of .npz files"
        )
    stored = any((folder / name).is_file() for name in (REGIONS.journal, REGIONS.data))
    source = RegionStore(folder, remedy) if stored else RegionTree(folder, remedy)
    if feature_size not in (None, source.feature_size):
        raise UserError(
            f"{folder} holds features of width {source.feature_size}, but the network expects {feature_size}:"
            " give the features that it was trained on"
        )
    counts = source.counts()
    many = 0 if counts is None else int((counts > max_regions).sum())
    if many:
        what = "%s: %s images have more than %d regions; only the first %d are used"
        log.info(what, folder, f"{many:,}", max_regions, max_regions)
    return source


def rows_of(source, image_ids):
    """Number of each image in ``source``: int64 (n,), -1 for images that it lacks."""
    near = np.searchsorted(source.ids, image_ids).clip(max=len(source.ids) - 1)
    return np.where(source.ids[near] == image_ids, near, -1)


def own_regions(image, max_regions=MAX_REGIONS):
    """Number of regions among the first ``max_regions`` of a `Regions` that are not padding.

    Some files are already padded to a fixed number: rows at the end whose features and box are all zeros are padding.
    """
    count = min(len(image.boxes), max_regions)
    while count and not image.boxes[count - 1].any() and not image.features[count - 1].any():
        count -= 1
    return count


def read_batch(source, rows, *, padding="batch", max_regions=MAX_REGIONS):
    """Read the regions of a batch of images, in their order in the files, at most ``max_regions`` of each.

    Args:
        source: `RegionStore` or `RegionTree`.
        rows: Numbers of B images.
        padding: ``batch`` (N is the largest number of regions in the batch) or ``full`` (N is ``max_regions``).
        max_regions: Maximum number of regions of an image; the first are kept.

    Returns:
        dict of regions (B, N, D) in the stored dtype, boxes float32 (B, N, 4), x1, y1, x2, y2 in pixels, image_size
        float32 (B, 2), height and width in pixels, and counts int64 (B,), the numbers of regions by `own_regions`.
        Regions and boxes are padded with zeros.

    Raises:
        UserError: a file is damaged.
    """
    images = [source.load(row) for row in rows]
    counts = [own_regions(image, max_regions) for image in images]
    length = max_regions if padding == "full" else max([1, *counts])
    # Newly allocated zeros cost nothing until they are touched, and only rows with regions are written.
    regions = np.zeros((len(images), length, source.feature_size), dtype=source.dtype)
    boxes = np.zeros((len(images), length, 4), dtype=np.float32)
    for position, (image, count) in enumerate(zip(images, counts, strict=True)):
        if len(image.boxes) > max_regions and isinstance(source, RegionTree):
            source.log_cut(rows[position], max_regions)
        regions[position, :count] = image.features[:count]
        boxes[position, :count] = image.boxes[:count]
    sizes = np.array([(image.height, image.width) for image in images], dtype=np.float32).reshape(-1, 2)
    return {
        "regions": torch.from_numpy(regions),
        "boxes": torch.from_numpy(boxes),
        "image_size": torch.from_numpy(sizes),
        "counts": torch.tensor(counts, dtype=torch.int64),
    }
