"""Answers as classes with soft scores, and the tables of answers and words, which are stored next to the features."""

import itertools
import logging
from collections import Counter
from pathlib import Path

import numpy as np

from datasets.text.vocabulary import Vocabulary
from datasets.vqa.files import ANNOTATION_FILES, QUESTION_FILES
from util.answers import normalise_answer
from util.cli import UserError
from util.files import read_json, write_json

MIN_ANSWER_COUNT = 9
# Score of a class by the number of annotators who gave it: 0, 1, 2, 3, and 4 or more.
SCORES = np.array([0.0, 0.3, 0.6, 0.9, 1.0], dtype=np.float32)
TABLES_FILE = "vocabulary.json"
TABLES_FORMAT, TABLES_VERSION = "vqa-vocabulary", 1
# The original counts answers of only these two.
ANSWER_PARTS = ("train", "val")

log = logging.getLogger("mdarts")


class AnswerTable:
    """The answers that a network can give; the number of an answer is its class.

    Args:
        names: Normalised answers, without repetition.

    Attributes:
        names: Tuple of the A answers.
    """

    def __init__(self, names):
        self.names = tuple(names)
        self._numbers = {name: number for number, name in enumerate(self.names)}
        if len(self._numbers) != len(self.names):
            raise ValueError("an answer table contains every answer only once")

    @classmethod
    def of_answers(cls, answers, min_count=MIN_ANSWER_COUNT):
        """Make the table of answers that occur at least ``min_count`` times, in the order of their first occurrence.

        Args:
            answers: Iterable of the questions' ``multiple_choice_answer``, first those of train, then those of val.
            min_count: Minimum number of occurrences after normalisation (the original's rule is more than 8).
        """
        counts = Counter()
        # Only distinct spellings are normalised, which is faster; a Counter keeps the order of first occurrence.
        for spelling, count in Counter(answers).items():
            counts[normalise_answer(spelling)] += count
        return cls(name for name, count in counts.items() if count >= min_count)

    def __len__(self):
        return len(self.names)

    def __eq__(self, other):
        return isinstance(other, AnswerTable) and self.names == other.names

    __hash__ = None

    def targets(self, answers):
        """Compute the soft targets of questions.

        Args:
            answers: Iterable with one list of annotators' answers (str) per question.

        Returns:
            `SoftTargets` of these questions.
        """
        spellings, starts, classes, counts = {}, [0], [], []
        for given in answers:
            votes = Counter()
            for spelling in given:
                if spelling not in spellings:
                    spellings[spelling] = self._numbers.get(normalise_answer(spelling), -1)
                votes[spellings[spelling]] += 1
            votes.pop(-1, None)
            classes.extend(votes)
            counts.extend(votes.values())
            starts.append(len(classes))
        levels = np.minimum(np.array(counts, dtype=np.int64), len(SCORES) - 1).astype(np.uint8)
        return SoftTargets(np.array(starts, dtype=np.int64), np.array(classes, dtype=np.int32), levels, len(self))

    def to_dict(self):
        """dict of JSON values for `from_dict`, to be saved in checkpoints."""
        return {"answers": list(self.names)}

    @classmethod
    def from_dict(cls, value, origin="the answer table"):
        """Restore a table from the dict of `to_dict`.

        Args:
            value: The dict.
            origin: Where it comes from, for messages.

        Raises:
            UserError: ``value`` is something else.
        """
        names = value.get("answers") if isinstance(value, dict) else None
        good = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        if not good or len(set(names)) < len(names):
            raise UserError(f"{origin} contains no list of distinct answers; make it again")
        return cls(names)


