"""The vocabulary and the answer table of a VQA folder: built from all official files, kept beside the features."""

import itertools
import logging
from pathlib import Path

from datasets.vqa_answers import MIN_ANSWER_COUNT, AnswerTable
from datasets.vqa_files import ANNOTATION_FILES, QUESTION_FILES
from datasets.vqa_text import Vocabulary
from util.cli import UserError
from util.files import read_json, write_json

TABLES_FILE = "vocabulary.json"
TABLES_FORMAT, TABLES_VERSION = "vqa-vocabulary", 1
# The originals count answers of these two, and of no other.
ANSWER_PARTS = ("train", "val")

log = logging.getLogger("mdarts")


def build_vocabulary(folder):
    """Words of all question files that exist, in the order train, val, test, vg.

    Args:
        folder: `VQAFolder`.

    Returns:
        `Vocabulary`.
    """
    texts = (folder.questions(part).texts for part in QUESTION_FILES if folder.has_questions(part))
    return Vocabulary.of_texts(itertools.chain.from_iterable(texts))


def build_answers(folder, min_count=MIN_ANSWER_COUNT):
    """Answers of train and val that occur at least ``min_count`` times.

    Returns:
        `AnswerTable`.

    Raises:
        UserError: neither annotation file is there, or no answer is so frequent.
    """
    parts = [part for part in ANSWER_PARTS if folder.has_annotations(part)]
    if not parts:
        names = " or ".join(ANNOTATION_FILES[part] for part in ANSWER_PARTS)
        raise UserError(f"{folder.folder} has no {names}, from which the possible answers come; put them there")
    records = itertools.chain.from_iterable(folder.annotations(part).records for part in parts)
    table = AnswerTable.of_answers((record["multiple_choice_answer"] for record in records), min_count)
    if not len(table):
        raise UserError(
            f"{folder.folder}: no answer occurs {min_count} times; small data need a smaller --min_answer_count"
        )
    return table


def tell_missing(folder):
    """Log which official files are missing, without which the tables are not those of the published networks."""
    missing = folder.missing()
    if missing:
        log.warning("%s lacks %s: words and answers come from the others", folder.folder, ", ".join(missing))


def _sources(folder):
    """Names and sizes of the files that the tables come from."""
    paths = [folder.questions_path(part) for part in QUESTION_FILES if folder.has_questions(part)]
    paths += [folder.annotations_path(part) for part in ANSWER_PARTS if folder.has_annotations(part)]
    return {path.name: path.stat().st_size for path in paths}


def write_tables(store, folder, vocabulary, answers, min_count):
    """Keep the tables of ``folder`` in the folder ``store`` (`TABLES_FILE`)."""
    head = {"format": TABLES_FORMAT, "version": TABLES_VERSION, "min_answer_count": min_count}
    facts = {"sources": _sources(folder)} | vocabulary.to_dict() | answers.to_dict()
    write_json(Path(store) / TABLES_FILE, head | facts)


def read_tables(store, folder, min_count=None):
    """The tables that `write_tables` kept, where they are there and fit the files of ``folder`` by name and size.

    Args:
        store: Folder of the packed features.
        folder: `VQAFolder`.
        min_count: The least count that answers must have been kept with; None for any.

    Returns:
        (`Vocabulary`, `AnswerTable`), or None where they must be built.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(store) / TABLES_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    found = content if isinstance(content, dict) else {}
    if (found.get("format"), found.get("version")) != (TABLES_FORMAT, TABLES_VERSION):
        raise UserError(
            f"{path} is no {TABLES_FORMAT} of version {TABLES_VERSION}; delete it and prepare the data again"
        )
    if found.get("sources") != _sources(folder) or min_count not in (None, found.get("min_answer_count")):
        log.warning("%s is of other question files or another --min_answer_count and is not used", path)
        return None
    return Vocabulary.from_dict(content, str(path)), AnswerTable.from_dict(content, str(path))


def load_tables(folder, store=None, vocabulary=None, answers=None, min_count=None):
    """The tables to work with: those given (of a checkpoint), else those kept in ``store``, else built anew.

    Args:
        folder: `VQAFolder`.
        store: Folder of the packed features, or None.
        vocabulary, answers: `Vocabulary` and `AnswerTable`, or None.
        min_count: Least count of an answer; None for that of the kept table, or `MIN_ANSWER_COUNT`.

    Returns:
        (`Vocabulary`, `AnswerTable`).

    Raises:
        UserError: files are missing or damaged.
    """
    if vocabulary is not None and answers is not None:
        return vocabulary, answers
    kept = read_tables(store, folder, min_count) if store else None
    if kept is None:
        tell_missing(folder)
        kept = None, None
    vocabulary = vocabulary or kept[0] or build_vocabulary(folder)
    return vocabulary, answers or kept[1] or build_answers(folder, min_count or MIN_ANSWER_COUNT)
