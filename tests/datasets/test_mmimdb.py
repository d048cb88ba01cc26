"""The MM-IMDB reader: both forms on disk give the same batches, and damage is one clear line."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets.mmimdb import SPLITS, open_mmimdb
from datasets.prepare_mmimdb import prepare
from tests.datasets.mmimdb_files import COUNTS, NAMES, film_arrays, one_line, write_official, write_tree
from util.cli import UserError


def identity(batch):
    return batch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store and a tree of the same twelve films, films 0 and 2 sharing a poster."""
    folder = tmp_path_factory.mktemp("mmimdb")
    arrays = film_arrays()
    arrays["images"][2] = arrays["images"][0]
    hdf5, _ = write_official(folder, arrays)
    prepare(hdf5, folder / "store")
    return {"store": folder / "store", "tree": write_tree(folder / "tree", arrays), "arrays": arrays}


@pytest.fixture
def store(made, tmp_path):
    """A copy of the store that a test may damage."""
    return shutil.copytree(made["store"], tmp_path / "store")


@pytest.fixture
def tree(made, tmp_path):
    """A copy of the tree that a test may damage."""
    return shutil.copytree(made["tree"], tmp_path / "tree")


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for key, value in batch.items():
        assert value.dtype == other[key].dtype, key
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("split", SPLITS)
def test_store_and_tree_give_the_films_as_they_are(made, split):
    stored, tree = (open_mmimdb(made[form], split) for form in ("store", "tree"))
    first = {"train": 0, "dev": 6, "test": 9}[split]
    assert len(stored) == len(tree) == COUNTS[split]
    chosen = [2, 0, 1, 2]
    assert_same(stored.__getitems__(chosen), tree.__getitems__(chosen))
    batch, rows = stored.__getitems__(chosen), first + np.array(chosen)
    assert (batch["image"].dtype, batch["text"].dtype) == (torch.uint8, torch.float32)
    assert (batch["label"].dtype, batch["index"].dtype) == (torch.float32, torch.int64)
    assert np.array_equal(batch["image"].numpy(), made["arrays"]["images"][rows])
    assert np.array_equal(batch["text"].numpy(), made["arrays"]["features"][rows])
    assert np.array_equal(batch["label"].numpy(), made["arrays"]["genres"][rows])
    assert batch["index"].tolist() == chosen


@pytest.mark.parametrize("form", ["store", "tree"])
def test_one_film_is_a_batch_without_its_axis(made, form):
    dataset = open_mmimdb(made[form], "dev")
    batch = dataset.__getitems__([1])
    assert_same(dataset[1], {key: value[0] for key, value in batch.items()})
    with pytest.raises(IndexError):
        dataset[3]
    assert len(list(dataset)) == 3


@pytest.mark.parametrize("form", ["store", "tree"])
def test_read_leaves_out_what_nobody_needs(made, form):
    dataset = open_mmimdb(made[form], "train")
    whole = dataset.__getitems__([3, 1])
    image_only, text_only = dataset.read([3, 1], only=("image",)), dataset.read([3, 1], without=("image",))
    assert_same(image_only, {key: whole[key] for key in ("index", "image", "label")})
    assert_same(text_only, {key: whole[key] for key in ("index", "text", "label")})
    assert dataset.distinct("image")[:, 0].tolist() == dataset.image_rows.tolist()
    assert dataset.distinct("text").tolist() == [[0], [1], [2], [3], [4], [5]]


def test_attributes(made):
    stored, tree = open_mmimdb(made["store"], "train"), open_mmimdb(made["tree"], "train")
    assert stored.label_names == NAMES
    assert tree.label_names == ["genre 0", "genre 1", "genre 2", "genre 3"]
    assert stored.num_labels == tree.num_labels == 4
    assert stored.image_shape == tree.image_shape == (3, 32, 32)
    assert stored.ids.tolist() == [f"tt{row:05d}" for row in range(6)]
    assert tree.ids is None
    assert stored.image_rows.tolist() == [0, 1, 0, 2, 3, 4]
    assert tree.image_rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert stored.image_rows.dtype == tree.image_rows.dtype == np.int64


def test_duplicate_posters_are_stored_once(made):
    images = np.load(made["store"] / "train_images.npy")
    assert images.shape == (5, 3, 32, 32)
    assert images.dtype == np.uint8


