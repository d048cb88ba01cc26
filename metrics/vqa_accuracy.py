"""Accuracy of visual question answering: min(1, number of annotators who gave the answer / 3), for ten annotators.

There are two protocols, which differ in how answers are normalised. Both come from the VQA toolkit (GT-Vision-Lab/VQA).
In both, line breaks and tabs in a predicted answer become spaces, and the answer is stripped:

original   The copy in the original code. A predicted answer is processed by the punctuation pass and by the digit and
           article pass. The annotators' answers are only processed by the punctuation pass, and only if they are not
           all the same. An annotator's "two" therefore never equals a predicted "2".
official   The toolkit's own later version. The annotators' answers are stripped as well. If they are not all the
           same, predicted and annotators' answers are processed by both passes. Otherwise none of them are, and the
           predicted answer must equal the annotators' answer exactly.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from util.answers import normalise_words, strip_punctuation
from util.cli import UserError
from util.distributed import gather
from util.files import write_text

PROTOCOLS = ("original", "official")
# Number of equal answers for a full score.
MIN_EQUAL_ANSWERS = 3


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _normalised(text: str) -> str:
    return normalise_words(strip_punctuation(text))


class AnswerScores:
    """Computes the accuracy of any answer to any of N questions, and needs only a few bytes per question.

    Args:
        annotations: Official annotation records of the N questions, with ``answers: [{"answer": text}, ...]``.
        protocol: ``original`` or ``official``, see the module.

    Raises:
        UserError: the protocol is unknown.
    """

    def __init__(self, annotations: Iterable[Mapping[str, Any]], protocol: str = "original") -> None:
        if protocol not in PROTOCOLS:
            raise UserError(f"--metric {protocol}: choose one of {', '.join(PROTOCOLS)}")
        self.protocol = protocol
        self._codes: dict[str, int] = {}
        self._normal: dict[tuple[Callable[[str], str], str], str] = {}
        codes, values, starts, unanimous = [], [], [0], []
        for record in annotations:
            given = [answer["answer"] for answer in record["answers"]]
            same, texts = self._annotators(given)
            unanimous.append(same)
            for text, accuracy in _accuracies(texts).items():
                codes.append(self._codes.setdefault(text, len(self._codes)))
                values.append(accuracy)
            starts.append(len(codes))
        self._answers, self._values = np.array(codes, dtype=np.int32), np.array(values, dtype=np.float64)
        self._starts, self._unanimous = np.array(starts, dtype=np.int64), np.array(unanimous, dtype=bool)

    def _annotators(self, given):
        """Whether all annotators gave the same answer, and the answers in the form in which they are compared."""
        if self.protocol == "official":
            given = [_plain(text) for text in given]
        if len(set(given)) == 1:
            return True, given
        apply = strip_punctuation if self.protocol == "original" else _normalised
        return False, [self._once(apply, text) for text in given]

    def _once(self, apply, text):
        # Millions of answers have only a few distinct spellings, so results are cached.
        key = (apply, text)
        if key not in self._normal:
            self._normal[key] = apply(text)
        return self._normal[key]

    def __len__(self) -> int:
        return len(self._unanimous)

    def score(self, row: int, answer: str) -> float:
        """Return the accuracy, in 0..1, of the text ``answer`` to the question with index ``row``."""
        answer = _plain(answer)
        if self.protocol == "original" or not self._unanimous[row]:
            answer = self._once(_normalised, answer)
        code = self._codes.get(answer)
        if code is None:
            return 0.0
        piece = slice(self._starts[row], self._starts[row + 1])
        places = np.flatnonzero(self._answers[piece] == code)
        return float(self._values[piece][places[0]]) if len(places) else 0.0


def _accuracies(texts: Sequence[str]) -> dict[str, float]:
    """Map each answer to its accuracy: the mean over annotators of min(1, equal answers of the other annotators / 3).

    Annotators are identified by their position. NOTE: the toolkit identifies them by their complete records, which is
    equivalent as long as every ``answer_id`` is different.
    """
    return {
        text: _accuracy(tuple(other == text for other in texts)) if count <= MIN_EQUAL_ANSWERS else 1.0
        for text, count in Counter(texts).items()
    }


@functools.cache
def _accuracy(own: tuple[bool, ...]) -> float:
    """Accuracy of an answer; ``own`` tells for each annotator whether they gave it."""
    count = sum(own)
    # Summed in the annotators' order, as the toolkit does, so that rounded percentages agree.
    return sum(min(1, (count - one) / MIN_EQUAL_ANSWERS) for one in own) / len(own)


class VQAAccuracy:
    """Accuracy of the answers with the largest logit, overall and by type of answer.

    `compute` and `results` are collective calls: all processes must make them.

    Args:
        names: The A answers, in the order of the classes.
        question_ids: Ids of the data set's N questions, int64 (N,).
        annotations: The N official annotation records, or None if the answers are not public.
        protocol: ``original`` or ``official``, see the module.

    Raises:
        UserError: the protocol is unknown.
    """

    name = "accuracy"

    def __init__(
        self,
        names: Iterable[str],
        question_ids: Sequence[int] | np.ndarray,
        annotations: Sequence[Mapping[str, Any]] | None = None,
        protocol: str = "original",
    ) -> None:
        self.names, self.question_ids = list(names), np.asarray(question_ids)
        self._scores: AnswerScores | None = None
        self._types: Any = None
        if annotations is not None:
            self._scores = AnswerScores(annotations, protocol)
            self._types = np.array([str(record.get("answer_type", "")) for record in annotations])
        self.reset()

    def reset(self) -> None:
        """Start a new pass."""
        self._rows: list[torch.Tensor] = []
        self._classes: list[torch.Tensor] = []

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add logits (B, A) for the questions with indices ``batch["index"]``, int64 (B,)."""
        # Kept on the device, since a copy to the CPU would make every step wait.
        self._classes.append(outputs.argmax(dim=1))
        self._rows.append(batch["index"])

    def _gathered(self):
        """Indices of the questions seen on any rank, ascending, and the predicted class of each."""
        own = [
            torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.int64) for parts in (self._rows, self._classes)
        ]
        rows, classes = (np.concatenate(parts) for parts in zip(*gather(own), strict=True))
        rows, firsts = np.unique(rows, return_index=True)
        return rows, classes[firsts]

    def compute(self) -> dict[str, float]:
        """Return ``accuracy`` in 0..1, and the same for each answer type (``yes/no``, ``number``, ``other``).

        Questions seen on any rank are counted once. Without questions or annotations, the accuracy is NaN.
        """
        rows, classes = self._gathered()
        if self._scores is None or not len(rows):
            return {self.name: float("nan")}
        scores = np.array(
            [self._scores.score(row, self.names[one]) for row, one in zip(rows.tolist(), classes.tolist(), strict=True)]
        )
        types = self._types[rows]
        by_type = {str(kind): float(scores[types == kind].mean()) for kind in np.unique(types) if kind}
        return {self.name: float(scores.mean())} | by_type

    def results(self) -> tuple[np.ndarray, list[str]]:
        """Return the answers of all ranks: question ids, int64 (n,), in the order of the data set, and n answers."""
        rows, classes = self._gathered()
        return self.question_ids[rows], [self.names[one] for one in classes.tolist()]


def write_results(path: Path | str, question_ids: Iterable[int], answers: Iterable[str]) -> None:
    """Write answers in the evaluation server's form, ``[{"answer": text, "question_id": number}, ...]``, atomically.

    Args:
        path: The file.
        question_ids: Ids of n questions.
        answers: Their n answers.

    Raises:
        UserError: the file cannot be written.
    """
    pairs = zip(question_ids, answers, strict=True)
    entries = (json.dumps({"answer": answer, "question_id": int(number)}) for number, answer in pairs)
    write_text(path, "[" + ",\n".join(entries) + "]\n")
