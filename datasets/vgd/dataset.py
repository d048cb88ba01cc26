"""Visual grounding (RefCOCO, RefCOCO+, RefCOCOg): image regions, a referring expression, and the ground-truth box."""

import numpy as np
import torch

from datasets.regions.reading import MAX_REGIONS, PADDING
from datasets.regions.samples import RegionSamples, cut, find_features, open_features
from datasets.vgd.files import FEATURE_FOLDERS, VGDFolder, corners_of, prepare_command
from util.cli import UserError

MAX_TOKENS = 14
# As in the original, the last position is always padding.
TOKEN_LENGTH = 15
# Number of images whose size is compared with the size recorded with their features.
COMPARED = 64


def open_vgd(
    data,
    dataset,
    split,
    *,
    vocabulary=None,
    features=None,
    feature_kind="vg_woref",
    padding="batch",
    max_regions=MAX_REGIONS,
    small=False,
    part=None,
    skip_missing=False,
    feature_size=None,
):
    """Open one split of a grounding data set that ``prepare_vgd.py`` has prepared.

    Args:
        data: Folder with ``<dataset>/*.json`` and with features, see `find_features`.
        dataset: ``refcoco``, ``refcoco+`` or ``refcocog``.
        split: ``train``, ``train+val``, ``val``, ``testA`` or ``testB``; refcocog has ``test`` instead of the last two.
        vocabulary: `Vocabulary` of a checkpoint; None for that of all files of the data set.
        features: Folder of other features, a store or ``.npz`` files; the ``source`` of another part
            or split; or None to find features in ``data``.
        feature_kind: Which of the published features to use, see `FEATURE_FOLDERS`.
        padding: ``batch`` (pad to the longest sample of a batch) or ``full`` (to ``max_regions`` regions, 15 words).
        max_regions: Maximum number of regions of an image; the first are kept.
        small: Keep only the first 64 expressions.
        part: ``("first", f)`` or ``("last", f)`` for that share of the split, see `regions.samples.cut`; None for all.
        skip_missing: Leave out expressions about images without features.
        feature_size: The width that features must have; None for any.

    Returns:
        A `VGD`.

    Raises:
        UserError: the data set, the split or an option is unknown, files are missing, damaged or do not match, or
            images have no features.
    """
    _check_choices(padding, features, feature_kind)
    folder = VGDFolder(data, dataset)
    records = folder.records(split)
    rows = np.arange(len(records), dtype=np.int32)[cut(len(records), part, small)]
    remedy = prepare_command(data, dataset)
    place = features or find_features(data, remedy, FEATURE_FOLDERS[feature_kind])
    image_ids = np.array([records[row]["image_id"] for row in rows.tolist()], dtype=np.int64)
    wanted = {"feature_size": feature_size, "max_regions": max_regions, "skip_missing": skip_missing}
    source, image_rows, kept = open_features(place, image_ids, remedy=remedy, **wanted)
    chosen = [records[row] for row in rows[kept].tolist()]
    _check_sizes(source, image_rows, chosen)
    options = {"padding": padding, "max_regions": int(max_regions), "dataset": dataset}
    return VGD((folder, split, rows[kept], chosen), (source, image_rows), vocabulary or folder.vocabulary(), options)


def _check_choices(padding, features, feature_kind):
    if padding not in PADDING:
        raise UserError(f"unknown padding {padding!r}: choose one of {', '.join(PADDING)}")
    if feature_kind not in FEATURE_FOLDERS and not features:
        raise UserError(
            f"--FEAT {feature_kind}: the original names no files for it; give such features with --features DIR, or"
            f" use --FEAT {' or '.join(FEATURE_FOLDERS)}"
        )


def _check_sizes(source, image_rows, records):
    """Check, for a few images, that the boxes of regions and of expressions are in pixels of the same picture."""
    for place in np.unique(np.linspace(0, len(records) - 1, COMPARED).astype(np.int64)).tolist():
        regions, record = source.load(int(image_rows[place])), records[place]
        if (regions.height, regions.width) != (record["height"], record["width"]):
            raise UserError(
                f"{source.folder} has features of image {record['image_id']} made at {regions.height:g} x"
                f" {regions.width:g} pixels, but its boxes are of {record['height']} x {record['width']}: make the"
                " features of the official images"
            )


class VGD(RegionSamples):
    """One split of a grounding data set as a map-style dataset; see `RegionSamples`.

    Attributes:
        vocabulary: `Vocabulary`.
        splits: Names of the splits of the data set.
        image_ids: int64 (N,).
        boxes: Ground-truth boxes, float32 (N, 4), x1, y1, x2, y2 in pixels.
        fingerprint: Short hex string that changes with the content and the options.
        description: What the data are.
        synthetic: Whether they are synthetic.
        has_answers: True, since the boxes of every split are public.
    """

    has_answers = True

    def __init__(self, chosen, regions, vocabulary, options):
        (self._folder, split, self._rows, records), (source, image_rows) = chosen, regions
        tokens = np.zeros((len(records), TOKEN_LENGTH), dtype=np.int32)
        words = (record["tokens"] for record in records)
        tokens[:, :MAX_TOKENS] = vocabulary.encode_words(words, len(records), MAX_TOKENS)
        super().__init__(split, source, image_rows, tokens, options)
        self.vocabulary, self.splits = vocabulary, tuple(self._folder.splits)
        self.image_ids = np.array([record["image_id"] for record in records], dtype=np.int64)
        self.boxes = corners_of(records).astype(np.float32)
        self.description = f"{self._folder.description}; {source.description}"
        self.synthetic = self._folder.synthetic
        self.fingerprint = self._digest([], self.image_ids, self.boxes)
        self._identifying = (self._image_rows, self._tokens, self.image_ids, self.boxes)

    def labels(self, rows):
        """Ground-truth boxes of the samples ``rows``: float32 (B, 4), x1, y1, x2, y2 in pixels."""
        return torch.from_numpy(self.boxes[rows])

    def expressions(self):
        """Read the unchanged words of each expression from the files again: list of N lists of str.

        Raises:
            UserError: a file is missing or damaged.
        """
        records = self._folder.records(self.split)
        return [records[row]["tokens"] for row in self._rows.tolist()]
