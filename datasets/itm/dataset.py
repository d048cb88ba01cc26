"""Image-text matching on Flickr30K or COCO, as prepared by ``prepare_itm.py``: images with five captions each."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.itm.files import CAPTIONS_PER_IMAGE, SPLITS, STORE_FOLDER, VOCABULARY_FILE, read_meta, read_split
from datasets.itm.negatives import Negatives
from datasets.regions.reading import PADDING, read_batch
from datasets.regions.samples import SMALL_SIZE, cut, open_features
from datasets.text.vocabulary import Vocabulary
from util.cli import UserError, quoted
from util.files import read_json
from util.hashes import short_hash

FIELDS = ("regions", "tokens")
MAX_REGIONS, MAX_TOKENS = 36, 50
# Number of candidates per row in the tables of negatives.
NUM_HARD = 5


def prepare_command(data, dataset):
    """The command that prepares a data set in ``data``, without ``--features``."""
    names = " --json dataset_flickr30k.json" if dataset == "flickr" else ""
    captions = {"flickr": "f30k_precomp", "coco": "coco_precomp"}[dataset]
    return f"python datasets/prepare_itm.py --dataset {dataset} --captions {captions}{names} --out {quoted(data)}"


def open_itm(
    data,
    dataset,
    split,
    *,
    vocabulary=None,
    features=None,
    padding="batch",
    max_regions=MAX_REGIONS,
    max_tokens=MAX_TOKENS,
    small=False,
    skip_missing=False,
    feature_size=None,
    num_hard=NUM_HARD,
    seed=0,
):
    """Open one split.

    Args:
        data: Folder that ``prepare_itm.py`` wrote.
        dataset: ``flickr`` or ``coco``.
        split: ``train``, ``dev`` or ``test``; for COCO also ``testall``.
        vocabulary: `Vocabulary` of a checkpoint; None for that of the data.
        features: Folder of other features, a store or ``.npz`` files; the ``source`` of another split; or None for the
            store in ``data``.
        padding: ``batch`` (pad to the longest sample of a batch) or ``full`` (pad to the maximum).
        max_regions, max_tokens: Maximum number of regions of an image and of words of a caption; the first are kept.
        small: Keep only the first 64 images.
        skip_missing: Leave out images without features.
        feature_size: The width that features must have; None for any.
        num_hard, seed: Number of candidates per row in the tables of negatives, and the seed of the draws.

    Returns:
        An `ITM`.

    Raises:
        UserError: a split or option is unknown, files are missing, damaged or do not match, or images have no
            features.
    """
    _check(dataset, split, padding)
    folder, command = Path(data) / dataset, prepare_command(data, dataset)
    remedy = f"{command} --features NPZ_DIR"
    meta, captions = read_meta(folder, remedy), read_split(folder, split, remedy)
    wanted = {"remedy": command, "feature_size": feature_size, "max_regions": max_regions, "skip_missing": skip_missing}
    source, image_rows, kept = open_features(features or folder / STORE_FOLDER, captions.image_ids, **wanted)
    size = SMALL_SIZE if small else len(image_rows)
    captions, image_rows = captions.taken(kept).taken(slice(size)), image_rows[:size]
    if len(captions.image_ids) < 2:
        raise UserError(f"{folder / split}.json has fewer than two images: matching needs at least two")
    if vocabulary is None:
        vocabulary = Vocabulary.from_dict(read_json(folder / VOCABULARY_FILE), str(folder / VOCABULARY_FILE))
    sizes = {"max_regions": max_regions, "max_tokens": max_tokens, "num_hard": num_hard}
    options = {"padding": padding, "seed": seed, **sizes}
    return ITM((dataset, split, meta), captions, (source, image_rows), vocabulary, options)


def _check(dataset, split, padding):
    splits = SPLITS.get(dataset, ())
    for name, value, choices in (("dataset", dataset, SPLITS), ("split", split, splits), ("padding", padding, PADDING)):
        if value not in choices:
            raise UserError(f"unknown {name} {value!r} for matching: choose one of {', '.join(choices)}")


class ITM(Dataset):
    """One split as a map-style dataset; a sample is a caption with its image, and a negative of each.

    Attributes:
        split: Name of the split.
        source: `RegionStore` or `RegionTree`.
        vocabulary: `Vocabulary`.
        image_ids: int64 (n,); image k has the captions 5 k to 5 k + 4.
        negatives: `Negatives` of all n images, even if only a share of the captions are samples.
        feature_size: Width D of the region features.
        has_boxes: Whether regions have boxes; otherwise all boxes are zeros.
        has_answers: True, since the matching pairs are always known.
        options: dict of padding, max_regions, max_tokens, num_hard and seed.
        fingerprint: Short hex string that changes with the content and the options.
        identity: Short hex string that changes with the content only: it is the same for a copy of the data elsewhere,
            and for other options.
        description: What the data are.
        synthetic: Whether they are synthetic.
        extraction: dict that describes how the features were made; None if this is unknown.
    """

    has_answers = True

    def __init__(self, about, captions, regions, vocabulary, options):
        (self.dataset, self.split, meta), (self.source, image_rows) = about, regions
        self.vocabulary, self.options = vocabulary, options
        self.image_ids = captions.image_ids
        self._image_rows = image_rows.astype(np.int32)
        self._tokens = vocabulary.encode(captions.captions, options["max_tokens"])
        self._samples = np.arange(len(self._tokens))
        self.negatives = Negatives(len(image_rows), options["num_hard"])
        self.negatives.draw(options["seed"], 0)
        self.feature_size, self.extraction = self.source.feature_size, self.source.extraction
        self.has_boxes = getattr(self.source, "meta", {}).get("boxes", True)
        self.description = f"{meta['description']}; {self.source.description}"
        self.synthetic = bool(meta.get("synthetic"))

    def taken(self, part):
        """A dataset of the samples of a share of the images; it shares the negatives of all images with this one.

        Args:
            part: ``("first", f)`` or ``("last", f)``, see `regions.samples.cut`.
        """
        piece = cut(self.num_images, part)
        part_of_self = copy.copy(self)
        part_of_self._samples = self._samples[CAPTIONS_PER_IMAGE * piece.start : CAPTIONS_PER_IMAGE * piece.stop]
        return part_of_self

    @property
    def num_images(self):
        """Number of images n of the split."""
        return len(self._image_rows)

    @property
    def fingerprint(self):
        """See the class docstring."""
        facts = [self.source.fingerprint, self.dataset, self.split, sorted(self.options.items())]
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8)
        for array in (self.image_ids, self._image_rows, self._tokens, self._samples):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def identity(self):
        """See the class docstring."""
        arrays = (self.image_ids, self._image_rows, self._tokens, self._samples)
        return short_hash(self.source.identity, self.dataset, self.split, *arrays)

    def __len__(self):
        return len(self._samples)

    def lengths(self):
        """Number of words of every caption of the split: int64 (5 n,)."""
        return (self._tokens != 0).sum(axis=1)

    def images(self, rows):
        """Read the images ``rows`` int (B,): dict of regions, boxes, image_size and counts, see `read_batch`.

        Raises:
            UserError: a feature file is damaged.
        """
        options = {name: self.options[name] for name in ("padding", "max_regions")}
        return read_batch(self.source, self._image_rows[rows].tolist(), **options)

    def captions(self, rows):
        """Tokens of the captions ``rows`` int (B,): int64 (B, T), padded to the longest unless ``padding`` is full."""
        tokens = self._tokens[rows]
        longest = int((tokens != 0).sum(axis=1).max(initial=1))
        tokens = tokens if self.options["padding"] == "full" else tokens[:, :longest]
        return torch.from_numpy(tokens.astype(np.int64))

    def read(self, indices, only=FIELDS, without=(), epoch=0):
        """Read one batch of training samples.

        Args:
            indices: Numbers of B samples.
            only: Inputs to read; ``regions`` includes boxes, image_size and counts.
            without: Inputs to leave out.
            epoch: Determines, together with the seed, which of the candidates are the negatives.

        Returns:
            dict of the wanted inputs: regions float16 (float32 from ``.npz`` files) (B, 2, N, D), boxes float32
            (B, 2, N, 4), image_size float32 (B, 2, 2), counts int64 (B, 2) and tokens int64 (B, 2, T). The second axis
            has the sample's own input, then its negative. Also label float32 (B,), ones, and index int64 (B,).

        Raises:
            UserError: a feature file is damaged.
            IndexError: an index is out of range.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index out of range for {len(self)} captions")
        own = self._samples[rows]
        images, captions = self.negatives.of(own, self.options["seed"], epoch)
        wanted = [field for field in FIELDS if field in only and field not in without]
        batch = {}
        if "regions" in wanted:
            both = np.stack([own // CAPTIONS_PER_IMAGE, images], axis=1).ravel()
            batch = {name: value.unflatten(0, (len(rows), 2)) for name, value in self.images(both).items()}
        if "tokens" in wanted:
            batch["tokens"] = self.captions(np.stack([own, captions], axis=1).ravel()).unflatten(0, (len(rows), 2))
        batch["label"] = torch.ones(len(rows))
        batch["index"] = torch.from_numpy(rows)
        return batch

    def __getitems__(self, indices):
        """One batch with all inputs, for a loader with an identity ``collate_fn``."""
        return self.read(indices, epoch=getattr(indices, "epoch", 0))

    def __getitem__(self, index):
        """One sample: the dict of `read` without the batch axis."""
        return {key: value[0] for key, value in self.read([index]).items()}