@pytest.mark.parametrize("form", ["store", "tree"])
def test_small_keeps_the_first_64(tmp_path, form):
    counts = {"train": 70, "dev": 3, "test": 3}
    arrays = film_arrays(76)
    arrays["images"][1:64] = arrays["images"][70]
    hdf5, _ = write_official(tmp_path, arrays, counts)
    folder = tmp_path / "data"
    if form == "store":
        prepare(hdf5, folder)
    else:
        write_tree(folder, arrays, counts)
    whole, small = open_mmimdb(folder, "train"), open_mmimdb(folder, "train", small=True)
    assert (len(whole), len(small)) == (70, 64)
    assert whole.fingerprint != small.fingerprint
    assert_same(whole.__getitems__([63, 0]), small.__getitems__([63, 0]))
    assert len(small.image_rows) == 64
    assert small.image_rows.max() == (1 if form == "store" else 63)
    with pytest.raises(IndexError):
        small.__getitems__([64])
    assert open_mmimdb(folder, "dev", small=True).fingerprint == open_mmimdb(folder, "dev").fingerprint


@pytest.mark.parametrize("form", ["store", "tree"])
def test_pickle_is_small_and_reads_on(made, form):
    dataset = open_mmimdb(made[form], "train")
    before = dataset.__getitems__([0, 5])
    rows = dataset.image_rows
    packed = pickle.dumps(dataset)
    assert len(packed) < 2000
    again = pickle.loads(packed)
    assert_same(again.__getitems__([0, 5]), before)
    assert np.array_equal(again.image_rows, rows)
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("form", ["store", "tree"])
def test_workers_give_the_same_batches(made, form):
    dataset = open_mmimdb(made[form], "train")
    plain, worked = (
        list(DataLoader(dataset, batch_size=4, collate_fn=identity, num_workers=workers)) for workers in (0, 2)
    )
    assert [batch["index"].tolist() for batch in plain] == [[0, 1, 2, 3], [4, 5]]
    for one, other in zip(plain, worked, strict=True):
        assert_same(one, other)


def test_fingerprint_follows_the_content(made, tmp_path):
    arrays = {key: value.copy() for key, value in made["arrays"].items()}
    prints = {}
    for name in ("same", "other_label", "other_image"):
        if name == "other_label":
            arrays["genres"][0, 0] ^= 1
        if name == "other_image":
            arrays["genres"][0, 0] ^= 1
            arrays["images"][5, 0, 0, 0] ^= 1
        hdf5, _ = write_official(tmp_path / name, arrays)
        prepare(hdf5, tmp_path / name / "store")
        prints[name] = {split: open_mmimdb(tmp_path / name / "store", split).fingerprint for split in SPLITS}
    original = {split: open_mmimdb(made["store"], split).fingerprint for split in SPLITS}
    assert prints["same"] == original
    assert len(set(original.values())) == 3
    for name in ("other_label", "other_image"):
        assert prints[name]["train"] != original["train"]
        assert prints[name]["test"] == original["test"]
    assert int(original["train"], 16) >= 0


def test_tree_fingerprint_follows_sizes_and_times(tree):
    before = open_mmimdb(tree, "dev").fingerprint
    assert open_mmimdb(tree, "dev").fingerprint == before
    os.utime(tree / "dev" / "label_000001.npy", ns=(1, 1))
    assert open_mmimdb(tree, "dev").fingerprint != before


def test_missing_data_says_what_is_expected_and_how_to_get_it(tmp_path):
    with pytest.raises(UserError) as error:
        open_mmimdb(tmp_path, "dev")
    prepare_line = f"`python datasets/prepare_mmimdb.py --hdf5 multimodal_imdb.hdf5 --out {tmp_path}`"
    demo_line = "`python datasets/make_demo.py mmimdb --source easy-vqa --out DIR`"
    one_line(error, str(tmp_path / "meta.json"), "image_000000.npy", prepare_line, demo_line)


def test_the_folder_around_the_store_is_recognised(made, tmp_path):
    shutil.copytree(made["store"], tmp_path / "dataset")
    with pytest.raises(UserError) as error:
        open_mmimdb(tmp_path, "dev")
    one_line(error, f"{tmp_path / 'dataset'} holds a prepared store: pass that folder")


