"""Synthetic VQA data in the official form, small enough for a test."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.vqa.files import ANNOTATION_FILES, QUESTION_FILES
from util.cli import UserError

FOLDERS = {"train": "train2014", "val": "val2014", "test": "test2015"}
FIRST_ID = {"train": 1, "val": 101, "test": 201, "vg": 1}
COLOURS = ("red", "blue", "green", "two", "Yes.", "no")
FEATURE_SIZE = 12


def ten(*answers):
    """Ten annotators' answers: ``answers``, the last one repeated."""
    texts = [*answers, *[answers[-1]] * (10 - len(answers))]
    return [
        {"answer": text, "answer_confidence": "yes", "answer_id": number} for number, text in enumerate(texts, start=1)
    ]


def make_questions(part, images=6, each=2):
    """Question records of ``images`` images, ``each`` of them about one."""
    first = FIRST_ID[part]
    start = 10**6 if part == "vg" else 0
    return [
        {
            "image_id": image,
            "question": f"What color is the {part}-{COLOURS[number]} thing's #{image}?",
            "question_id": start + image * 1000 + number,
        }
        for image in range(first, first + images)
        for number in range(each)
    ]


def make_annotations(questions):
    """An annotation record per question, in the opposite order."""
    return [
        {
            "question_id": one["question_id"],
            "image_id": one["image_id"],
            "question_type": "what color",
            "answer_type": ("other", "number", "yes/no")[one["image_id"] % 3],
            "multiple_choice_answer": COLOURS[one["image_id"] % 6],
            "answers": ten("red", "2", COLOURS[one["image_id"] % 6]),
        }
        for one in reversed(questions)
    ]


def write_questions(path, records, **info):
    """Write an official question file."""
    head = {"info": {"description": "synthetic questions", "synthetic": True, **info}, "task_type": "Open-Ended"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | {"questions": records, "data_subtype": "any", "license": {}}))


def write_annotations(path, records):
    """Write an official annotation file."""
    path.write_text(json.dumps({"info": {}, "license": {}, "annotations": records}))


def region_arrays(image_id, count=None, size=FEATURE_SIZE):
    """The arrays of one ``.npz`` file; 10 to 100 boxes where ``count`` is None."""
    draw = np.random.default_rng(image_id)
    count = int(draw.integers(10, 101)) if count is None else count
    corners = draw.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(1, 200, (count, 2))], axis=1).astype(np.float32)
    features = draw.standard_normal((size, count)).astype(np.float32)
    return {"x": features, "bbox": boxes, "image_h": np.int64(400), "image_w": np.int64(500 + image_id)}


def npz_path(tree, part, image_id):
    """Path of the features of an image."""
    folder = FOLDERS[part]
    return tree / folder / f"COCO_{folder}_{image_id:012d}.jpg.npz"


def write_npz(tree, part, image_id, **arrays):
    """Write the features of an image, with some arrays of `region_arrays` replaced."""
    path = npz_path(tree, part, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(region_arrays(image_id) | arrays))
    return path


def write_vqa(folder, parts=("train", "val", "test"), images=6):
    """Write a data folder with the ``.npz`` tree; returns ``.data``, ``.tree`` and the records of each part."""
    tree = folder / "bua-r101-max100"
    questions = {part: make_questions(part, images) for part in parts}
    annotations = {part: make_annotations(records) for part, records in questions.items() if part != "test"}
    for part, records in questions.items():
        write_questions(folder / "annotations" / QUESTION_FILES[part], records)
    for part, records in annotations.items():
        write_annotations(folder / "annotations" / ANNOTATION_FILES[part], records)
    for part in FOLDERS.keys() & set(parts):
        for image_id in range(FIRST_ID[part], FIRST_ID[part] + images):
            write_npz(tree, part, image_id)
    return SimpleNamespace(data=folder, tree=tree, questions=questions, annotations=annotations)


def refusal(action, *words):
    """Check that ``action`` raises a user error of one line that says ``words``; returns the text."""
    with pytest.raises(UserError) as error:
        action()
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert str(word) in text, text
    return text
