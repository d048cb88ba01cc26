"""Where the split of MM-IMDB comes from, its order, and splits that cannot be."""

import json
import re
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from datasets.mmimdb import OFFICIAL_COUNTS, SPLITS, open_mmimdb
from datasets.mmimdb.official import resolve_split
from datasets.prepare_mmimdb import prepare
from tests.datasets.mmimdb_files import (
    COUNTS,
    assert_refused,
    film_arrays,
    films,
    fuel_records,
    ids_of,
    one_line,
    split_lists,
    write_hdf5,
    write_official,
)
from util.cli import UserError


def test_split_file_orders_the_films(tmp_path, capsys):
    hdf5, arrays = write_official(tmp_path)
    lists = {"train": films(5, 1, 3), "dev": films(8, 2), "test": films(11, 0)}
    (tmp_path / "mine.json").write_text(json.dumps(lists))
    counts = prepare(hdf5, tmp_path / "out", split=tmp_path / "mine.json")
    assert counts == {"train": 3, "dev": 2, "test": 7}
    # Listed films first, then those of no list in the order of the file.
    assert ids_of(tmp_path / "out") == {**lists, "test": films(11, 0, 4, 6, 7, 9, 10)}
    batch = open_mmimdb(tmp_path / "out", "train").__getitems__([0, 1, 2])
    assert np.array_equal(batch["image"].numpy(), arrays["images"][[5, 1, 3]])
    assert np.array_equal(batch["text"].numpy(), arrays["features"][[5, 1, 3]])
    assert np.array_equal(batch["label"].numpy(), arrays["genres"][[5, 1, 3]])
    printed = capsys.readouterr().out
    assert "train 3 films\ndev 2 films\ntest 7 films\n" in printed
    assert "note: 12 films, not the official 25,959 films" in printed


def test_split_sources_in_their_order(tmp_path):
    arrays = film_arrays()
    ranges = [("train", 0, 4), ("valid", 4, 6), ("test", 6, 12)]
    records = fuel_records([(name, "features", start, stop, None, True) for name, start, stop in ranges])
    hdf5, _ = write_official(tmp_path, arrays, attrs={"split": records})
    (tmp_path / "mine.json").write_text(json.dumps(split_lists(arrays["imdb_ids"], {"train": 2, "dev": 2})))
    assert prepare(hdf5, tmp_path / "a", split=tmp_path / "mine.json") == {"train": 2, "dev": 2, "test": 8}
    assert prepare(hdf5, tmp_path / "b") == {"train": 4, "dev": 2, "test": 6}
    write_hdf5(hdf5, arrays)
    assert prepare(hdf5, tmp_path / "c") == COUNTS
    (tmp_path / "split.json").rename(tmp_path / "mmimdb_split.json")
    assert prepare(hdf5, tmp_path / "d") == COUNTS
    (tmp_path / "mmimdb_split.json").unlink()
    assert_refused(hdf5, tmp_path / "e", "12 films and no split attribute", "--split split.json")
    origins = [json.loads((tmp_path / name / "meta.json").read_text())["split_from"] for name in "abcd"]
    assert [re.search(r"mine.json|attribute|mmimdb_split.json|split.json", text)[0] for text in origins] == [
        "mine.json",
        "attribute",
        "split.json",
        "mmimdb_split.json",
    ]