def test_unknown_split(made):
    with pytest.raises(UserError) as error:
        open_mmimdb(made["store"], "valid")
    one_line(error, "'valid'", "train, dev, test")


@pytest.mark.parametrize("part", ["images", "image_rows", "texts", "labels", "ids"])
@pytest.mark.parametrize("damage", ["cut", "gone", "shape"])
def test_damaged_array_is_named(store, part, damage):
    path = store / f"dev_{part}.npy"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        np.save(path, np.load(path)[:-1])
    with pytest.raises(UserError) as error:
        open_mmimdb(store, "dev")
    expected = {"cut": "cut short", "gone": "is missing", "shape": "states"}[damage]
    one_line(error, str(path), expected, "prepare_mmimdb.py", "--overwrite")
    assert len(open_mmimdb(store, "train")) == 6


@pytest.mark.parametrize("part", ["images", "image_rows", "texts", "labels"])
def test_an_array_cut_short_while_it_is_open_is_named(store, part):
    data = open_mmimdb(store, "dev")
    data.read([0, 1])
    os.truncate(store / f"dev_{part}.npy", 0)
    with pytest.raises(UserError) as error:
        data.read([0, 1])
    one_line(error, f"dev_{part}.npy", "was cut short while it was open", "prepare_mmimdb.py", "--overwrite")


def test_rows_beyond_the_images(store):
    np.save(store / "dev_image_rows.npy", np.array([0, 1, 3], dtype=np.int32))
    with pytest.raises(UserError) as error:
        open_mmimdb(store, "dev")
    one_line(error, "dev_image_rows.npy", "do not exist", "prepare_mmimdb.py")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, ["not a mmimdb-store of version 1"]),
        ({"version": 2}, ["not a mmimdb-store of version 1"]),
        ({"image_shape": None}, ["meta.json lacks"]),
        ({"splits": {"train": {}}}, ["meta.json lacks", "dev"]),
        ({"splits": {"dev": {"films": 0, "images": 0, "fingerprint": "0"}}}, ["split dev", "has no films"]),
    ],
)
def test_meta_that_does_not_fit(store, change, words):
    meta = json.loads((store / "meta.json").read_text())
    (store / "meta.json").write_text(json.dumps(meta | change))
    with pytest.raises(UserError) as error:
        open_mmimdb(store, "dev")
    one_line(error, *words, "prepare_mmimdb.py")


def test_store_without_meta_is_no_store(store):
    (store / "meta.json").unlink()
    with pytest.raises(UserError) as error:
        open_mmimdb(store, "dev")
    one_line(error, "no MM-IMDB data")


def test_tree_with_a_gap(tree):
    (tree / "train" / "text_000002.npy").unlink()
    with pytest.raises(UserError) as error:
        open_mmimdb(tree, "train")
    one_line(error, "text_000002.npy is missing", "copy the folder again")


def test_empty_tree(tree):
    shutil.rmtree(tree / "dev")
    (tree / "dev").mkdir()
    with pytest.raises(UserError) as error:
        open_mmimdb(tree, "dev")
    one_line(error, "image_000000.npy", "prepare_mmimdb.py")


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("image_000000", np.zeros((32, 32, 3)), "expected (3, height, width)"),
        ("text_000000", np.zeros(299), "expected (300,)"),
        ("label_000000", np.zeros((1, 4)), "expected (number of genres,)"),
    ],
)
def test_tree_of_other_arrays(tree, name, array, expected):
    np.save(tree / "dev" / f"{name}.npy", array)
    with pytest.raises(UserError) as error:
        open_mmimdb(tree, "dev")
    one_line(error, f"{name}.npy has shape", expected)


def test_tree_with_a_cut_or_odd_file(tree):
    dataset = open_mmimdb(tree, "dev")
    path = tree / "dev" / "image_000001.npy"
    np.save(path, np.zeros((3, 40, 32)))
    with pytest.raises(UserError) as error:
        dataset.__getitems__([0, 1])
    one_line(error, "image_000001.npy has shape (3, 40, 32), others have (3, 32, 32)")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as error:
        dataset.__getitems__([0, 1])
    one_line(error, "image_000001.npy is not a readable .npy array")
