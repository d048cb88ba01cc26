"""easy-VQA in the official form: files, splits that share no picture, ten answers, and features of all pictures."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datasets.prepare_easy_vqa import FEATURES, SPLITS, main, select
from datasets.regions.files import image_id_of, list_region_files, read_regions
from util.cli import UserError

easy_vqa = pytest.importorskip("easy_vqa")
SMALL = 12


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The first pictures of each split, with features."""
    folder = tmp_path_factory.mktemp("easy") / "easy_vqa"
    main(["--out", str(folder), "--small", str(SMALL)])
    return folder


def questions_of(folder, split):
    return json.loads((folder / "annotations" / f"v2_OpenEnded_mscoco_{split}_questions.json").read_text())


def annotations_of(folder, split):
    return json.loads((folder / "annotations" / f"v2_mscoco_{split}_annotations.json").read_text())


def images_of(folder, split):
    return {image_id_of(path.name): path for path in (folder / "images" / split).iterdir()}


def error_of(*argv):
    with pytest.raises(UserError) as error:
        main(list(argv))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_whole_package_is_divided():
    splits = select(easy_vqa)
    assert [len(splits[split]) for split in SPLITS] == [3600, 400, 1000]
    counts = {split: sum(len(pairs) for _, _, pairs in pictures) for split, pictures in splits.items()}
    assert counts["test2015"] == 9673
    assert counts["train2014"] + counts["val2014"] == 38575
    paths = [{str(path) for _, path, _ in pictures} for pictures in splits.values()]
    assert len(set.union(*paths)) == 5000
    assert paths[2] == set(easy_vqa.get_test_image_paths().values())
    # Whatever is asked for the test is what the package has, question by question.
    texts, answers, numbers = easy_vqa.get_test_questions()
    expected = Counter(zip(numbers, texts, answers, strict=True))
    assert expected == Counter(
        (image_id - 20000, text, answer) for image_id, _, pairs in splits["test2015"] for text, answer in pairs
    )
    assert all(image_id % 10 == 9 for image_id, _, _ in splits["val2014"])
    assert not any(image_id % 10 == 9 for image_id, _, _ in splits["train2014"])


def test_every_answer_is_frequent_enough_in_train_and_val():
    splits = select(easy_vqa, 100)
    pictures = splits["train2014"] + splits["val2014"]
    counts = Counter(answer for _, _, pairs in pictures for _, answer in pairs)
    assert set(counts) == set(easy_vqa.get_answers())
    assert min(counts.values()) > 8


@pytest.mark.parametrize("split", SPLITS)
def test_question_and_annotation_files(small, split):
    asked, answered = questions_of(small, split), annotations_of(small, split)
    assert (asked["task_type"], asked["data_subtype"], answered["data_subtype"]) == ("Open-Ended", split, split)
    assert "real" in asked["info"]["description"]
    assert asked["license"]["name"] == "MIT License"
    questions, annotations = asked["questions"], answered["annotations"]
    assert [question["question_id"] for question in questions] == [row["question_id"] for row in annotations]
    assert [question["image_id"] for question in questions] == [row["image_id"] for row in annotations]
    assert {question["image_id"] for question in questions} == set(images_of(small, split))
    assert len({question["image_id"] for question in questions}) == SMALL
    package = easy_vqa.get_test_questions() if split == "test2015" else easy_vqa.get_train_questions()
    expected = set(zip(*package, strict=True))
    for question, row in zip(questions, annotations, strict=True):
        answer = row["multiple_choice_answer"]
        assert (question["question"], answer, question["image_id"] % 10000) in expected
        assert row["answer_type"] == ("yes/no" if answer in ("yes", "no") else "other")
        assert question["question"].startswith(row["question_type"] + " ")
        assert [given["answer"] for given in row["answers"]] == [answer] * 10
        assert [given["answer_id"] for given in row["answers"]] == list(range(1, 11))
    assert set(questions[0]) == {"image_id", "question_id", "question"}


def test_ids_are_unique_over_the_splits(small):
    ids = [question["question_id"] for split in SPLITS for question in questions_of(small, split)["questions"]]
    assert len(ids) == len(set(ids))
    assert sum(len(images_of(small, split)) for split in SPLITS) == 3 * SMALL