def test_fuel_attribute_with_indices_and_several_fields(tmp_path, capsys):
    hdf5 = write_hdf5(tmp_path / "multimodal_imdb.hdf5", film_arrays())
    with h5py.File(hdf5, "a") as file:
        file["chosen"] = np.array([9, 2, 4])
        file.attrs["split"] = fuel_records(
            [
                ("train", "images", 0, 1, None, True),
                ("train", "features", 0, 0, file["chosen"].ref, True),
                ("validation", "features", 0, 9, None, False),
                ("validation", "genres", 5, 7, None, True),
                ("test", "features", 10, 12, None, True),
                ("unlabelled", "features", 0, 1, None, True),
            ]
        )
    prepare(hdf5, tmp_path / "out")
    assert ids_of(tmp_path / "out") == {"train": films(9, 2, 4), "dev": films(5, 6), "test": films(10, 11)}
    assert "5 films are in no split of the attribute and are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (np.array([1, 2]), ["not in Fuel's form"]),
        ("text", ["not in Fuel's form"]),
        ([("train", 0, 6), ("dev", 5, 9), ("test", 9, 12)], ["puts films into two splits"]),
        ([("train", 0, 6), ("dev", 6, 9), ("test", 9, 13)], ["names rows outside 0..11"]),
        ([("train", 0, 6), ("test", 6, 12)], ["the dev split is empty"]),
        ([("train", 0, 6), ("dev", 6, 6), ("test", 6, 12)], ["the dev split is empty"]),
    ],
)
def test_faulty_split_attribute(tmp_path, records, words):
    if isinstance(records, list):
        records = fuel_records([(name, "features", start, stop, None, True) for name, start, stop in records])
    hdf5, _ = write_official(tmp_path, attrs={"split": records})
    assert_refused(hdf5, tmp_path / "out", *words, "--split split.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"train": films(0, 1), "dev": films(2, 1)}, ["'tt00001' is both in train and in dev"]),
        ({"train": films(0, 1, 0), "dev": films(2)}, ["'tt00000' is twice in train"]),
        ({"train": films(0), "dev": films(1), "test": films(0)}, ["'tt00000' is both in train and in test"]),
        ({"train": films(0)}, ["has no list 'dev'"]),
        ({"train": [0, 1], "dev": films(2)}, ["'train' is not one list of id strings"]),
        ({"train": films(0), "dev": films(1), "val": films(2)}, ["'val' is not one list"]),
        ([films(0)], ["has no list 'train'"]),
        ({"train": films(0), "dev": ["other"]}, ["the dev split is empty"]),
        ({"train": films(*range(11)), "dev": films(11)}, ["the test split is empty"]),
    ],
)
def test_faulty_split_file(tmp_path, content, words):
    hdf5, _ = write_official(tmp_path)
    split = tmp_path / "mine.json"
    split.write_text(json.dumps(content))
    assert_refused(hdf5, tmp_path / "out", "mine.json", *words, split=split)


def test_split_file_that_is_no_json_or_absent(tmp_path):
    hdf5, _ = write_official(tmp_path)
    (tmp_path / "mine.json").write_text("{")
    assert_refused(hdf5, tmp_path / "out", "mine.json is not a readable JSON file", split=tmp_path / "mine.json")
    assert_refused(hdf5, tmp_path / "out", "other.json does not exist", split=tmp_path / "other.json")


def test_unknown_ids_are_counted(tmp_path, capsys):
    hdf5, _ = write_official(tmp_path)
    lists = {"train": [*films(0, 1), "ttX", "ttY"], "dev": films(2)}
    (tmp_path / "mine.json").write_text(json.dumps(lists))
    assert prepare(hdf5, tmp_path / "out", split=tmp_path / "mine.json")["train"] == 2
    assert "note: 2 ids of" in capsys.readouterr().out


def official_source(folder):
    """What the split needs to know of a file with as many films as the official one."""
    ids = np.array([f"{row:07d}" for row in range(25959)])
    return SimpleNamespace(path=folder / "multimodal_imdb.hdf5", count=len(ids), ids=ids, attributes={})


def test_official_number_of_films_needs_no_split(tmp_path, capsys):
    order, origin = resolve_split(official_source(tmp_path))
    assert {split: len(rows) for split, rows in order.items()} == OFFICIAL_COUNTS
    assert np.array_equal(np.concatenate([order[split] for split in SPLITS]), np.arange(25959))
    assert "official order" in origin
    assert not capsys.readouterr().out


def test_official_number_of_films_with_another_split(tmp_path, capsys):
    source = official_source(tmp_path)
    lists = {"train": source.ids[:20000].tolist(), "dev": source.ids[20000:23000].tolist()}
    (tmp_path / "split.json").write_text(json.dumps(lists))
    with pytest.raises(UserError) as error:
        resolve_split(source)
    one_line(error, "20,000 / 3,000 / 2,959", "15,552 / 2,608 / 7,799", "--split")
    order, _ = resolve_split(source, tmp_path / "split.json")
    assert len(order["test"]) == 2959
    assert "note: the split from" in capsys.readouterr().out
