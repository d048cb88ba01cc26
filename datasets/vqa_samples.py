"""Which questions a VQA split consists of, in which order, and where their answers stand."""

import logging
from typing import NamedTuple

import numpy as np

from datasets.vqa_answers import SoftTargets
from datasets.vqa_files import SPLITS, TRAIN_SPLITS, answers_of, match_annotations

log = logging.getLogger("mdarts")


class Samples(NamedTuple):
    """Questions of a split in its order, N of them.

    parts: uint8 (N,), position of each question's file in the parts of the split.
    questions: int32 (N,), position in that question file.
    records: int32 (N,), position in the annotation file, -1 without one.
    """

    parts: np.ndarray
    questions: np.ndarray
    records: np.ndarray

    def taken(self, rows):
        """The samples ``rows`` (an index of numpy)."""
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
        List of `Pair`, and all `Samples`: for training in the order of the annotations, one file after the
        other; for val and test in the order of the questions.

    Raises:
        UserError: a file is missing or of another form, or a pair of files does not fit together.
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
            found = match_annotations(questions, annotations, *paths, complete=not training)
            records[found] = np.arange(len(found))
            rows = found.astype(np.int32) if training else rows
        pairs.append(Pair(questions, annotations))
        samples.append(Samples(np.full(len(rows), number, dtype=np.uint8), rows, records[rows]))
    return pairs, Samples(*(np.concatenate(arrays) for arrays in zip(*samples, strict=True)))


def column(pairs, samples, values):
    """One value per sample out of the question files.

    Args:
        pairs, samples: Of `read_split`.
        values: Function of `Questions` that gives an array or list with an entry per question.

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
    """The annotation record of each sample, or None where a split has none."""
    if any(pair.annotations is None for pair in pairs):
        return None
    return [
        pairs[part].annotations.records[row]
        for part, row in zip(samples.parts.tolist(), samples.records.tolist(), strict=True)
    ]


def targets_of(pairs, samples, answers):
    """`SoftTargets` of the samples for the `AnswerTable` ``answers``; zeros where answers are unknown."""
    records = records_of(pairs, samples)
    if records is None:
        return SoftTargets.unknown(len(samples.parts), len(answers))
    return answers.targets(answers_of(records))