class SoftTargets:
    """Scores of the classes of N questions, stored sparsely in a few bytes per question.

    Args:
        starts: int64 (N + 1,), where each question's entries begin.
        classes: int32 (E,), class of each entry.
        levels: uint8 (E,), index in `SCORES` of each entry.
        num_answers: Number of classes A.
    """

    def __init__(self, starts, classes, levels, num_answers):
        self.starts, self.classes, self.levels = starts, classes, levels
        self.num_answers = num_answers

    def __len__(self):
        return len(self.starts) - 1

    @classmethod
    def unknown(cls, count, num_answers):
        """`SoftTargets` of ``count`` questions with unknown answers: all scores are zero."""
        return cls(np.zeros(count + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8), num_answers)

    @classmethod
    def joined(cls, parts):
        """Concatenate several `SoftTargets` with the same classes."""
        ends = np.cumsum([0, *(len(part.classes) for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return cls(
            np.concatenate([*starts, ends[-1:]]),
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.levels for part in parts]),
            parts[0].num_answers,
        )

    def _entries(self, rows):
        """Positions of the entries of the questions ``rows``, and the index in ``rows`` of each: two int64 (e,)."""
        begins, ends = self.starts[rows], self.starts[1:][rows]
        sizes = ends - begins
        owners = np.repeat(np.arange(len(rows)), sizes)
        firsts = np.cumsum(sizes) - sizes
        return np.arange(len(owners)) + (begins - firsts)[owners], owners

    def taken(self, rows):
        """The `SoftTargets` of the questions ``rows`` (int array)."""
        positions, owners = self._entries(rows)
        sizes = np.bincount(owners, minlength=len(rows))
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return SoftTargets(starts, self.classes[positions], self.levels[positions], self.num_answers)

    def dense(self, rows):
        """Dense targets of the questions ``rows`` (int array): float32 (B, A)."""
        positions, owners = self._entries(rows)
        targets = np.zeros((len(rows), self.num_answers), dtype=np.float32)
        targets[owners, self.classes[positions]] = SCORES[self.levels[positions]]
        return targets


def build_vocabulary(folder):
    """Build the vocabulary of all existing question files, in the order train, val, test, vg.

    Args:
        folder: `VQAFolder`.

    Returns:
        `Vocabulary`.
    """
    texts = (folder.questions(part).texts for part in QUESTION_FILES if folder.has_questions(part))
    return Vocabulary.of_texts(itertools.chain.from_iterable(texts))


def build_answers(folder, min_count=MIN_ANSWER_COUNT):
    """Build the table of the answers of train and val that occur at least ``min_count`` times.

    Returns:
        `AnswerTable`.

    Raises:
        UserError: both annotation files are missing or one is damaged, or no answer is frequent enough.
    """
    parts = [part for part in ANSWER_PARTS if folder.has_annotations(part)]
    if not parts:
        names = " or ".join(ANNOTATION_FILES[part] for part in ANSWER_PARTS)
        raise UserError(f"{folder.folder} has no {names}, which contain the possible answers; put them there")
    records = itertools.chain.from_iterable(folder.annotations(part).records for part in parts)
    table = AnswerTable.of_answers((record["multiple_choice_answer"] for record in records), min_count)
    if not len(table):
        raise UserError(
            f"{folder.folder}: no answer occurs {min_count} times; give small data a smaller --min_answer_count"
        )
    return table


def log_missing(folder):
    """Warn about missing official files, without which the tables differ from those of the published networks."""
    missing = folder.missing()
    if missing:
        log.warning("%s lacks %s: words and answers come from the others", folder.folder, ", ".join(missing))


def _sources(folder):
    """dict name -> size in bytes of the files that the tables come from."""
    paths = [folder.questions_path(part) for part in QUESTION_FILES if folder.has_questions(part)]
    paths += [folder.annotations_path(part) for part in ANSWER_PARTS if folder.has_annotations(part)]
    return {path.name: path.stat().st_size for path in paths}


def write_tables(store, folder, vocabulary, answers, min_count):
    """Save the tables of the `VQAFolder` ``folder`` as `TABLES_FILE` in the folder ``store``."""
    head = {"format": TABLES_FORMAT, "version": TABLES_VERSION, "min_answer_count": min_count}
    facts = {"sources": _sources(folder)} | vocabulary.to_dict() | answers.to_dict()
    write_json(Path(store) / TABLES_FILE, head | facts)


def read_tables(store, folder, min_count=None):
    """Read the tables that `write_tables` saved, if they exist and match the files of ``folder`` by name and size.

    Args:
        store: Folder of the packed features.
        folder: `VQAFolder`.
        min_count: The minimum count with which the answers must have been saved; None for any.

    Returns:
        (`Vocabulary`, `AnswerTable`), or None if they must be built.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(store) / TABLES_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    tables = content if isinstance(content, dict) else {}
    if (tables.get("format"), tables.get("version")) != (TABLES_FORMAT, TABLES_VERSION):
        raise UserError(
            f"{path} is not a {TABLES_FORMAT} of version {TABLES_VERSION}; delete it and prepare the data again"
        )
    if tables.get("sources") != _sources(folder) or min_count not in (None, tables.get("min_answer_count")):
        log.warning("%s was made from other question files or with another --min_answer_count, and is not used", path)
        return None
    return Vocabulary.from_dict(content, str(path)), AnswerTable.from_dict(content, str(path))


def load_tables(folder, store=None, vocabulary=None, answers=None, min_count=None):
    """Get the tables to use: those given, else those saved in ``store``, else tables built from the files.

    Args:
        folder: `VQAFolder`.
        store: Folder of the packed features, or None.
        vocabulary, answers: `Vocabulary` and `AnswerTable` of a checkpoint, or None.
        min_count: Minimum count of an answer; None for that of the saved table, or `MIN_ANSWER_COUNT`.

    Returns:
        (`Vocabulary`, `AnswerTable`).

    Raises:
        UserError: files are missing or damaged.
    """
    if vocabulary is not None and answers is not None:
        return vocabulary, answers
    kept = read_tables(store, folder, min_count) if store else None
    if kept is None:
        log_missing(folder)
        kept = None, None
    vocabulary = vocabulary or kept[0] or build_vocabulary(folder)
    return vocabulary, answers or kept[1] or build_answers(folder, min_count or MIN_ANSWER_COUNT)
