"""VQA: one clear line for every fault of the files, and what is left out with a word in the log."""

import json
import shutil

import pytest

from datasets.vqa import open_vqa
from datasets.vqa.files import ANNOTATION_FILES, QUESTION_FILES
from tests.datasets.vqa_files import npz_path, refusal, write_annotations, write_vqa


@pytest.fixture
def made(tmp_path):
    """Data of train and val to be damaged."""
    return write_vqa(tmp_path, ("train", "val"), images=3)


def ids_of(records):
    return [record["question_id"] for record in records]


def open_small(data, split, **options):
    return open_vqa(data, split, **{"min_answer_count": 1, **options})


@pytest.mark.parametrize("part", [("middle", 0.5), ("first", 0), ("last", 1.0), ("first", 0.01)])
def test_impossible_parts(made, part):
    refusal(lambda: open_small(made.data, "train", part=part), part[0])


def test_images_without_features(made, caplog):
    npz_path(made.tree, "train", 2).unlink()
    refusal(lambda: open_small(made.data, "train"), "1 images", "2 of 6 samples", "first image 2", "--skip_missing")
    dataset = open_small(made.data, "train", skip_missing=True)
    assert 2 not in dataset.image_ids and len(dataset) == 4 and "are left out" in caplog.text
    assert ids_of(dataset.ground_truth()) == dataset.question_ids.tolist()
    shutil.rmtree(made.tree / "val2014")
    refusal(lambda: open_small(made.data, "val", skip_missing=True), "3 images", "6 of 6")


def test_wrong_requests(made):
    refusal(lambda: open_small(made.data, "dev"), "split 'dev'", "train+val+vg")
    refusal(lambda: open_small(made.data, "train", padding="none"), "padding 'none'")
    refusal(lambda: open_small(made.data, "train", feature_size=2048), "width 12", "2048")
    refusal(lambda: open_small(made.data / "no", "train"), "no VQA questions", "annotations", "prepare_vqa.py")
    refusal(lambda: open_small(made.data, "test"), QUESTION_FILES["test"], "is missing", "bua-r101-max100")
    refusal(lambda: open_small(made.data, "train+val+vg"), "VG_questions.json is missing")
    refusal(lambda: open_vqa(made.data, "train"), "no answer occurs 9 times", "--min_answer_count")
    shutil.rmtree(made.tree)
    refusal(lambda: open_small(made.data, "train"), "no region features", "--features", "extract_features.py")


def test_files_that_do_not_fit_together(made):
    folder = made.data / "annotations"
    write_annotations(folder / ANNOTATION_FILES["train"], made.annotations["val"])
    refusal(lambda: open_small(made.data, "train"), "none of the questions", "another split")
    write_annotations(folder / ANNOTATION_FILES["train"], made.annotations["train"] + made.annotations["val"][:2])
    refusal(
        lambda: open_small(made.data, "train"), "answers 2 questions that", made.annotations["val"][0]["question_id"]
    )
    write_annotations(folder / ANNOTATION_FILES["val"], made.annotations["val"][1:])
    refusal(lambda: open_small(made.data, "val"), "lacks 1 questions", made.annotations["val"][0]["question_id"])


def test_training_takes_the_annotated_questions(made, caplog):
    write_annotations(made.data / "annotations" / ANNOTATION_FILES["train"], made.annotations["train"][2:])
    dataset = open_small(made.data, "train")
    assert dataset.question_ids.tolist() == ids_of(made.annotations["train"][2:])
    assert "2 questions of" in caplog.text


def broken(made):
    """Name -> (file, content, words of the error)."""
    questions, annotations = QUESTION_FILES["train"], ANNOTATION_FILES["train"]
    record, answer = made.questions["train"][0], made.annotations["train"][0]
    return {
        "no JSON": (questions, "{", "not a readable JSON"),
        "a list": (questions, [], "not an official VQA file"),
        "no questions": (questions, {"questions": []}, "contains no questions"),
        "text id": (questions, {"questions": [record | {"question_id": "1"}]}, "has no question_id (int)"),
        "boolean id": (questions, {"questions": [record | {"image_id": True}]}, "has no image_id (int)"),
        "no text": (questions, {"questions": [{"question_id": 1, "image_id": 2}]}, "has no question (str)"),
        "not a dict": (questions, {"questions": [1]}, "entry 0 of questions"),
        "twice": (questions, {"questions": [record, record]}, "more than once"),
        "huge": (questions, {"questions": [record | {"question_id": 2**70}]}, "beyond 64 bits"),
        "other file": (annotations, {"questions": [record]}, '"annotations": [...]'),
        "no answers": (annotations, {"annotations": [answer | {"answers": []}]}, "has answers []"),
        "bare answers": (annotations, {"annotations": [answer | {"answers": ["red"]}]}, "expected a list of"),
        "no choice": (annotations, {"annotations": [answer | {"multiple_choice_answer": 2}]}, "multiple_choice_answer"),
    }


@pytest.mark.parametrize("name", [
    "no JSON", "a list", "no questions", "text id", "boolean id", "no text", "not a dict", "twice", "huge",
    "other file", "no answers", "bare answers", "no choice",
])  # fmt: skip
def test_files_of_another_form(made, name):
    file, content, words = broken(made)[name]
    text = content if isinstance(content, str) else json.dumps(content)
    (made.data / "annotations" / file).write_text(text)
    refusal(lambda: open_small(made.data, "train"), file, words)


def test_a_damaged_feature_file_is_named(made):
    path = npz_path(made.tree, "train", 2)
    path.write_bytes(path.read_bytes()[:300])
    dataset = open_small(made.data, "train")
    refusal(lambda: dataset.read(range(len(dataset))), path, "damaged or cut short", "--skip_invalid")
