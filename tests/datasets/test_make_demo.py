"""Demo data: the official form, the promised content, from a seed, and one line for what cannot be made."""

import json
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets import make_demo
from datasets.demo import mmimdb_rows
from datasets.mmimdb import SPLITS, open_mmimdb
from tests.datasets.mmimdb_files import one_line
from util.cli import UserError

SCRIPT = Path(make_demo.__file__)


def run_demo(out, *options, source="synthetic"):
    """Run ``make_demo.py mmimdb`` in this process."""
    args = make_demo.get_args_parser().parse_args(["mmimdb", "--source", source, "--out", str(out), *options])
    args.make(args)


def fields_of(path):
    with h5py.File(path) as file:
        return {name: file[name][...] for name in ("images", "features", "genres", "imdb_ids")}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """1,000 small synthetic films."""
    out = tmp_path_factory.mktemp("demo") / "made"
    run_demo(out, "--size", "1000", "--image_size", "32", "32")
    return out


# Synthetic


def test_synthetic_form(synthetic):
    fields = fields_of(synthetic / "multimodal_imdb.hdf5")
    assert fields["images"].shape == (1000, 3, 32, 32)
    assert fields["images"].dtype == np.uint8
    assert fields["features"].shape == (1000, 300)
    assert fields["genres"].shape == (1000, 23)
    assert fields["imdb_ids"][[0, 600, 999]].tolist() == [b"train-000000", b"dev-000000", b"test-000199"]
    counts = {split: len(open_mmimdb(synthetic / "dataset", split)) for split in SPLITS}
    assert counts == {"train": 600, "dev": 200, "test": 200}


def test_synthetic_is_called_synthetic(synthetic):
    meta = json.loads((synthetic / "dataset" / "meta.json").read_text())
    assert meta["synthetic"] is True
    assert "synthetic" in meta["description"]
    assert "split attribute" in meta["split_from"]
    assert len(meta["label_names"]) == 23
    assert all(name.startswith("synthetic ") for name in meta["label_names"])


def nearest_colour(images, row, column):
    """Which pair colour the pixel in the middle of a quarter of the poster is closest to."""
    pixels = images[:, :, row * 16 + 8, column * 16 + 8].astype(int)
    return np.abs(pixels[:, None] - mmimdb_rows.PAIR_COLOURS).sum(2).argmin(1)


def test_pair_genres_need_both_inputs(synthetic):
    fields = fields_of(synthetic / "multimodal_imdb.hdf5")
    for pair, corner in enumerate([(0, 0), (1, 1)]):
        labels = fields["genres"][:, 15 + 4 * pair : 19 + 4 * pair]
        assert (labels.sum(1) == 1).all()
        in_poster = nearest_colour(fields["images"], *corner)
        in_text = (labels.argmax(1) - in_poster) % 4
        # The poster alone says nothing: every genre is as likely under every colour (0.25 +- 4 sigma).
        for value in range(4):
            assert np.abs(labels[in_poster == value].mean(0) - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 200)
            assert np.abs(labels[in_text == value].mean(0) - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 200)
        # The second variable really is in the text: films with the same value have similar texts.
        centres = np.stack([fields["features"][:500][in_text[:500] == value].mean(0) for value in range(4)])
        found = ((fields["features"][500:, None] - centres) ** 2).sum(2).argmin(1)
        assert (found == in_text[500:]).mean() > 0.9


def test_single_genres_show_in_their_input_only(synthetic):
    fields = fields_of(synthetic / "multimodal_imdb.hdf5")
    chances = fields["genres"][:, :15].mean(0)
    assert chances.min() > 0.19
    assert chances.max() < 0.41
    contrast = fields["images"].reshape(1000, 3, 4, 8, 4, 8).astype(float).std((1, 3, 5))
    text_genres = fields["genres"][:, 8:15]
    fit = np.linalg.lstsq(fields["features"][:600], text_genres[:600] - 0.3, rcond=None)[0]
    assert (((fields["features"][600:] @ fit) > 0.2) == text_genres[600:]).mean() > 0.95
    for genre, (row, column) in enumerate(mmimdb_rows.GENRE_CELLS):
        positive = fields["genres"][:, genre] == 1
        assert contrast[positive, row, column].min() > contrast[~positive, row, column].max()
        assert abs(np.corrcoef(positive, fields["features"] @ fit[:, 0])[0, 1]) < 0.15


