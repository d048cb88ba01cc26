"""Visual question answering in the official form of VQA v2: image regions, a question, soft scores of answers."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from datasets.regions.reading import MAX_REGIONS, PADDING
from datasets.regions.samples import RegionSamples, cut, find_features, open_features
from datasets.vqa.answers import SoftTargets, load_tables
from datasets.vqa.files import (
    FEATURE_FOLDERS,
    SPLITS,
    STORE_FOLDER,
    TRAIN_SPLITS,
    VQAFolder,
    answers_of,
    match_annotations,
)
from util.cli import UserError, quoted

MAX_TOKENS = 14
log = logging.getLogger("mdarts")


def prepare_command(data):
    """The command that packs the features of ``data``."""
    return f"python datasets/prepare_vqa.py --data {quoted(data)} --out {quoted(Path(data) / STORE_FOLDER)}"


def open_vqa(data, split, *, part=None, **options):
    """Open one split of VQA v2, or a ``part`` of it: a `VQA` dataset; see `open_vqa_parts`."""
    return open_vqa_parts(data, split, {"": part}, **options)[""]


def open_vqa_parts(
    data,
    split,
    parts,
    *,
    vocabulary=None,
    answers=None,
    features=None,
    padding="batch",
    max_regions=MAX_REGIONS,
    max_tokens=MAX_TOKENS,
    small=False,
    skip_missing=False,
    min_answer_count=None,
    feature_size=None,
):
    """Open parts of one split of VQA v2, or of other data in its form; its files are read once.

    Args:
        data: Folder with ``annotations/`` (the official files) and with features, see `find_features`.
        split: ``train``, ``train+val`` or ``train+val+vg``, in the order of the annotations; ``val`` or ``test``, in
            the order of the questions.
        parts: dict name -> ``("first", f)`` or ``("last", f)`` for that share of the split, or None for all of it; see
            `regions.samples.cut`.
        vocabulary, answers: `Vocabulary` and `AnswerTable` of a checkpoint; None for those of the data.
        features: Folder of other features, a store or ``.npz`` files; the ``source`` of another
            split; or None to find features in ``data``.
        padding: ``batch`` (pad to the longest sample of a batch) or ``full`` (pad to the maximum).
        max_regions, max_tokens: Maximum number of regions of an image and of words of a question; the first are kept.
        small: Keep only the first 64 questions of each part.
        skip_missing: Leave out questions about images without features.
        min_answer_count: Minimum number of occurrences of an answer; None for that of the store, or 9.
        feature_size: The width that features must have; None for any.

    Returns:
        dict name of a part -> `VQA` dataset.

    Raises:
        UserError: the split or an option is unknown, files are missing, damaged or do not match, or images have no
            features.
    """
    _check_choices(split, padding)
    folder = VQAFolder(data)
    pairs, complete = read_split(folder, split)
    cuts = {name: cut(len(complete.parts), part, small) for name, part in parts.items()}
    pieces = {name: complete.taken(piece) for name, piece in cuts.items()}
    remedy = prepare_command(data)
    source = features or find_features(data, remedy, FEATURE_FOLDERS)
    wanted = {"feature_size": feature_size, "max_regions": max_regions, "skip_missing": skip_missing}
    sources = {}
    for name, samples in pieces.items():
        image_ids = column(pairs, samples, lambda questions: questions.image_ids)
        source, image_rows, kept = open_features(source, image_ids, remedy=remedy, **wanted)  # opened by the first part
        pieces[name], sources[name] = samples.taken(kept), (source, image_rows)
    tables = load_tables(folder, source.folder, vocabulary, answers, min_answer_count)
    options = {"padding": padding, "max_regions": int(max_regions), "max_tokens": int(max_tokens)}
    return {
        name: VQA(folder, split, (pairs, samples), sources[name], tables, dict(options))
        for name, samples in pieces.items()
    }


def _check_choices(split, padding):
    for name, value, choices in (("split", split, SPLITS), ("padding", padding, PADDING)):
        if value not in choices:
            raise UserError(f"unknown VQA {name} {value!r}: choose one of {', '.join(choices)}")


class VQA(RegionSamples):
    """One split, or a part of it, as a map-style dataset; see `RegionSamples`.

    Attributes:
        vocabulary, answers: `Vocabulary` and `AnswerTable`.
        num_answers: Number of answer classes A.
        num_questions: Number of questions in the split's files, including those that were left out.
        question_ids, image_ids: int64 (N,).
        fingerprint: Short hex string that changes with the content and the options.
        description: What the data are.
        synthetic: Whether they are synthetic.
    """

    def __init__(self, folder, split, chosen, regions, tables, options):
        (pairs, samples), (source, image_rows), (self.vocabulary, self.answers) = chosen, regions, tables
        tokens = self.vocabulary.encode(texts_of(pairs, samples), options["max_tokens"])
        super().__init__(split, source, image_rows, tokens, options)
        self._folder, self._samples = folder, samples
        self.question_ids = column(pairs, samples, lambda questions: questions.ids)
        self.image_ids = column(pairs, samples, lambda questions: questions.image_ids)
        self._targets = targets = targets_of(pairs, samples, self.answers)
        self.num_answers = len(self.answers)
        self.num_questions = sum(len(pair.questions.ids) for pair in pairs)
        info = pairs[0].questions.info
        # The first sentence of the description in the files.
        about = str(info.get("description", "VQA v2")).split(". ")[0].rstrip(".")
        self.description = f"{about}; {source.description}"
        self.synthetic = bool(info.get("synthetic", False))
        self.fingerprint = self._digest([self.num_answers], self.question_ids, targets.classes, targets.levels)
        self._identifying = (self._image_rows, self._tokens, self.question_ids, targets.classes, targets.levels)

    def ground_truth(self):
        """The official annotation record of each question: list of N dicts, or None if answers are unknown.

        The records are read from the files again, since only evaluation needs them.

        Raises:
            UserError: a file is missing or damaged.
        """
        if not self.has_answers:
            return None
        pairs = [Pair(None, self._folder.annotations(part)) for part in SPLITS[self.split]]
        return records_of(pairs, self._samples)

    @property
    def has_answers(self):
        """Whether the ground-truth answers of all questions are known."""
        return bool((self._samples.records >= 0).all())

    def labels(self, rows):
        """Soft scores of the answers of the samples ``rows``: float32 (B, A); zeros if answers are unknown."""
        return torch.from_numpy(self._targets.dense(rows))


class Samples(NamedTuple):
    """N questions of a split, in its order.

    parts: uint8 (N,), position of each question's file among the files of the split.
    questions: int32 (N,), position in that question file.
    records: int32 (N,), position in the annotation file, -1 without an annotation.
    """

    parts: np.ndarray
    questions: np.ndarray
    records: np.ndarray

    def taken(self, rows):
        """The `Samples` ``rows``, any numpy index."""
        return Samples(*(array[rows] for array in self))


class Pair(NamedTuple):
    """The `Questions` of one part and its `Annotations`, or None."""

    questions: tuple
    annotations: tuple | None


def read_split(folder, split):
    """Read the files of a split.

    Args:
        folder: `VQAFolder`.
        split: One of `SPLITS`.

    Returns:
        (list of `Pair`, `Samples` of the whole split). Training splits are in the order of the annotations, one file
        after another; val and test are in the order of the questions.

    Raises:
        UserError: a file is missing or has another form, or a pair of files does not match.
    """
    pairs, samples = [], []
    training = split in TRAIN_SPLITS
    for number, part in enumerate(SPLITS[split]):
        questions, annotations = folder.questions(part), None
        records = np.full(len(questions.ids), -1, dtype=np.int32)
        rows = np.arange(len(questions.ids), dtype=np.int32)
        if part != "test" or folder.has_annotations(part):
            annotations = folder.annotations(part)
            paths = folder.questions_path(part), folder.annotations_path(part)
            matched = match_annotations(questions, annotations, *paths, complete=not training)
            records[matched] = np.arange(len(matched))
            rows = matched.astype(np.int32) if training else rows
        pairs.append(Pair(questions, annotations))
        samples.append(Samples(np.full(len(rows), number, dtype=np.uint8), rows, records[rows]))
    return pairs, Samples(*(np.concatenate(arrays) for arrays in zip(*samples, strict=True)))


def column(pairs, samples, values):
    """Collect one value per sample from the question files.

    Args:
        pairs, samples: What `read_split` returned.
        values: Function from `Questions` to an array or list with one entry per question.

    Returns:
        int64 array (N,).
    """
    columns = [np.asarray(values(pair.questions), dtype=np.int64) for pair in pairs]
    starts = np.cumsum([0, *(len(one) for one in columns)])
    return np.concatenate(columns)[starts[samples.parts] + samples.questions]


def texts_of(pairs, samples):
    """The question of each sample: list of N str."""
    return [
        pairs[part].questions.texts[row]
        for part, row in zip(samples.parts.tolist(), samples.questions.tolist(), strict=True)
    ]


def records_of(pairs, samples):
    """The annotation record of each sample: list of N dicts, or None if a part of the split has no annotations."""
    if any(pair.annotations is None for pair in pairs):
        return None
    return [
        pairs[part].annotations.records[row]
        for part, row in zip(samples.parts.tolist(), samples.records.tolist(), strict=True)
    ]


def targets_of(pairs, samples, answers):
    """`SoftTargets` of the samples for the `AnswerTable` ``answers``; zeros if answers are unknown."""
    records = records_of(pairs, samples)
    if records is None:
        return SoftTargets.unknown(len(samples.parts), len(answers))
    return answers.targets(answers_of(records))
