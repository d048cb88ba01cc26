"""Prepared folders of one's own data: what was written comes back, and damage is reported."""

import functools
import json
import pickle

import numpy as np
import pytest
import torch

from datasets.checks import Report
from datasets.own import open_own, read_manifest
from datasets.own.check import check
from tests.datasets.own_samples import MODALITIES, write_own
from util.cli import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("own")
    return out, write_own(out)


def equal(left, right):
    if isinstance(right, list):
        return all(map(np.array_equal, left, right))
    return left == right if right is None or isinstance(right, str) else np.array_equal(left, right)


def test_everything_comes_back(folder):
    out, splits = folder
    manifest = read_manifest(out)
    assert manifest.splits == {"train": 300, "dev": 20, "test": 9} and manifest.label.classes == ("a", "b", "c")
    assert {name: one.missing["dev"] for name, one in manifest.modalities.items()} == {
        "numbers": 4,
        "plot": 3,
        "motion": 5,
        "maps": 0,
    }
    assert manifest.modalities["maps"].size == ((2,), (3, 2))
    for split, samples in splits.items():
        data = open_own(out, split)
        assert data.ids == [one[0] for one in samples] and data.num_labels == 3
        assert data.read(range(len(data)), only=())["label"].tolist() == [one[1] for one in samples]
        for name in MODALITIES:
            found = data.raw(name, range(len(data)))
            assert all(equal(left, one[2][name]) for left, one in zip(found, samples, strict=True))


def test_a_batch(folder):
    data = pickle.loads(pickle.dumps(open_own(folder[0], "train", {"plot": functools.partial(map, len)})))
    batch = data.read([0, 5, 8], without=("plot",))
    assert set(batch) == {"label", "numbers", "numbers_present", "plot_present", "motion", "motion_present", "maps"}
    assert batch["numbers_present"].tolist() == [False, False, True] and not batch["numbers"][:2].any()
    assert batch["motion"]["length"].tolist() == [0, 5, 0] and batch["motion"]["values"].shape == (3, 5, 3)
    assert batch["maps"]["1"].shape == (3, 3, 2) and batch["maps"]["1"].dtype == torch.float32
    narrow = open_own(folder[0], "train", only=["numbers"])
    assert set(narrow.read([0])) == set(batch) - {"motion", "maps"} and "maps" in narrow.read([0], only=["maps"])
    with pytest.raises(IndexError):
        data.read([300])
    with pytest.raises(UserError, match=r"plot .* \(text\) needs an encoder"):
        open_own(folder[0], "dev").read([1])


def test_equal_texts_share_a_number(folder):
    data = open_own(folder[0], "train")
    rows = data.distinct("plot")[:, 0]
    texts = data.raw("plot", range(300))
    assert len(set(rows)) == 5  # four texts and the missing one
    assert len({(row, text) for row, text in zip(rows, texts, strict=True)}) == 5
    assert data.distinct("numbers").shape == (300, 1) and not data.in_memory


def test_the_fingerprint_follows_content_and_preparation(folder, tmp_path):
    out = folder[0]
    write_own(tmp_path, seed=1)
    plain = open_own(out, "dev")
    assert plain.fingerprint == plain.identity != open_own(tmp_path, "dev").identity
    other = open_own(out, "dev", {"plot": functools.partial(sorted, reverse=True)})
    assert other.identity == plain.identity and other.fingerprint != plain.fingerprint
    assert len(open_own(out, "train", small=True)) == 64
    assert open_own(out, "train", small=True).identity != open_own(out, "train").identity


def swap(old, new):
    def change(data):
        assert old in data
        return data.replace(old, new, 1)

    return change


def drop_class(data):
    facts = json.loads(data)
    del facts["label"]["classes"][-1]
    return json.dumps(facts).encode()


def flip(data):
    """One bit of the last byte is another."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dev/numbers.npy", lambda data: data[:-8], "numbers.npy is damaged or cut short"),
        ("dev/motion.bin", lambda data: data[:-12], "motion.bin is cut short"),
        ("dev/label.npy", lambda data: data[:-1] + b"\x01", "label.npy has changed"),
        ("dev/numbers.npy", flip, "numbers.npy has changed"),
        ("dev/plot.bin", flip, "plot.bin has changed"),
        ("own.json", lambda data: data.replace(b'"kind"', b'"kin"'), "lacks or misstates a part"),
        ("own.json", lambda data: data.replace(b'"version": 1', b'"version": 9'), "is not the manifest"),
        ("own.json", swap(b'"kind": "class"', b'"kind": "number"'), "lacks or misstates a part"),
        ("own.json", swap(b'"kind": "class"', b'"kind": "classes"'), r"label.npy has shape \(8,\)"),
        ("own.json", drop_class, "misstates the kind or the classes"),
        ("own.json", swap(b'"size": 3', b'"size": 0'), "lacks or misstates a part"),
        ("own.json", swap(b'"dev": 2', b'"dev": 0'), "misstates how many samples lack"),
        ("own.json", lambda data: None, "is missing: .* not finished"),
    ],
)
def test_damage(tmp_path, name, change, message):
    write_own(tmp_path, (("train", 8), ("dev", 8)))
    path = tmp_path / name
    data = change(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        open_own(tmp_path, "dev")
    assert "\n" not in str(error.value) and "prepare_own.py" in str(error.value)


def test_large_arrays_are_compared_by_a_full_check_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.own.dataset.CHECKED_BYTES", 0)
    write_own(tmp_path, (("train", 8), ("dev", 8)))
    path = tmp_path / "dev" / "numbers.npy"
    path.write_bytes(flip(path.read_bytes()))
    assert len(open_own(tmp_path, "dev")) == 8
    for full in (False, True):
        report = Report(full)
        check(report, tmp_path)
        assert [one.text for one in report.findings if str(path) == one.place] == [
            "has changed since it was written"
        ] * full


def test_a_folder_of_an_older_version_has_no_sums_of_arrays(tmp_path):
    write_own(tmp_path, (("train", 8), ("dev", 8)))
    facts = json.loads((tmp_path / "own.json").read_text())
    del facts["array_sums"]
    (tmp_path / "own.json").write_text(json.dumps(facts))
    assert len(open_own(tmp_path, "dev")) == 8


def test_unknown_names(folder):
    with pytest.raises(UserError, match="no split 'val', but train, dev, test"):
        open_own(folder[0], "val")
    with pytest.raises(UserError, match="no modality 'sound', but numbers"):
        open_own(folder[0], "dev", {"sound": len})
    assert json.loads((folder[0] / "own.json").read_text())["format"] == "own-data"