def test_synthetic_follows_the_seed(tmp_path):
    small = ("--train", "5", "--dev", "2", "--test", "2", "--image_size", "40", "32", "--hdf5_only")
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        run_demo(tmp_path / name, *small, "--seed", seed)
    first, same, other = (fields_of(tmp_path / name / "multimodal_imdb.hdf5") for name in "abc")
    for field, values in first.items():
        assert np.array_equal(values, same[field])
    assert first["images"].shape == (9, 3, 40, 32)
    assert not np.array_equal(first["images"], other["images"])
    assert not np.array_equal(first["features"], other["features"])


# Easy-vqa


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """60 rows of real pictures and questions, three to a picture."""
    pytest.importorskip("easy_vqa")
    out = tmp_path_factory.mktemp("demo") / "easy"
    run_demo(out, "--train", "30", "--dev", "15", "--test", "15", source="easy-vqa")
    return out


def test_easy_vqa_form(easy):
    fields = fields_of(easy / "multimodal_imdb.hdf5")
    assert fields["images"].shape == (60, 3, 64, 64)
    assert fields["genres"].shape == (60, 13)
    assert (fields["genres"].sum(1) == 1).all()
    meta = json.loads((easy / "dataset" / "meta.json").read_text())
    assert meta["synthetic"] is False
    assert {"yes", "no", "circle"} <= set(meta["label_names"])
    # Each picture is stored once although three questions are about it.
    assert {split: meta["splits"][split]["films"] for split in SPLITS} == {"train": 30, "dev": 15, "test": 15}
    assert {split: meta["splits"][split]["images"] for split in SPLITS} == {"train": 10, "dev": 5, "test": 5}


def test_easy_vqa_rows_are_the_questions_of_the_package(easy):
    package = pytest.importorskip("easy_vqa")
    from PIL import Image

    demo = mmimdb_rows.EasyVQADemo({"train": 30, "dev": 15, "test": 15}, 0, None, 3)
    fields = fields_of(easy / "multimodal_imdb.hdf5")
    paths, (questions, answers, images) = package.get_train_image_paths(), package.get_train_questions()
    known = {(paths[image], text, answer) for text, answer, image in zip(questions, answers, images, strict=True)}
    assert set(demo.rows["train"] + demo.rows["dev"]) <= known
    path, question, answer = demo.rows["dev"][4]
    assert np.array_equal(fields["images"][34], np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1))
    assert np.array_equal(fields["features"][34], mmimdb_rows.question_vector(question))
    assert demo.label_names[fields["genres"][34].argmax()] == answer


def test_easy_vqa_splits_share_no_picture():
    pytest.importorskip("easy_vqa")
    demo = mmimdb_rows.EasyVQADemo({"train": 6000, "dev": 1500, "test": 1500}, 0, None, 3)
    pictures = {split: {path for path, _, _ in rows} for split, rows in demo.rows.items()}
    assert {split: len(rows) for split, rows in demo.rows.items()} == {"train": 6000, "dev": 1500, "test": 1500}
    assert len(set.union(*pictures.values())) == sum(map(len, pictures.values()))
    assert 2000 <= len(pictures["train"]) <= 2100


def test_easy_vqa_follows_seed_and_options(tmp_path):
    pytest.importorskip("easy_vqa")
    counts = {"train": 12, "dev": 4, "test": 4}
    one, same, other = (mmimdb_rows.EasyVQADemo(counts, seed, None, 1) for seed in (0, 0, 1))
    assert one.rows == same.rows
    assert one.rows != other.rows
    assert len({path for path, _, _ in one.rows["train"]}) == 12
    run_demo(tmp_path, "--size", "10", "--image_size", "40", "48", "--hdf5_only", source="easy-vqa")
    assert fields_of(tmp_path / "multimodal_imdb.hdf5")["images"].shape == (10, 3, 40, 48)


