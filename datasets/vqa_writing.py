"""Other data in the official files of VQA v2: a question file and an annotation file per split."""

import json

from datasets.vqa_files import ANNOTATION_FILES, ANNOTATION_FOLDER, QUESTION_FILES
from util.files import write_text

# The official names of the splits, by their short ones.
OFFICIAL_SPLITS = {"train": "train2014", "val": "val2014", "test": "test2015"}
# Question ids per picture: question j of a picture has the picture's id times this, plus j.
QUESTION_IDS = 1000
ANNOTATORS = 10


def write_questions(data, split, pictures, about):
    """Write both files of a split into ``<data>/annotations``, in the order of the pictures.

    Args:
        data: Data folder.
        split: ``train``, ``val`` or ``test``.
        pictures: Iterable of (image id, list of (question, answer)).
        about: dict of ``info`` and ``license``, which both files carry.

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
    """There is one answer per question: all ten annotators give it."""
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
