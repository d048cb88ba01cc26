"""Visual question answering in the official form of VQA v2: image regions, a question, soft scores of answers."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets import vqa_samples
from datasets.regions import MAX_REGIONS, PADDING, open_regions, read_batch, rows_of
from datasets.vqa_files import FEATURE_FOLDERS, SPLITS, STORE_FOLDER, VQAFolder
from datasets.vqa_tables import load_tables
from datasets.vqa_text import UNK
from util.cli import UserError

FIELDS = ("regions", "tokens")
MAX_TOKENS = 14
SMALL_SIZE = 64

log = logging.getLogger("mdarts")


def prepare_command(data):
    """The command that packs the features of ``data``."""
    return f"python datasets/prepare_vqa.py --data {data} --out {Path(data) / STORE_FOLDER}"


def open_vqa(
    data,
    split,
    *,
    vocabulary=None,
    answers=None,
    features=None,
    padding="batch",
    max_regions=MAX_REGIONS,
    max_tokens=MAX_TOKENS,
    small=False,
    part=None,
    skip_missing=False,
    min_answer_count=None,
    feature_size=None,
):
    """Open one split of VQA v2, or of other data in its form.

    Args:
        data: Folder with ``annotations/`` (the official files) and with features, see `find_features`.
        split: ``train``, ``train+val``, ``train+val+vg`` (in the annotations' order), ``val``, ``test`` (questions').
        vocabulary, answers: `Vocabulary` and `AnswerTable` of a checkpoint; None for those of the data.
        features: Folder of other features, a store or ``.npz`` files.
        padding: ``batch`` (as long as the longest of a batch) or ``full``.
        max_regions, max_tokens: Most regions of an image and most words of a question; the first are kept.
        small: Keep only the first 64 questions.
        part: ``("first", f)`` or ``("last", f)``: that share of the split; see `vqa_samples.cut`.
        skip_missing: Leave out questions about images without features.
        min_answer_count: Least number of occurrences of an answer; None for that of the store, or 9.
        feature_size: The width that features must have; None for any.

    Returns:
        A `VQA` dataset.

    Raises:
        UserError: unknown split or option; missing, damaged or mismatched files; images without features.
    """
    for name, value, choices in (("split", split, SPLITS), ("padding", padding, PADDING)):
        if value not in choices:
            raise UserError(f"unknown VQA {name} {value!r}: choose one of {', '.join(choices)}")
    folder = VQAFolder(data)
    pairs, samples = vqa_samples.read_split(folder, split)
    samples = samples if part is None else samples.taken(vqa_samples.cut(len(samples.parts), part))
    samples = samples.taken(slice(SMALL_SIZE)) if small else samples
    place = Path(features) if features else find_features(data)
    source = open_regions(place, feature_size, max_regions, remedy=prepare_command(data))
    image_rows, samples = _with_features(source, pairs, samples, skip_missing)
    tables = load_tables(folder, place, vocabulary, answers, min_answer_count)
    options = {"padding": padding, "max_regions": int(max_regions), "max_tokens": int(max_tokens)}
    return VQA(folder, split, (pairs, samples), (source, image_rows), tables, options)


def find_features(data):
    """The folder of the features in ``data``.

    It is ``store/`` (made by ``prepare_vqa.py``), or else ``bua-r101-max100/`` or ``features/`` with ``.npz`` files,
    directly or in ``train2014``, ``val2014`` and ``test2015``.

    Raises:
        UserError: there is neither a store nor the tree of ``.npz`` files.
    """
    store, *trees = (Path(data) / name for name in (STORE_FOLDER, *FEATURE_FOLDERS))
    for folder in (store, *trees):
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    raise UserError(
        f"{data} has no region features: expected {store} (made with `{prepare_command(data)} --features NPZ_DIR`)"
        f" or {trees[0]}/{{train2014,val2014,test2015}}/*.npz (made of images by `python datasets/extract_features.py`)"
    )


def _with_features(source, pairs, samples, skip_missing):
    """Rows of the images in ``source``, and the samples that have one."""
    image_ids = vqa_samples.column(pairs, samples, lambda questions: questions.image_ids)
    rows = rows_of(source, image_ids)
    absent = rows < 0
    if not absent.any():
        return rows, samples
    images, number = len(np.unique(image_ids[absent])), int(absent.sum())
    what = (
        f"{source.folder} lacks features of {images:,} images that {number:,} of {len(rows):,} questions are about,"
        f" first image {image_ids[absent][0]}"
    )
    if not skip_missing or absent.all():
        way = "" if absent.all() else ", or --skip_missing to leave these questions out"
        raise UserError(f"{what}: add them (`python datasets/prepare_vqa.py --help`){way}")
    log.warning("%s; these questions are left out", what)
    return rows[~absent], samples.taken(~absent)


class VQA(Dataset):
    """One split.

    A question without words has padding alone (zeros) and reaches the network so; words outside the vocabulary
    are 1 (UNK). The log says how many there are.

    Attributes:
        split: Name of the split.
        vocabulary, answers: `Vocabulary` and `AnswerTable`.
        num_answers: Number of answer classes A.
        feature_size: Width D of the region features.
        question_ids, image_ids: int64 (N,).
        options: dict of padding, max_regions and max_tokens.
        fingerprint: Short hex string that changes with content and options.
        description: What the data are, in words.
        synthetic: Whether they are made up.
        extraction: How the features were made, as far as it is known (dict or None).
    """

    def __init__(self, folder, split, chosen, regions, tables, options):
        (pairs, samples), (self._source, image_rows), (self.vocabulary, self.answers) = chosen, regions, tables
        self.split, self.options, self._folder, self._samples = split, options, folder, samples
        self.question_ids = vqa_samples.column(pairs, samples, lambda questions: questions.ids)
        self.image_ids = vqa_samples.column(pairs, samples, lambda questions: questions.image_ids)
        self._image_rows = image_rows.astype(np.int32)
        self._tokens = self.vocabulary.encode(vqa_samples.texts_of(pairs, samples), options["max_tokens"])
        self._targets = vqa_samples.targets_of(pairs, samples, self.answers)
        self.num_answers, self.feature_size = len(self.answers), self._source.feature_size
        self.extraction = self._source.extraction
        info = pairs[0].questions.info
        # The first sentence of what the files say of themselves.
        about = str(info.get("description", "VQA v2")).split(". ")[0].rstrip(".")
        self.description = f"{about}; {self._source.description}"
        self.synthetic = bool(info.get("synthetic", False))
        self._tell()
        self._set_fingerprint()

    def _tell(self):
        unknown, empty = (self._tokens == UNK).any(axis=1).sum(), (self._tokens == 0).all(axis=1).sum()
        if unknown:
            log.info("%s: %s questions have words outside the vocabulary (UNK)", self.split, f"{unknown:,}")
        if empty:
            log.info("%s: %s questions have no words and are given as padding alone", self.split, f"{empty:,}")

    def _set_fingerprint(self):
        facts = [self._source.fingerprint(), self.num_answers, sorted(self.options.items())]
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8)
        targets = self._targets
        for array in (self.question_ids, self._image_rows, self._tokens, targets.classes, targets.levels):
            digest.update(np.ascontiguousarray(array))
        self.fingerprint = digest.hexdigest()

    def __len__(self):
        return len(self.question_ids)

    def ground_truth(self):
        """The official annotation record of each question: list of N dicts, or None where answers are secret.

        Read from the files anew: only an evaluation needs them.

        Raises:
            UserError: a file is missing or damaged.
        """
        if not self.has_answers:
            return None
        pairs = [vqa_samples.Pair(None, self._folder.annotations(part)) for part in SPLITS[self.split]]
        return vqa_samples.records_of(pairs, self._samples)

    @property
    def has_answers(self):
        """Whether the right answers are known."""
        return bool((self._samples.records >= 0).all())

    def read(self, indices, only=FIELDS, without=(), epoch=0):
        """One batch without the inputs that nobody needs.

        Args:
            indices: Question numbers, B of them.
            only: Inputs to read; ``regions`` stands for boxes, image_size and counts as well.
            without: Inputs to leave out.
            epoch: Without effect: nothing is augmented.

        Returns:
            dict of regions float16 (float32 from ``.npz`` files) (B, N, D), boxes float32 (B, N, 4) as x1, y1, x2,
            y2 in pixels, image_size float32 (B, 2) as height and width, counts int64 (B,), tokens int64 (B, T), as
            far as wanted, label float32 (B, A) of soft scores (zeros where answers are unknown) and index int64
            (B,). N and T are the largest of the batch, or with ``full`` padding max_regions and max_tokens.

        Raises:
            UserError: a feature file is damaged.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index out of range for {len(self)} questions")
        wanted = [field for field in FIELDS if field in only and field not in without]
        padding, batch = self.options["padding"], {}
        if "regions" in wanted:
            images = self._image_rows[rows].tolist()
            batch = read_batch(self._source, images, padding=padding, max_regions=self.options["max_regions"])
        if "tokens" in wanted:
            tokens = self._tokens[rows]
            longest = int((tokens != 0).sum(axis=1).max(initial=1))
            tokens = tokens if padding == "full" else tokens[:, :longest]
            batch["tokens"] = torch.from_numpy(tokens.astype(np.int64))
        batch["label"] = torch.from_numpy(self._targets.dense(rows))
        batch["index"] = torch.from_numpy(rows)
        return batch

    def __getitems__(self, indices):
        """One batch with everything; a loader uses it with an identity ``collate_fn``."""
        return self.read(indices)

    def __getitem__(self, index):
        """One question: the dict of `read` without the batch axis."""
        return {key: value[0] for key, value in self.read([index]).items()}