def test_question_vectors_are_fixed():
    seed = zlib.crc32(b"red")
    assert seed == 4200685455
    red, shape = mmimdb_rows.word_vector("red"), mmimdb_rows.word_vector("shape")
    assert np.array_equal(red, np.random.default_rng(seed).standard_normal(300).astype(np.float32))
    assert np.allclose(mmimdb_rows.question_vector("Red, shape?"), (red + shape) / np.sqrt(2))
    assert mmimdb_rows.question_vector("red").dtype == np.float32


def test_too_few_questions():
    pytest.importorskip("easy_vqa")
    with pytest.raises(UserError) as error:
        mmimdb_rows.EasyVQADemo({"train": 10, "dev": 10, "test": 1001}, 0, None, 1)
    one_line(error, "only 1,000 questions left for test", "lower --test, or raise --questions_per_image")


def test_easy_vqa_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(UserError) as error:
        run_demo(tmp_path / "out", source="easy-vqa")
    one_line(error, "pip install easy-vqa")
    assert not (tmp_path / "out").exists()


# The script


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "2"], ["dev split would have 0 films"]),
        (["--test", "0"], ["test split would have 0 films", "--test"]),
        (["--image_size", "31", "64"], ["--image_size 31 64", "32 or more"]),
        (["--seed", "-1"], ["--seed -1"]),
        (["--questions_per_image", "2"], ["--questions_per_image belongs to --source easy-vqa"]),
    ],
)
def test_options_that_cannot_be(tmp_path, options, words):
    with pytest.raises(UserError) as error:
        run_demo(tmp_path / "out", *options)
    one_line(error, *words)
    assert not (tmp_path / "out").exists()


def test_questions_per_image_of_zero(tmp_path):
    with pytest.raises(UserError) as error:
        run_demo(tmp_path / "out", "--questions_per_image", "0", source="easy-vqa")
    one_line(error, "--questions_per_image 0: must be 1 or more")


def test_out_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as error:
        run_demo(tmp_path / "file", "--size", "5", "--image_size", "32", "32")
    one_line(error, "cannot write", "multimodal_imdb.hdf5")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_dies_leaves_no_file(tmp_path, monkeypatch):
    def dies(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(mmimdb_rows.SyntheticDemo, "_posters", dies)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", "--size", "5")
    assert list((tmp_path / "out").iterdir()) == []


NEXT = "next: python main_darts_searchable_mmimdb.py --datadir made/dataset --num_outputs 23 --backbone_weights random"


def test_a_file_that_is_no_demo_is_not_replaced(tmp_path):
    """The official file may lie where the demo would be written."""
    official = tmp_path / "multimodal_imdb.hdf5"
    with h5py.File(official, "w") as file:
        file["features"] = [1.0]
    before = official.read_bytes()
    with pytest.raises(UserError, match="is not a demo file"):
        make_demo.main(["mmimdb", "--source", "synthetic", "--out", str(tmp_path), "--size", "10"])
    assert official.read_bytes() == before


def test_a_size_that_cannot_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="do not fit on the disk"):
        make_demo.main(["mmimdb", "--source", "synthetic", "--out", str(tmp_path / "x"), "--size", "1000000000000"])
    assert not (tmp_path / "x").exists()


def test_script_prints_what_comes_next(tmp_path):
    options = ["--train", "3", "--dev", "2", "--test", "2", "--image_size", "32", "32"]
    command = [sys.executable, SCRIPT, "mmimdb", "--source", "synthetic", "--out", "made", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("wrote made/multimodal_imdb.hdf5: synthetic ")
    assert "train 3 films" in lines
    assert lines[-1] == NEXT
    assert len(open_mmimdb(tmp_path / "made" / "dataset", "train")) == 3


def test_help_does_not_wait_for_heavy_modules():
    code = "import datasets.make_demo as m, sys; m.get_args_parser(); print({'numpy', 'h5py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent.parent, capture_output=True, text=True)
    assert done.stdout == "set()\n"