def test_pictures_are_those_of_the_package(small):
    sources = easy_vqa.get_train_image_paths(), easy_vqa.get_test_image_paths()
    for split in SPLITS:
        for image_id, path in images_of(small, split).items():
            assert path.name == f"COCO_{split}_{image_id:012d}.png"
            source = sources[image_id // 10000 - 1][image_id % 10000]
            assert path.read_bytes() == Path(source).read_bytes()


def test_features_of_all_pictures(small):
    files = list_region_files(small / FEATURES)
    assert set(files.ids.tolist()) == {image_id for split in SPLITS for image_id in images_of(small, split)}
    for path in (small / FEATURES).rglob("*.npz"):
        regions = read_regions(path)
        # The picture and its one shape.
        assert regions.features.shape == (2, 512)
        assert regions.boxes[0].tolist() == [0, 0, 64, 64]
        assert ((regions.boxes[1] >= 0) & (regions.boxes[1] <= 64)).all()


def test_objects_have_the_colour_that_is_asked_for(small):
    """The object's box holds few colours beside the background; the nearest named one is the answer."""
    named = {"black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128)}
    named |= {"green": (0, 128, 0), "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0)}
    for split in SPLITS:
        asked = {row["question_id"]: row["question"] for row in questions_of(small, split)["questions"]}
        colours = {
            row["image_id"]: row["multiple_choice_answer"]
            for row in annotations_of(small, split)["annotations"]
            if asked[row["question_id"]].startswith("what color")
        }
        assert colours
        for image_id, colour in colours.items():
            regions = read_regions(small / FEATURES / split / f"COCO_{split}_{image_id:012d}.png.npz")
            # The middle of 13 x 13 pixels lies inside every one of the shapes.
            middle = 255 * regions.features[1, :507].reshape(13, 13, 3)[6, 6]
            distances = {name: np.abs(middle - value).sum() for name, value in named.items()}
            assert min(distances, key=distances.get) == colour


def test_meta_says_what_the_data_are(small):
    meta = json.loads((small / "meta.json").read_text())
    assert (meta["dataset"], meta["synthetic"], meta["license"]) == ("easy-VQA", False, "MIT License")
    assert meta["author"] == "Victor Zhou"
    assert (meta["small"], meta["complete"]) == (SMALL, True)
    assert meta["splits"]["val2014"] == {"images": 12, "questions": len(questions_of(small, "val2014")["questions"])}


def test_same_command_again_keeps_the_files(small, capsys):
    pictures = {path: path.stat().st_mtime_ns for path in small.rglob("*.png")}
    next(iter(images_of(small, "val2014").values())).unlink()
    texts = {path: path.read_bytes() for path in small.rglob("annotations/*.json")}
    main(["--out", str(small), "--small", str(SMALL)])
    assert "35 images are done already, 1 to go" in capsys.readouterr().out
    kept = [path for path, before in pictures.items() if path.stat().st_mtime_ns == before]
    assert len(kept) == len(pictures) - 1
    assert texts == {path: path.read_bytes() for path in small.rglob("annotations/*.json")}


def test_next_commands_are_told(tmp_path, capsys):
    out = tmp_path / "easy"
    main(["--out", str(out), "--small", "1", "--no_features"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == (
        f"next: python datasets/extract_features.py --images {out}/images --out {out}/features --backbone pixels"
    )
    assert lines[-1] == f"next: python datasets/prepare_vqa.py --data {out} --features {out}/features --out {out}/store"
    assert not (out / FEATURES).exists()


def test_other_data_are_left_alone(tmp_path, small):
    assert "holds other data, or another --small" in error_of("--out", str(small), "--small", "3")
    (tmp_path / "images").mkdir()
    assert "holds data that this script did not make" in error_of("--out", str(tmp_path))
    assert "--small 0: must be 1 or more" in error_of("--out", str(tmp_path / "a"), "--small", "0")
    assert "--workers 0: must be 1 or more" in error_of("--out", str(tmp_path / "a"), "--workers", "0")
    assert not (tmp_path / "a").exists()


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    assert error_of("--out", str(tmp_path / "a")).endswith("pip install easy-vqa")
