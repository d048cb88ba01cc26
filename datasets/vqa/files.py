"""The official files of VQA v2: their names, splits and counts, reading them with checks, and writing them."""

import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.regions.samples import STORE_FOLDER
from util.cli import UserError, quoted
from util.files import read_json, write_text

QUESTION_FILES = {
    "train": "v2_OpenEnded_mscoco_train2014_questions.json",
    "val": "v2_OpenEnded_mscoco_val2014_questions.json",
    "test": "v2_OpenEnded_mscoco_test2015_questions.json",
    "vg": "VG_questions.json",
}
# The official test answers are secret; other data in the same form may have them.
ANNOTATION_FILES = {
    "train": "v2_mscoco_train2014_annotations.json",
    "val": "v2_mscoco_val2014_annotations.json",
    "test": "v2_mscoco_test2015_annotations.json",
    "vg": "VG_annotations.json",
}
OFFICIAL_COUNTS = {"train": 443757, "val": 214354, "test": 447793}
# The training splits are in the order of the annotations, val and test in the order of the questions.
TRAIN_SPLITS = {"train": ("train",), "train+val": ("train", "val"), "train+val+vg": ("train", "val", "vg")}
SPLITS = {**TRAIN_SPLITS, "val": ("val",), "test": ("test",)}
ANNOTATION_FOLDER = "annotations"
# Folders of .npz files: the published ones, and those of extract_features.py.
FEATURE_FOLDERS = ("bua-r101-max100", "features")

log = logging.getLogger("mdarts")
# Short name of a split -> its official name.
OFFICIAL_SPLITS = {"train": "train2014", "val": "val2014", "test": "test2015"}
# Question j of a picture has the id: id of the picture times this, plus j.
QUESTION_IDS = 1000
ANNOTATORS = 10


class Questions(NamedTuple):
    """A question file: ids and image_ids int64 (N,), texts (list of N str) and info (dict)."""

    ids: np.ndarray
    image_ids: np.ndarray
    texts: list
    info: dict


class Annotations(NamedTuple):
    """An annotation file: question_ids int64 (N,) and its N records (dicts), unchanged."""

    question_ids: np.ndarray
    records: list


class VQAFolder:
    """The folder ``annotations/`` of a data folder.

    Args:
        data: Data folder.

    Raises:
        UserError: the folder has no official question file.
    """

    def __init__(self, data):
        self.data = Path(data)
        self.folder = self.data / ANNOTATION_FOLDER
        if not any(self.has_questions(part) for part in QUESTION_FILES):
            raise UserError(f"no VQA questions in {self.folder}; {self._expected()}")

    def _expected(self):
        return (
            f"expected {self.folder}/{QUESTION_FILES['train']} and {ANNOTATION_FILES['train']}, the same for val2014,"
            f" the questions of test2015, and features in {self.data / STORE_FOLDER} (made with"
            f" `python datasets/prepare_vqa.py --data {quoted(self.data)} --out {quoted(self.data / STORE_FOLDER)}`)"
            f" or in {self.data / FEATURE_FOLDERS[0]}/{{train2014,val2014,test2015}}/*.npz; small real data:"
            " `python datasets/prepare_easy_vqa.py --out DIR`"
        )

    def questions_path(self, part):
        """Path of the question file of ``part`` (train, val, test, vg)."""
        return self.folder / QUESTION_FILES[part]

    def annotations_path(self, part):
        """Path of the annotation file of ``part``."""
        return self.folder / ANNOTATION_FILES[part]

    def has_questions(self, part):
        """Whether the question file exists."""
        return self.questions_path(part).is_file()

    def has_annotations(self, part):
        """Whether the annotation file exists."""
        return self.annotations_path(part).is_file()

    def missing(self):
        """Names of the missing official files, in the official order."""
        names = []
        for part in QUESTION_FILES:
            names += [] if self.has_questions(part) else [QUESTION_FILES[part]]
            names += [] if self.has_annotations(part) or part == "test" else [ANNOTATION_FILES[part]]
        return names

    def questions(self, part):
        """Read the `Questions` of a part.

        Raises:
            UserError: the file is missing, or does not have the official form.
        """
        path = self.questions_path(part)
        if not path.is_file():
            raise UserError(f"{path} is missing; {self._expected()}")
        content = read_json(path)
        records = _records(path, content, "questions", {"question_id": int, "image_id": int, "question": str})
        ids = _int_column(path, records, "question_id")
        _check_distinct(path, ids)
        info = content.get("info")
        texts = [record["question"] for record in records]
        return Questions(ids, _int_column(path, records, "image_id"), texts, info if isinstance(info, dict) else {})

    def annotations(self, part):
        """Read the `Annotations` of a part.

        Raises:
            UserError: the file is missing, or does not have the official form.
        """
        path = self.annotations_path(part)
        if not path.is_file():
            raise UserError(f"{path} is missing; {self._expected()}")
        return read_annotations(path, chosen=part != "vg")


