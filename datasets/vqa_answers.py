"""Answers as classes, and the soft scores of the ten annotators' answers."""

from collections import Counter

import numpy as np

from util.answers import normalise_answer
from util.cli import UserError

MIN_ANSWER_COUNT = 9
# Score of a class that 0, 1, 2, 3, 4 or more annotators gave.
SCORES = np.array([0.0, 0.3, 0.6, 0.9, 1.0], dtype=np.float32)


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
            raise ValueError("an answer table holds every answer once")

    @classmethod
    def of_answers(cls, answers, min_count=MIN_ANSWER_COUNT):
        """The answers that occur at least ``min_count`` times, in the order in which they were first seen.

        Args:
            answers: Iterable of the questions' ``multiple_choice_answer``, of train and then of val.
            min_count: Least number of occurrences after normalisation (the originals' rule: more than 8).
        """
        counts = Counter()
        # Far fewer spellings than answers; a dict counts them in the order of their first occurrence.
        for spelling, count in Counter(answers).items():
            counts[normalise_answer(spelling)] += count
        return cls(name for name, count in counts.items() if count >= min_count)

    def __len__(self):
        return len(self.names)

    def __eq__(self, other):
        return isinstance(other, AnswerTable) and self.names == other.names

    __hash__ = None

    def targets(self, answers):
        """Soft targets of questions.

        Args:
            answers: Iterable with a list of annotators' answers (str) per question.

        Returns:
            `SoftTargets` of as many questions.
        """
        spellings, starts, classes, counts = {}, [0], [], []
        for given in answers:
            found = Counter()
            for spelling in given:
                if spelling not in spellings:
                    spellings[spelling] = self._numbers.get(normalise_answer(spelling), -1)
                found[spellings[spelling]] += 1
            found.pop(-1, None)
            classes.extend(found)
            counts.extend(found.values())
            starts.append(len(classes))
        levels = np.minimum(np.array(counts, dtype=np.int64), len(SCORES) - 1).astype(np.uint8)
        return SoftTargets(np.array(starts, dtype=np.int64), np.array(classes, dtype=np.int32), levels, len(self))

    def to_dict(self):
        """What `from_dict` needs, as JSON values; a checkpoint carries it."""
        return {"answers": list(self.names)}

    @classmethod
    def from_dict(cls, value, origin="the answer table"):
        """The table of `to_dict`.

        Raises:
            UserError: ``value`` is something else; ``origin`` says where it comes from.
        """
        names = value.get("answers") if isinstance(value, dict) else None
        good = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
        if not good or len(set(names)) < len(names):
            raise UserError(f"{origin} holds no list of distinct answers; make it again")
        return cls(names)


class SoftTargets:
    """Scores of the classes of N questions, few bytes each.

    Args:
        starts: int64 (N + 1,), where each question's entries begin.
        classes: int32 (E,), class of each entry.
        levels: uint8 (E,), row of `SCORES` of each entry.
        num_answers: Number of classes A.
    """

    def __init__(self, starts, classes, levels, num_answers):
        self.starts, self.classes, self.levels = starts, classes, levels
        self.num_answers = num_answers

    def __len__(self):
        return len(self.starts) - 1

    @classmethod
    def unknown(cls, count, num_answers):
        """Zeros for ``count`` questions."""
        return cls(np.zeros(count + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8), num_answers)

    @classmethod
    def joined(cls, parts):
        """The questions of several `SoftTargets` with the same classes, one after the other."""
        ends = np.cumsum([0, *(len(part.classes) for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return cls(
            np.concatenate([*starts, ends[-1:]]),
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.levels for part in parts]),
            parts[0].num_answers,
        )

    def _entries(self, rows):
        """Positions of the entries of the questions ``rows``, and which of ``rows`` each belongs to: int64 (e,)."""
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
        """float32 (B, A) targets of the questions ``rows`` (int array)."""
        positions, owners = self._entries(rows)
        targets = np.zeros((len(rows), self.num_answers), dtype=np.float32)
        targets[owners, self.classes[positions]] = SCORES[self.levels[positions]]
        return targets
