"""Preparation of MM-IMDB: lossless compact arrays, and a store that is either whole or absent."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.mmimdb import SPLITS, official, open_mmimdb
from datasets.mmimdb import store as mmimdb_store
from datasets.prepare_mmimdb import prepare
from tests.datasets.mmimdb_files import (
    NAMES,
    assert_refused,
    film_arrays,
    one_line,
    split_lists,
    write_hdf5,
    write_official,
)
from util.cli import UserError
from util.locks import locked

SCRIPT = Path(official.__file__).parents[1] / "prepare_mmimdb.py"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("dtype", "change", "stored"),
    [
        ("uint8", None, "uint8"),
        ("int32", None, "uint8"),
        ("float32", None, "uint8"),
        ("int32", -104, "int16"),
        ("float64", 256, "int16"),
        ("int64", 40000, "float32"),
        ("float32", 0.5, "float32"),
    ],
)
def test_images_keep_their_values_in_the_smallest_dtype(tmp_path, monkeypatch, dtype, change, stored):
    # Small reads, so that the odd value comes after other images were written.
    monkeypatch.setattr(official, "CHUNK_BYTES", 1)
    arrays = film_arrays(image_dtype=dtype)
    if change is not None:
        arrays["images"][4, 1, 2, 3] = change
    hdf5, _ = write_official(tmp_path, arrays)
    prepare(hdf5, tmp_path / "out")
    images = np.concatenate([open_mmimdb(tmp_path / "out", split).__getitems__([0, 1, 2])["image"] for split in SPLITS])
    assert images.dtype == stored
    assert np.array_equal(images, arrays["images"][[0, 1, 2, 6, 7, 8, 9, 10, 11]])
    train = open_mmimdb(tmp_path / "out", "train").__getitems__([4])["image"].numpy()
    assert np.array_equal(train[0], arrays["images"][4])
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["image_dtype"] == stored


def test_duplicates_within_a_split_are_stored_once(tmp_path):
    arrays = film_arrays(image_dtype="int32")
    arrays["images"][[1, 3, 5, 8]] = arrays["images"][0]
    hdf5, _ = write_official(tmp_path, arrays)
    prepare(hdf5, tmp_path / "out")
    splits = json.loads((tmp_path / "out" / "meta.json").read_text())["splits"]
    assert {split: (each["films"], each["images"]) for split, each in splits.items()} == {
        "train": (6, 3),
        "dev": (3, 3),
        "test": (3, 3),
    }
    batch = open_mmimdb(tmp_path / "out", "train").__getitems__(range(6))
    assert np.array_equal(batch["image"].numpy(), arrays["images"][:6])


def test_out_that_cannot_be_written(tmp_path):
    hdf5, _ = write_official(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert_refused(hdf5, tmp_path / "file", "is a file")
    with pytest.raises(UserError) as error:
        prepare(hdf5, tmp_path / "file" / "out")
    one_line(error, "cannot write", "choose another --out")
    assert (tmp_path / "file").read_text() == "mine"


def test_same_request_does_nothing_and_overwrite_redoes(tmp_path, capsys):
    hdf5, arrays = write_official(tmp_path)
    out = tmp_path / "out"
    first = prepare(hdf5, out)
    before = (out / "meta.json").stat().st_ino
    assert prepare(hdf5, out) == first
    assert "already up to date (--overwrite writes it again)" in capsys.readouterr().out
    assert (out / "meta.json").stat().st_ino == before
    prepare(hdf5, out, overwrite=True)
    assert (out / "meta.json").stat().st_ino != before
    # A damaged store, another split or a changed file is a reason to write.
    (out / "dev_texts.npy").write_bytes(b"")
    prepare(hdf5, out)
    assert len(open_mmimdb(out, "dev")) == 3
    (tmp_path / "split.json").write_text(json.dumps(split_lists(arrays["imdb_ids"], {"train": 2, "dev": 2})))
    assert prepare(hdf5, out)["train"] == 2
    os.utime(hdf5, ns=(1, 1))
    capsys.readouterr()
    prepare(hdf5, out)
    assert "already" not in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["add_images", "finish"])
@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_run_that_dies_leaves_the_old_store(tmp_path, monkeypatch, stage, error):
    hdf5, arrays = write_official(tmp_path)
    out = tmp_path / "out"
    prepare(hdf5, out)
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    arrays["genres"][:] = 1
    write_hdf5(hdf5, arrays)
    genuine = getattr(mmimdb_store.StoreWriter, stage)

    def dies(self, *args):
        genuine(self, *args)
        (self.folder / "meta.json").unlink(missing_ok=True)
        raise error

    monkeypatch.setattr(mmimdb_store.StoreWriter, stage, dies)
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)) as raised:
        prepare(hdf5, out)
    if isinstance(error, OSError):
        one_line(raised, "cannot write", "No space left on device")
    assert contents(out) == before
    assert not list(tmp_path.glob(".out*"))
    monkeypatch.undo()
    prepare(hdf5, out)
    assert open_mmimdb(out, "dev")[0]["label"].tolist() == [1, 1, 1, 1]
    assert (out / "notes.txt").read_text() == "mine"


def test_leftovers_of_a_killed_run(tmp_path, capsys):
    hdf5, _ = write_official(tmp_path)
    out, staging = tmp_path / "out", tmp_path / ".out.preparing"
    staging.mkdir()
    (staging / "train_images.npy").write_bytes(b"half")
    prepare(hdf5, out)
    assert len(open_mmimdb(out, "train")) == 6
    assert not staging.exists()
    # Killed while the complete store was moved: the next start finishes the move.
    staging.mkdir()
    for name in ("meta.json", "dev_ids.npy", "train_images.npy"):
        (out / name).rename(staging / name)
    capsys.readouterr()
    prepare(hdf5, out)
    assert "already up to date" in capsys.readouterr().out
    assert not staging.exists()


@pytest.mark.parametrize("moved", [0, 1, 9, 15])
def test_a_move_that_fails_is_finished_by_the_next_start(tmp_path, monkeypatch, moved):
    hdf5, arrays = write_official(tmp_path)
    out = tmp_path / "out"
    prepare(hdf5, out)
    arrays["genres"][:] = 1
    write_hdf5(hdf5, arrays)
    moves = []

    def replace(source, target):
        if Path(target).parent == out:
            if len(moves) == moved:
                raise OSError(5, "Input/output error")
            moves.append(target)
        os.rename(source, target)

    monkeypatch.setattr(mmimdb_store, "os", SimpleNamespace(replace=replace, access=os.access, W_OK=os.W_OK))
    with pytest.raises(UserError) as error:
        prepare(hdf5, out)
    one_line(error, "cannot write", "Input/output error")
    # Old and new arrays are mixed now, so nothing may take them for a store.
    with pytest.raises(UserError) as error:
        open_mmimdb(out, "dev")
    one_line(error, "no MM-IMDB data")
    monkeypatch.undo()
    monkeypatch.delattr(mmimdb_store.StoreWriter, "finish")
    prepare(hdf5, out)
    assert open_mmimdb(out, "dev")[0]["label"].tolist() == [1, 1, 1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["multimodal_imdb.hdf5", "out", "split.json"]


def test_an_existing_folder_is_filled_from_inside(tmp_path):
    """Its parent may be another file system, or a folder that only an administrator can write."""
    hdf5, _ = write_official(tmp_path)
    out = tmp_path / "parent" / "out"
    out.mkdir(parents=True)
    with mmimdb_store.staging_folder(out) as staging:
        assert staging.parent == out
        assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert not list(out.iterdir())
    prepare(hdf5, out)
    assert len(open_mmimdb(out, "train")) == 6


def test_two_runs_at_once(tmp_path):
    hdf5, _ = write_official(tmp_path)
    staging = tmp_path / ".out.preparing"
    staging.mkdir()
    (staging / "train_images.npy").write_bytes(b"of the other run")
    with locked(staging / ".lock", busy="not this one"):
        assert_refused(hdf5, tmp_path / "out", "another run is preparing")
    assert (staging / "train_images.npy").read_bytes() == b"of the other run"


def test_meta_tells_where_the_store_comes_from(tmp_path):
    hdf5, _ = write_official(tmp_path, attrs={"description": "a demo", "synthetic": True})
    prepare(hdf5, tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["format"], meta["version"]) == ("mmimdb-store", 1)
    assert (meta["description"], meta["synthetic"]) == ("a demo", True)
    assert meta["request"]["hdf5"] == "multimodal_imdb.hdf5"
    assert meta["request"]["bytes"] == hdf5.stat().st_size
    assert meta["image_shape"] == [3, 32, 32]
    assert (meta["num_labels"], meta["label_names"]) == (4, NAMES)


def run_script(folder, *args):
    return subprocess.run([sys.executable, SCRIPT, *args], cwd=folder, capture_output=True, text=True)


def test_script_from_any_folder(tmp_path):
    write_official(tmp_path)
    done = run_script(tmp_path, "--hdf5", "multimodal_imdb.hdf5", "--out", "a/dataset")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("wrote a/dataset\ntrain 6 films\ndev 3 films\ntest 3 films\n")
    failed = run_script(tmp_path, "--hdf5", "absent.hdf5", "--out", "b")
    assert failed.returncode == 2
    assert re.fullmatch(r"error: absent\.hdf5 does not exist; .*\n", failed.stderr)
    assert not (tmp_path / "b").exists()


def test_help_does_not_wait_for_heavy_modules():
    code = "import datasets.prepare_mmimdb, sys; print({'numpy', 'h5py', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent.parent, capture_output=True, text=True)
    assert done.stdout == "set()\n"