def read_annotations(path, *, chosen=True):
    """Read the `Annotations` in an official annotation file.

    Args:
        path: The file.
        chosen: Whether each annotation needs a ``multiple_choice_answer``.

    Raises:
        UserError: the file is missing, or does not have the official form.
    """
    fields = {"question_id": int, "answers": list} | ({"multiple_choice_answer": str} if chosen else {})
    records = _records(path, read_json(path), "annotations", fields)
    for record in records:
        answers = record["answers"]
        if not answers or not all(isinstance(one, dict) and isinstance(one.get("answer"), str) for one in answers):
            raise UserError(
                f"{path}: question {record['question_id']} has answers {str(answers)[:60]}; expected a list of"
                ' {"answer": text}; fetch the file again'
            )
    ids = _int_column(path, records, "question_id")
    _check_distinct(path, ids)
    return Annotations(ids, records)


def is_official(info):
    """Whether ``info`` of a question file is that of VQA itself; other data in its form have their own description."""
    return "VQA dataset" in str(info.get("description", "VQA dataset"))


def answers_of(records):
    """Iterate over the annotators' answers (list of str) of each annotation record."""
    return ([one["answer"] for one in record["answers"]] for record in records)


def match_annotations(questions, annotations, question_file, annotation_file, *, complete=False):
    """Find the position in the question file of each annotation's question.

    Args:
        questions, annotations: `Questions` and `Annotations` of the same part.
        question_file, annotation_file: Their paths, for messages.
        complete: Whether every question must have an annotation.

    Returns:
        int64 (number of annotations,).

    Raises:
        UserError: there are annotations of unknown questions or, if ``complete`` is set, questions without annotation.
    """
    rows = find(questions.ids, annotations.question_ids)
    unknown = annotations.question_ids[rows < 0]
    if len(unknown) and len(unknown) == len(rows):
        raise UserError(
            f"{annotation_file} answers none of the questions of {question_file}:"
            " one of them is the file of another split; fetch the right pair"
        )
    if len(unknown):
        raise UserError(
            f"{annotation_file} answers {len(unknown):,} questions that {question_file} does not contain, first"
            f" {unknown[0]}; fetch both files of the same split and version"
        )
    absent = len(questions.ids) - len(rows)
    if absent and complete:
        first = questions.ids[np.setdiff1d(np.arange(len(questions.ids)), rows)[0]]
        raise UserError(
            f"{annotation_file} lacks {absent:,} questions of {question_file}, first {first}, so that they could not"
            " be scored; fetch both files of the same split and version"
        )
    if absent:
        log.warning("%s: %s questions of %s have no answers and are left out", annotation_file, absent, question_file)
    return rows


def find(values, wanted):
    """Find the position in ``values`` (distinct integers) of each of ``wanted``: int64 (n,), -1 if it is absent."""
    values, wanted = np.asarray(values, dtype=np.int64), np.asarray(wanted, dtype=np.int64)
    if not len(values):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    near = np.searchsorted(values, wanted, sorter=order).clip(max=len(values) - 1)
    rows = order[near]
    return np.where(values[rows] == wanted, rows, -1)


def _records(path, content, name, fields):
    """The list ``name`` in a file, after checking that each entry has the ``fields`` (dict name -> type)."""
    records = content.get(name) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise UserError(f'{path} is not an official VQA file: expected {{"{name}": [...]}}; fetch it again')
    if not records:
        raise UserError(f"{path} contains no {name}; fetch it again")
    for number, record in enumerate(records):
        for field, kind in fields.items():
            value = record.get(field) if isinstance(record, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                raise UserError(
                    f"{path}: entry {number} of {name} has no {field} ({kind.__name__}) but {str(value)[:40]!r};"
                    " expected the official VQA v2 form; fetch the file again"
                )
    return records


def _int_column(path, records, field):
    try:
        return np.array([record[field] for record in records], dtype=np.int64)
    except OverflowError:
        raise UserError(f"{path} has a {field} beyond 64 bits; fetch the file again") from None


def _check_distinct(path, ids):
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{path} contains question {values[counts > 1][0]} more than once; fetch the file again")


def write_questions(data, split, pictures, about):
    """Write both files of a split into ``<data>/annotations``, in the order of the pictures.

    Args:
        data: Data folder.
        split: ``train``, ``val`` or ``test``.
        pictures: Iterable of (image id, list of (question, answer)).
        about: dict of ``info`` and ``license``, which are written to both files.

    Returns:
        Number of questions.

    Raises:
        UserError: a file cannot be written.
    """
    questions, annotations = [], []
    for image_id, pairs in pictures:
        for number, (text, answer) in enumerate(pairs):
            key = {"image_id": image_id, "question_id": QUESTION_IDS * image_id + number}
            questions.append(key | {"question": text})
            annotations.append(key | _annotation(text, answer))
    about = about | {"data_type": "mscoco", "data_subtype": OFFICIAL_SPLITS[split]}
    asked = about | {"task_type": "Open-Ended", "questions": questions}
    folder = data / ANNOTATION_FOLDER
    write_text(folder / QUESTION_FILES[split], json.dumps(asked))
    write_text(folder / ANNOTATION_FILES[split], json.dumps(about | {"annotations": annotations}))
    return len(questions)


def _annotation(question, answer):
    """The annotation of a question with a single answer, as if all ten annotators had given it."""
    answers = [{"answer": answer, "answer_confidence": "yes", "answer_id": n} for n in range(1, ANNOTATORS + 1)]
    return {
        "question_type": " ".join(question.split()[:2]),
        "answer_type": answer_type(answer),
        "multiple_choice_answer": answer,
        "answers": answers,
    }


def answer_type(answer):
    """The official type of an answer: ``yes/no``, ``number`` or ``other``."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdigit() else "other"
