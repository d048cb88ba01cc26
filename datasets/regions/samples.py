"""Shared by data sets of texts about images: parts of a split, opening features, batches, and single samples."""

import hashlib
import json
import logging
import math
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.regions.extractors import extractor_from_meta, regions_of_image
from datasets.regions.reading import MAX_REGIONS, open_regions, read_batch, rows_of
from datasets.text.vocabulary import UNK, tokenise
from util.cli import UserError
from util.hashes import short_hash

FIELDS = ("regions", "tokens")
ENDS = ("first", "last")
STORE_FOLDER = "store"
# Number of samples of each split with ``small``.
SMALL_SIZE = 64

log = logging.getLogger("mdarts")


def cut(count, part=None, small=False):
    """Slice of ``count`` samples that ``part`` describes.

    Args:
        count: Number of samples n.
        part: ``("first", f)`` for the first floor(f n) samples; ``("last", f)`` for those that ``("first", 1 - f)``
            leaves; None for all.
        small: Keep only the first `SMALL_SIZE` of these.

    Returns:
        A slice.

    Raises:
        UserError: ``part`` has another form, or the slice is empty.
    """
    start, stop = (0, count) if part is None else _share(count, *part)
    return slice(start, min(stop, start + SMALL_SIZE) if small else stop)


def _share(count, end, share):
    """(start, stop) of the slice."""
    if end not in ENDS or not 0 < share < 1:
        raise UserError(f"part {end} {share}: expected first or last, and a share between 0 and 1")
    # Rounded first, so that 1 - 0.7 and 0.3 give the same border.
    border = math.floor(round((share if end == "first" else 1 - share) * count, 6))
    start, stop = (0, border) if end == "first" else (border, count)
    if start == stop:
        raise UserError(f"the {end} {share:.0%} of {count} samples is empty; use more data or another share")
    return start, stop


def find_features(data, command, trees):
    """Find the folder of the features in ``data``.

    Args:
        data: Data folder.
        command: Command that packs its features, for messages.
        trees: Names of folders with ``.npz`` files, which are looked for after ``store``.

    Returns:
        Path of the first folder that exists and is not empty.

    Raises:
        UserError: there is no such folder.
    """
    store, *trees = (Path(data) / name for name in (STORE_FOLDER, *trees))
    for folder in (store, *trees):
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    raise UserError(
        f"{data} has no region features: expected {store} (made with `{command} --features NPZ_DIR`) or {trees[0]}"
        " with files <image id>.npz in it or its subfolders (made from images by `python datasets/extract_features.py`)"
    )


def open_features(place, image_ids, *, remedy, feature_size=None, max_regions=MAX_REGIONS, skip_missing=False):
    """Open the features of the samples' images.

    Args:
        place: Folder of the features, see `open_regions`, or what `open_features` has returned for other samples.
        feature_size, max_regions: See `open_regions`.
        image_ids: int64 (N,), id of the image of each sample.
        remedy: Command that adds features, without ``--features``.
        skip_missing: Leave out samples about images without features; their number is logged.

    Returns:
        (`RegionStore` or `RegionTree`, int64 (n,) rows in it of the kept samples' images, bool (N,) mask of the kept
        samples).

    Raises:
        UserError: images have no features and ``skip_missing`` is false, no image has any, or the features are damaged.
    """
    source = place
    if isinstance(place, (str, Path)):
        source = open_regions(place, feature_size, max_regions, remedy=f"{remedy} --features NPZ_DIR")
    rows = rows_of(source, image_ids)
    absent = rows < 0
    if not absent.any():
        return source, rows, ~absent
    images, number = len(np.unique(image_ids[absent])), int(absent.sum())
    what = (
        f"{source.folder} lacks features of {images:,} images that {number:,} of {len(rows):,} samples are about,"
        f" first image {image_ids[absent][0]}"
    )
    if not skip_missing or absent.all():
        way = "" if absent.all() else ", or give --skip_missing to leave these samples out"
        raise UserError(f"{what}: add them (`{remedy} --features NPZ_DIR`){way}")
    log.warning("%s; these samples are left out", what)
    return source, rows[~absent], ~absent


