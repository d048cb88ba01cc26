"""Hand-made MM-IMDB files in the true on-disk forms, small enough for a test."""

import json

import h5py
import numpy as np
import pytest

from datasets.mmimdb import SPLITS, open_mmimdb
from datasets.prepare_mmimdb import prepare
from util.cli import UserError

COUNTS = {"train": 6, "dev": 3, "test": 3}
NAMES = ["Drama", "Comedy", "Horror", "War"]


def film_arrays(count=12, genres=4, image_dtype="uint8", seed=0):
    """The four fields of ``count`` films, posters 3x32x32."""
    rng = np.random.default_rng(seed)
    return {
        "imdb_ids": np.array([f"tt{row:05d}" for row in range(count)], dtype="S7"),
        "images": rng.integers(0, 256, (count, 3, 32, 32)).astype(image_dtype),
        "features": rng.standard_normal((count, 300)).astype("float32"),
        "genres": rng.integers(0, 2, (count, genres)).astype("int32"),
    }


def split_lists(ids, counts=None):
    """Contiguous id lists as a split file holds them."""
    names, start = [film.decode() for film in ids], 0
    lists = {}
    for split, count in (counts or COUNTS).items():
        lists[split] = names[start : start + count]
        start += count
    return lists


def fuel_records(rows):
    """Fuel's split attribute from tuples (split, field, start, stop, reference or None, available)."""
    form = [("split", "S10"), ("source", "S8"), ("start", "i8"), ("stop", "i8"), ("indices", h5py.ref_dtype)]
    records = [(s, f, a, b, r or h5py.Reference(), ok, "") for s, f, a, b, r, ok in rows]
    return np.array(records, dtype=[*form, ("available", "?"), ("comment", "S1")])


def write_hdf5(path, arrays, attrs=None, names=NAMES):
    """Write the official file; returns its path."""
    with h5py.File(path, "w") as file:
        for field, values in arrays.items():
            file[field] = values
        if names is not None and "genres" in file:
            file["genres"].attrs["target_names"] = json.dumps(names)
        for key, value in (attrs or {}).items():
            file.attrs[key] = value
    return path


def write_official(folder, arrays=None, counts=None, **options):
    """Write ``multimodal_imdb.hdf5`` and ``split.json`` beside it; returns the path and the arrays."""
    arrays = film_arrays() if arrays is None else arrays
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "split.json").write_text(json.dumps(split_lists(arrays["imdb_ids"], counts)))
    return write_hdf5(folder / "multimodal_imdb.hdf5", arrays, **options), arrays


def write_tree(folder, arrays, counts=None):
    """Write the one-file-per-array tree of the same films; returns the folder."""
    start = 0
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        for number in range((counts or COUNTS)[split]):
            for kind, field in (("image", "images"), ("text", "features"), ("label", "genres")):
                np.save(folder / split / f"{kind}_{number:06d}.npy", arrays[field][start + number])
        start += (counts or COUNTS)[split]
    return folder


def one_line(error, *words):
    """Check that a user error is one line and says ``words``."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"


def ids_of(folder):
    """The ids of a store, per split."""
    return {split: open_mmimdb(folder, split).ids.tolist() for split in SPLITS}


def films(*rows):
    """The ids that `film_arrays` gives to these rows."""
    return [f"tt{row:05d}" for row in rows]


def assert_refused(hdf5, out, *words, **options):
    """The preparation stops with one line and leaves nothing where the store would be."""
    beside = sorted(out.parent.iterdir())
    with pytest.raises(UserError) as error:
        prepare(hdf5, out, **options)
    one_line(error, *words)
    assert sorted(out.parent.iterdir()) == beside
