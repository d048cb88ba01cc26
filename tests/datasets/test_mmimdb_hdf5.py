"""What can be wrong with ``multimodal_imdb.hdf5``: one line each, and nothing is left behind."""

import json

import h5py
import numpy as np
import pytest

from datasets.mmimdb import official, open_mmimdb
from datasets.prepare_mmimdb import prepare
from tests.datasets.mmimdb_files import NAMES, assert_refused, film_arrays, films, ids_of, write_hdf5, write_official


def test_file_that_is_absent_not_hdf5_or_cut(tmp_path):
    assert_refused(tmp_path / "none.hdf5", tmp_path / "out", "none.hdf5 does not exist", "make_demo.py")
    (tmp_path / "text.hdf5").write_text("hello")
    assert_refused(tmp_path / "text.hdf5", tmp_path / "out", "text.hdf5 is not a readable HDF5 file", "5 bytes")
    hdf5, _ = write_official(tmp_path)
    hdf5.write_bytes(hdf5.read_bytes()[:-5000])
    assert_refused(hdf5, tmp_path / "out", "cut short", "fetch it again")


def test_file_damaged_inside(tmp_path):
    hdf5, arrays = write_official(tmp_path)
    with h5py.File(hdf5, "a") as file:
        del file["images"]
        images = file.create_dataset("images", data=arrays["images"], chunks=(4, 3, 32, 32), compression="gzip")
        place = images.id.get_chunk_info(1)
    with open(hdf5, "r+b") as file:
        file.seek(place.byte_offset)
        file.write(b"\0" * place.size)
    assert_refused(hdf5, tmp_path / "out", "cannot read images, the file is damaged")


@pytest.mark.parametrize("field", ["imdb_ids", "images", "features", "genres"])
def test_missing_field(tmp_path, field):
    hdf5, _ = write_official(tmp_path)
    with h5py.File(hdf5, "a") as file:
        del file[field]
        others = ", ".join(sorted(file))
    assert_refused(hdf5, tmp_path / "out", f"field {field} is missing", f"holds {others}")


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        ("images", np.zeros((12, 3, 32), "uint8"), ["images has 3 axes", "expected 4"]),
        ("images", np.zeros((12, 40, 32, 3), "uint8"), ["channels last", "(films, 3, height, width)"]),
        ("images", np.zeros((12, 1, 32, 32), "uint8"), ["(12, 1, 32, 32)", "(films, 3, height, width)"]),
        ("images", np.zeros((12, 3, 31, 64), "uint8"), ["31x64", "at least 32x32"]),
        ("images", np.zeros((12, 3, 32, 32), "S1"), ["images has dtype", "expected numbers"]),
        ("features", np.zeros((12, 299), "float32"), ["299 wide", "expected 300"]),
        ("features", np.zeros((11, 300), "float32"), ["different lengths", "features 11"]),
        ("genres", np.zeros(12, "int32"), ["genres has 1 axes", "expected 2"]),
        ("genres", np.zeros((12, 0), "int32"), ["genres have no columns"]),
        ("imdb_ids", np.zeros(12, "float32"), ["imdb_ids has dtype", "expected text"]),
        ("imdb_ids", np.array([b"tt1"] * 2 + [b"%d" % n for n in range(10)]), ["more than once", "'tt1'"]),
        ("imdb_ids", np.array([b"\xff\xfe"] + [b"%d" % n for n in range(11)]), ["not UTF-8"]),
    ],
)
def test_field_of_another_form(tmp_path, field, values, words):
    hdf5, arrays = write_official(tmp_path)
    write_hdf5(hdf5, arrays | {field: values}, names=None)
    assert_refused(hdf5, tmp_path / "out", str(hdf5), *words)


@pytest.mark.parametrize("names", [["only", "two"], {"a": 1}])
def test_names_of_genres_that_do_not_fit(tmp_path, names):
    hdf5, _ = write_official(tmp_path, names=names)
    assert_refused(hdf5, tmp_path / "out", "not a JSON list of 4 names")


FAULTS = [
    ("features", np.nan, "features with NaN or infinite values"),
    ("features", -np.inf, "features with NaN or infinite values"),
    ("genres", 2, "genres other than 0 and 1"),
    ("images", np.inf, "images with NaN or infinite values"),
    ("images", 1e39, "images with NaN or infinite values"),
]


@pytest.mark.parametrize(("field", "value", "words"), FAULTS)
def test_faulty_film_stops_or_is_left_out(tmp_path, capsys, field, value, words):
    arrays = film_arrays(image_dtype="float64")
    for film in (4, 7):
        arrays[field][film].flat[3] = value
    hdf5, _ = write_official(tmp_path, arrays)
    out = tmp_path / "out"
    assert_refused(hdf5, out, "2 films have", words, "first film 'tt00004'", "--skip_invalid")
    assert prepare(hdf5, out, skip_invalid=True) == {"train": 5, "dev": 2, "test": 3}
    assert f"left out 2 films with {words}: tt00004, tt00007\n" in capsys.readouterr().out
    assert ids_of(out) == {"train": films(0, 1, 2, 3, 5), "dev": films(6, 8), "test": films(9, 10, 11)}
    assert json.loads((out / "meta.json").read_text())["skipped"] == films(4, 7)
    kept = open_mmimdb(out, "train").__getitems__([4])
    assert np.array_equal(kept["image"][0].numpy(), arrays["images"][5])
    assert len(np.load(out / "train_images.npy")) == 5


def test_split_of_faulty_films_only(tmp_path):
    arrays = film_arrays()
    arrays["features"][6:9] = np.nan
    hdf5, _ = write_official(tmp_path, arrays)
    assert_refused(hdf5, tmp_path / "out", "every film of the dev split is invalid", skip_invalid=True)


def test_film_without_genre_is_fine(tmp_path):
    arrays = film_arrays()
    arrays["genres"][0] = 0
    hdf5, _ = write_official(tmp_path, arrays)
    prepare(hdf5, tmp_path / "out")
    assert open_mmimdb(tmp_path / "out", "train")[0]["label"].tolist() == [0, 0, 0, 0]


def test_whole_storage_chunks_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "CHUNK_BYTES", 1)
    hdf5, arrays = write_official(tmp_path)
    with h5py.File(hdf5, "a") as file:
        del file["images"]
        file.create_dataset("images", data=arrays["images"], chunks=(5, 3, 32, 32))
    with official.OfficialFile(hdf5) as source:
        assert [(start, len(images)) for start, images, _ in source.image_chunks()] == [(0, 5), (5, 5), (10, 2)]


def test_ids_as_text_and_names_of_genres(tmp_path):
    arrays = film_arrays()
    hdf5, _ = write_official(tmp_path, arrays, names=None, attrs={"genre_names": json.dumps(NAMES)})
    with h5py.File(hdf5, "a") as file:
        del file["imdb_ids"]
        file.create_dataset("imdb_ids", data=films(*range(12)), dtype=h5py.string_dtype())
    prepare(hdf5, tmp_path / "out")
    dev = open_mmimdb(tmp_path / "out", "dev")
    assert dev.ids.tolist() == films(6, 7, 8)
    assert dev.label_names == NAMES
    write_hdf5(hdf5, arrays, names=None)
    prepare(hdf5, tmp_path / "out")
    assert open_mmimdb(tmp_path / "out", "dev").label_names == [f"genre {number}" for number in range(4)]
