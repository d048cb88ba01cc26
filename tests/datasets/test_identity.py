"""Data that moved are the same data: identities of all six tasks depend on content alone, not on places or times."""

import json
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from datasets.ego import open_ego
from datasets.itm import open_itm
from datasets.mmimdb import open_mmimdb
from datasets.ntu import open_ntu
from datasets.prepare_ego import prepare as prepare_ego
from datasets.prepare_itm import main as prepare_itm
from datasets.prepare_mmimdb import prepare as prepare_mmimdb
from datasets.prepare_ntu import prepare_store
from datasets.prepare_vgd import main as prepare_vgd
from datasets.vgd import open_vgd
from datasets.vqa import open_vqa
from tests.datasets import ego_files, itm_files, mmimdb_files, ntu_files, vgd_files, vqa_files
from util.hashes import PROBES, files_hash, short_hash

NTU_LENGTHS = {"S001C001P001R001A001": 9, "S001C001P002R001A002": 12}


def make_films(folder, seed=0):
    hdf5, _ = mmimdb_files.write_official(folder, mmimdb_files.film_arrays(seed=seed))
    prepare_mmimdb(hdf5, folder / "data")


def make_film_tree(folder, seed=0):
    mmimdb_files.write_tree(folder / "data", mmimdb_files.film_arrays(seed=seed))


def make_ntu(folder, seed=0):
    videos, skeletons = ntu_files.write_raw(folder, NTU_LENGTHS, persons=1 + seed)
    prepare_store(videos, skeletons, folder / "data", size=32, workers=1)


def make_ntu_tree(folder, seed=0):
    videos, skeletons = ntu_files.write_raw(folder, NTU_LENGTHS, persons=1 + seed)
    shutil.copytree(videos, folder / "data" / "nturgb+d_rgb_256x256_30")
    shutil.copytree(skeletons, folder / "data" / "nturgb+d_skeletons")


def make_ego(folder, seed=0):
    ego_files.write_tree(folder / "raw", size=(26, 20 + seed))
    prepare_ego(folder / "raw", folder / "data", workers=1)


def make_ego_tree(folder, seed=0):
    ego_files.write_tree(folder / "data", size=(26, 20 + seed))


def make_vqa(folder, seed=0):
    vqa_files.write_vqa(folder / "data", images=3 + seed)


def make_vgd(folder, seed=0):
    made = vgd_files.make_vgd(folder)
    made.instances["annotations"][0]["bbox"][0] += seed
    vgd_files.write_refer(made.refer, "refcoco", made.refs, made.instances)
    flags = ["--dataset", "refcoco", "--refer", made.refer, "--out", folder / "data", "--features", made.tree]
    prepare_vgd([str(flag) for flag in [*flags, "--workers", "1"]])


def make_itm(folder, seed=0):
    made = itm_files.write_flickr(folder)
    itm_files.write_features(made.features, map(itm_files.photo_of, itm_files.imgids()), counts=2 + seed)
    prepare_itm([*made.flags[:-4], "--out", str(folder / "data"), "--workers", "1"])


class Kind(NamedTuple):
    """A form of a task's data: what makes it (folder, seed), and two ways to open it (folder), of other options."""

    make: Callable
    open: Callable
    otherwise: Callable


KINDS = {
    "mmimdb store": Kind(make_films, lambda data: open_mmimdb(data, "train"), None),
    "mmimdb tree": Kind(make_film_tree, lambda data: open_mmimdb(data, "train"), None),
    "ntu store": Kind(
        make_ntu,
        lambda data: open_ntu(data, "train", augment=True, seed=2),
        lambda data: open_ntu(data, "train", augment=False),
    ),
    "ntu tree": Kind(
        make_ntu_tree,
        lambda data: open_ntu(data, "train", augment=True, seed=2),
        lambda data: open_ntu(data, "train", augment=True, seed=3),
    ),
    "ego store": Kind(
        make_ego, lambda data: open_ego(data, "train"), lambda data: open_ego(data, "train", sample_size=12)
    ),
    "ego tree": Kind(
        make_ego_tree, lambda data: open_ego(data, "train"), lambda data: open_ego(data, "train", sample_size=12)
    ),
    "vqa": Kind(
        make_vqa,
        lambda data: open_vqa(data, "train", min_answer_count=1),
        lambda data: open_vqa(data, "train", min_answer_count=1, padding="full"),
    ),
    "vgd": Kind(
        make_vgd,
        lambda data: open_vgd(data, "refcoco", "train"),
        lambda data: open_vgd(data, "refcoco", "train", padding="full"),
    ),
    "itm": Kind(
        make_itm, lambda data: open_itm(data, "flickr", "train"), lambda data: open_itm(data, "flickr", "train", seed=9)
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_elsewhere_is_the_same_and_other_data_are_not(name, tmp_path):
    kind = KINDS[name]
    kind.make(tmp_path / "here")
    whole = kind.open(tmp_path / "here" / "data").identity
    moved = shutil.copytree(tmp_path / "here" / "data", tmp_path / "there" / "moved", copy_function=shutil.copyfile)
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    assert kind.open(moved).identity == whole
    if kind.otherwise:
        assert kind.otherwise(moved).identity == whole, "flags are compared by themselves"
    kind.make(tmp_path / "other", seed=1)
    assert kind.open(tmp_path / "other" / "data").identity != whole


def test_parts_of_a_split_differ(tmp_path):
    make_vqa(tmp_path)
    parts = [open_vqa(tmp_path / "data", "train", part=(end, 0.5), min_answer_count=1) for end in ("first", "last")]
    assert parts[0].identity != parts[1].identity


class TestHashes:
    def test_of_files(self, tmp_path):
        files = [(f"{number:03d}", tmp_path / f"{number:03d}") for number in range(5)]
        for number, (_, path) in enumerate(files):
            path.write_bytes(bytes([number]) * 9)
        first = files_hash(files)
        assert files_hash(files[::-1]) == first and files_hash([]) != first
        assert files_hash([(f"x{name}", path) for name, path in files]) != first
        files[3][1].write_bytes(b"other" * 2)
        assert files_hash(files) != first

    def test_of_many_files_few_are_read(self, tmp_path, monkeypatch):
        files = [(f"{number:04d}", tmp_path / f"{number:04d}") for number in range(4 * PROBES)]
        for _, path in files:
            path.write_bytes(b"same size")
        read, original = [], open

        def noted(path, *args):
            read.append(path)
            return original(path, *args)

        monkeypatch.setattr("builtins.open", noted)
        files_hash(files)
        monkeypatch.undo()
        assert len(read) == PROBES and {files[0][1], files[-1][1]} <= set(read)

    def test_of_facts(self):
        one = np.arange(6).reshape(2, 3)
        assert short_hash(one, "a") == short_hash(np.array(one, order="F"), "a")
        different = [(one, "b"), (one.reshape(3, 2), "a"), (one.astype(np.int32), "a"), ("a", one), (one,)]
        assert len({short_hash(*facts) for facts in [(one, "a"), *different]}) == 6
        assert short_hash({"a": 1, "b": 2}) == short_hash(json.loads('{"b": 2, "a": 1}'))