class RegionSamples(Dataset):
    """Base class of map-style datasets whose samples are a text and an image.

    A text without words consists of padding (zeros) only; words outside the vocabulary are 1 (UNK). The numbers of such
    samples are logged.

    Args:
        split: Name of the split.
        source: `RegionStore` or `RegionTree`.
        image_rows: int (N,), row of each sample's image in ``source``.
        tokens: int32 (N, T), 0 = padding.
        options: dict of padding, max_regions and everything else that a batch depends on.

    Attributes:
        split, options, source: As given.
        identity: Short hex string that changes with the content only: it is the same for a copy of the data elsewhere,
            and for other options.
        feature_size: Width D of the region features.
        extraction: dict that describes how the features were made; None if this is unknown.
    """

    def __init__(self, split, source, image_rows, tokens, options):
        self.split, self.options, self.source = split, options, source
        self._image_rows, self._tokens = image_rows.astype(np.int32), tokens
        self.feature_size, self.extraction = source.feature_size, source.extraction
        unknown, empty = (tokens == UNK).any(axis=1).sum(), (tokens == 0).all(axis=1).sum()
        if unknown:
            log.info("%s: %s samples have words outside the vocabulary (UNK)", split, f"{unknown:,}")
        if empty:
            log.info("%s: %s samples have no words and consist of padding alone", split, f"{empty:,}")

    def _digest(self, facts, *arrays):
        """Short hex string that changes with the features, the options, ``facts`` (JSON values) and the arrays."""
        facts = [self.source.fingerprint, *facts, sorted(self.options.items())]
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8)
        for array in (self._image_rows, self._tokens, *arrays):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @cached_property
    def identity(self):
        """See the class docstring."""
        return short_hash(self.source.identity, *self._identifying)

    def labels(self, rows):
        """``label`` of a batch: a tensor with one row for each sample of ``rows``, int64 (B,)."""
        raise NotImplementedError

    def __len__(self):
        return len(self._image_rows)

    def read(self, indices, only=FIELDS, without=(), epoch=0):
        """Read one batch, restricted to the inputs that are needed.

        Args:
            indices: Numbers of B samples.
            only: Inputs to read; ``regions`` includes boxes, image_size and counts.
            without: Inputs to leave out.
            epoch: Ignored, since there is no augmentation.

        Returns:
            dict of label (see `labels`), index int64 (B,) and the wanted inputs: regions float16 (float32 from ``.npz``
            files) (B, N, D), boxes float32 (B, N, 4), x1, y1, x2, y2 in pixels, image_size float32 (B, 2), height and
            width, counts int64 (B,), and tokens int64 (B, T). N and T are the largest in the batch or, with ``full``
            padding, the maximum.

        Raises:
            UserError: a feature file is damaged.
            IndexError: an index is out of range.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index out of range for {len(self)} samples")
        wanted = [field for field in FIELDS if field in only and field not in without]
        padding, batch = self.options["padding"], {}
        if "regions" in wanted:
            images = self._image_rows[rows].tolist()
            batch = read_batch(self.source, images, padding=padding, max_regions=self.options["max_regions"])
        if "tokens" in wanted:
            tokens = self._tokens[rows]
            longest = int((tokens != 0).sum(axis=1).max(initial=1))
            tokens = tokens if padding == "full" else tokens[:, :longest]
            batch["tokens"] = torch.from_numpy(tokens.astype(np.int64))
        batch["label"] = self.labels(rows)
        batch["index"] = torch.from_numpy(rows)
        return batch

    def __getitems__(self, indices):
        """One batch with all inputs, for a loader with an identity ``collate_fn``."""
        return self.read(indices)

    def __getitem__(self, index):
        """One sample: the dict of `read` without the batch axis."""
        return {key: value[0] for key, value in self.read([index]).items()}


def read_sample(image, text, *, flag, vocabulary, max_tokens, extraction, device):
    """Make a batch from a single image and text.

    Args:
        image: Path of the image.
        text: The question or expression.
        flag: The flag that gave ``text``, for messages.
        vocabulary: `Vocabulary` of the network.
        max_tokens: Maximum number of words of a text.
        extraction: How the features that the network was trained on were made: ``extraction`` of its data.
        device: Torch device.

    Returns:
        dict of regions float32 (1, n, D), boxes float32 (1, n, 4), x1, y1, x2, y2 in pixels, image_size float32 (1, 2),
        height and width, counts int64 (1,) and tokens int64 (1, T), all on ``device``.

    Raises:
        UserError: the image cannot be read, or no word of the text is in the vocabulary.
    """
    tokens = read_text(text, flag=flag, vocabulary=vocabulary, max_tokens=max_tokens)
    batch = read_regions(image, extractor_from_meta(extraction, str(device))) | {"tokens": tokens}
    return {name: value.to(device) for name, value in batch.items()}


def read_text(text, *, flag, vocabulary, max_tokens):
    """Convert one text to tokens, int64 (1, T); arguments and errors are those of `read_sample`."""
    tokens = vocabulary.encode([text], max_tokens)
    words = tokens[0][tokens[0] != 0]
    if not len(words) or (words == UNK).all():
        raise UserError(f"{flag} {text!r}: the network knows none of these words; use the words of its data")
    said = tokenise(text)
    unknown = [word for word, number in zip(said, words.tolist(), strict=False) if number == UNK]
    if unknown:
        log.warning("%s: the network does not know %s", flag, ", ".join(unknown))
    if len(said) > max_tokens:
        log.warning("%s: the network reads %d words; the rest is left out", flag, max_tokens)
    return torch.from_numpy(words.astype("int64"))[None]


def read_regions(image, extractor):
    """Extract the regions of one image: the dict of `read_sample` without tokens, on the CPU."""
    regions = regions_of_image(image, extractor)
    return {
        "regions": torch.from_numpy(regions["x"])[None],
        "boxes": torch.from_numpy(regions["boxes"])[None].float(),
        "image_size": torch.tensor([[regions["height"], regions["width"]]], dtype=torch.float32),
        "counts": torch.tensor([len(regions["x"])]),
    }
