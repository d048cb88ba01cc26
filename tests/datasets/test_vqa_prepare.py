"""Preparation of VQA: checks, counts, the packed store, and the tables kept beside it."""

import json
import subprocess
import sys

import pytest
import torch

from datasets import prepare_vqa
from datasets.prepare_vqa import main
from datasets.vqa import open_vqa
from datasets.vqa.files import ANNOTATION_FILES, QUESTION_FILES
from tests.datasets.vqa_files import (
    make_annotations,
    make_questions,
    npz_path,
    refusal,
    region_arrays,
    write_annotations,
    write_npz,
    write_questions,
    write_vqa,
)


@pytest.fixture
def made(tmp_path):
    return write_vqa(tmp_path / "vqa", images=3)


def run(made, *flags):
    main(["--data", str(made.data), "--workers", "1", "--min_answer_count", "1", *map(str, flags)])


def test_official_data_are_counted(made, capsys):
    for part, records in made.questions.items():
        path = made.data / "annotations" / QUESTION_FILES[part]
        write_questions(path, records, description="This is v2.0 of the VQA dataset.")
    run(made)
    output = capsys.readouterr().out
    assert "train 6 questions, 6 with answers (the official VQA v2 has 443,757)" in output
    assert "test 6 questions (the official VQA v2 has 447,793)" in output
    assert "note: " + str(made.data / "annotations" / "VG_questions.json") in output


def test_store_gives_what_the_tree_gives(made, capsys):
    before = open_vqa(made.data, "train+val", min_answer_count=1)
    run(made)
    output = capsys.readouterr().out
    assert "train 6 questions, 6 with answers\n" in output and "official" not in output
    counts = [len(region_arrays(number)["bbox"]) for first in (1, 101, 201) for number in range(first, first + 3)]
    told = f"9 images with {min(counts)} to {max(counts)} regions (mean {sum(counts) / 9:.1f}) of width 12"
    assert told in output
    dataset = open_vqa(made.data, "train+val")
    assert (dataset.vocabulary, dataset.answers) == (before.vocabulary, before.answers)
    batch, expected = dataset.read(range(12)), before.read(range(12))
    assert batch["regions"].dtype == torch.float16
    assert torch.equal(batch.pop("regions"), expected.pop("regions").half())
    assert all(torch.equal(batch[key], value) for key, value in expected.items())


def test_float32_keeps_every_bit(made):
    before = open_vqa(made.data, "val", min_answer_count=1).read([0, 1])
    run(made, "--float32")
    batch = open_vqa(made.data, "val").read([0, 1])
    assert torch.equal(batch["regions"], before["regions"]) and batch["regions"].dtype == torch.float32


def test_kept_tables_are_used_while_they_fit(made, caplog):
    run(made)
    words = open_vqa(made.data, "val").vocabulary.words
    path = made.data / "store" / "vocabulary.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"words": [*content["words"], "kept"]}))
    assert open_vqa(made.data, "val").vocabulary.words == (*words, "kept")
    assert open_vqa(made.data, "val", min_answer_count=2).vocabulary.words == words
    made.questions["test"][-1]["question"] += " surprise"
    write_questions(made.data / "annotations" / QUESTION_FILES["test"], made.questions["test"])
    assert open_vqa(made.data, "val", min_answer_count=1).vocabulary.words == (*words, "surprise")
    assert "vocabulary.json was made from other question files" in caplog.text
    path.write_text(json.dumps({"format": "something"}))
    refusal(lambda: open_vqa(made.data, "val"), path, "is not a vqa-vocabulary")


def test_visual_genome_is_copied(made, tmp_path, capsys):
    questions = make_questions("vg", images=3)
    write_questions(tmp_path / "vg" / QUESTION_FILES["vg"], questions)
    refusal(lambda: run(made, "--visual_genome", tmp_path / "vg"), "has no VG_annotations.json")
    write_annotations(tmp_path / "vg" / ANNOTATION_FILES["vg"], make_annotations(questions))
    run(made, "--visual_genome", tmp_path / "vg")
    assert "vg 6 questions, 6 with answers\n" in capsys.readouterr().out
    assert len(open_vqa(made.data, "train+val+vg")) == 18
    run(made, "--visual_genome", made.data / "annotations")


def test_images_without_features_are_counted(made, capsys):
    npz_path(made.tree, "val", 102).unlink()
    run(made)
    assert "note: val: 1 of 3 images have no features, first 102" in capsys.readouterr().out


def test_faulty_files(made, capsys):
    npz_path(made.tree, "train", 2).write_bytes(b"PK")
    refusal(lambda: run(made), "1 file is invalid", npz_path(made.tree, "train", 2), "--skip_invalid")
    refusal(lambda: run(made, "--verify"), "not finished")
    run(made, "--skip_invalid")
    assert "note: train: 1 of 3 images have no features, first 2" in capsys.readouterr().out
    run(made, "--verify")
    assert "8 images are intact" in capsys.readouterr().out
    refusal(lambda: open_vqa(made.data, "train"), "first image 2")
    write_npz(made.tree, "train", 2)
    run(made)
    assert len(open_vqa(made.data, "train")) == 6


def test_wrong_requests(made, tmp_path):
    for flag in ("--workers", "--min_answer_count"):
        refusal(lambda flag=flag: run(made, flag, 0), flag, "1 or more")
    refusal(lambda: run(made, "--features", tmp_path / "no"), "--features", "does not exist")
    made.tree.rename(made.data / "elsewhere")
    refusal(lambda: run(made), "bua-r101-max100 or features", "--features DIR")
    run(made, "--features", made.data / "elsewhere", "--out", tmp_path / "packed")
    assert len(open_vqa(made.data, "train", features=tmp_path / "packed")) == 6
    write_annotations(made.data / "annotations" / ANNOTATION_FILES["val"], made.annotations["train"])
    refusal(lambda: run(made, "--features", made.data / "elsewhere"), "another split")


def test_script_ends_with_one_line(tmp_path):
    command = [sys.executable, prepare_vqa.__file__, "--data", str(tmp_path)]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 2 and outcome.stderr.startswith("error: no VQA questions in")
    assert outcome.stderr.count("\n") == 1
