"""Check region features: whether every image has some, and their values."""

from functools import partial
from pathlib import Path

import numpy as np

from datasets.checks import Seen
from datasets.regions.reading import open_regions, own_regions, rows_of
from datasets.regions.samples import find_features
from util.cli import UserError

# How far a box may extend beyond its picture, in pixels, since detectors round.
TOLERANCE = 1.0


def check_features(report, data, image_ids, *, command, trees, features=None, optional=()):
    """Check the features of a data set, and add the findings to a `datasets.checks.Report`.

    Args:
        report: The `Report`.
        data: Folder in which the features are looked for.
        image_ids: dict name of a part -> int array of the ids of the images that it needs.
        command: Command that packs features, without ``--features``.
        trees: Names of folders of ``.npz`` files, see `find_features`.
        features: Folder of the features, if it is elsewhere; None to find them in ``data``.
        optional: Parts for which missing features are a warning instead of an error.

    Returns:
        `RegionStore` or `RegionTree`; None if there are no features.
    """
    source = None
    with report.catching(data):
        place = Path(features) if features else find_features(data, command, trees)
        source = open_regions(place, remedy=f"{command} --features NPZ_DIR")
    if source is None:
        return None
    where = source.folder
    report.about.append(f"{where}: {len(source.ids):,} images, width {source.feature_size}: {source.description}")
    add = f"add them and run `{command} --features NPZ_DIR`, or pass --skip_missing"
    for part, ids in image_ids.items():
        images = np.unique(ids)
        absent = images[rows_of(source, images) < 0]
        if len(absent):
            text = f"{len(absent):,} of {len(images):,} images have no features, first image {absent[0]}"
            report.add("warning" if part in optional else "error", f"{part} in {where}", text, add)
    needed = np.unique(np.concatenate([rows_of(source, np.unique(ids)) for ids in image_ids.values()] or [[]]))
    rows = [row for row in needed.astype(int).tolist() if row >= 0]
    boxed = getattr(source, "meta", {}).get("boxes", True)
    report.read(partial(_read, source, boxed), rows, what="images", place=where, unit="image")
    return source


def _read(source, boxed, rows):
    """Read the regions of some images; returns a `Seen`."""
    seen = Seen()
    for row in rows:
        name = f"image {source.ids[row]}"
        try:
            if not source.is_intact(row):
                seen.fault("error", "damaged features", name, "its features have changed: pack again")
                continue
            regions = source.load(row)
        except UserError as error:
            seen.fault("error", "unreadable features", name, str(error))
            continue
        _look(seen, name, regions, boxed)
    return seen


def _look(seen, name, regions, boxed):
    count = own_regions(regions)
    features, boxes = np.asarray(regions.features[:count]), np.asarray(regions.boxes[:count])
    if not count:
        seen.fault("error", "features that are zeros", name)
        return
    seen.values("features", name, features)
    if count > 1 and (features == features[0]).all():
        seen.fault("warning", "features that are the same in every region", name)
    if not boxed:
        return
    seen.values("boxes", name, boxes, constant=None)
    limits = np.array([regions.width, regions.height] * 2) + TOLERANCE
    if (boxes > limits).any() or (boxes < -TOLERANCE).any():
        size = f"{regions.width:g} x {regions.height:g}"
        text = f"has boxes up to {boxes.max(axis=0)[2:].tolist()} beyond its picture of {size} pixels"
        seen.fault("error", "boxes beyond their picture", name, text)
