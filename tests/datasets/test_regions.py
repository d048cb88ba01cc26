"""Region features: the ``.npz`` tree and the store give the same batches, survive kills, and name what is damaged."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.regions import open_regions, read_batch, rows_of
from datasets.regions import packing as region_packing
from datasets.regions.files import BadRegions, list_region_files, read_regions, write_regions
from datasets.regions.store import RegionStore, encode_regions
from tests.datasets.vqa_files import FEATURE_SIZE, npz_path, refusal, region_arrays, write_npz

ROOT = Path(__file__).resolve().parents[2]
IMAGES = (7, 3, 12, 5)
pack_regions = partial(region_packing.pack_regions, remedy="python datasets/prepare_vqa.py")


@pytest.fixture
def tree(tmp_path):
    """Features of four images in two folders."""
    for number in IMAGES:
        write_npz(tmp_path / "npz", "train" if number < 10 else "val", number)
    return tmp_path / "npz"


def expected_batch(ids, length, dtype):
    """The batch by its definition: float16 rounding of the features, zeros beyond an image's regions."""
    regions, boxes, sizes, counts = [], [], [], []
    for number in ids:
        arrays = region_arrays(number)
        rows = arrays["x"].T.astype(dtype)[:length]
        regions.append(np.pad(rows, [(0, length - len(rows)), (0, 0)]))
        boxes.append(np.pad(arrays["bbox"][:length], [(0, length - len(rows)), (0, 0)]))
        sizes.append((arrays["image_h"], arrays["image_w"]))
        counts.append(len(rows))
    return {
        "regions": torch.from_numpy(np.stack(regions)),
        "boxes": torch.from_numpy(np.stack(boxes)),
        "image_size": torch.tensor(sizes, dtype=torch.float32),
        "counts": torch.tensor(counts),
    }


def assert_batches_equal(batch, expected):
    assert batch.keys() == expected.keys()
    for key, value in expected.items():
        assert batch[key].dtype == value.dtype and torch.equal(batch[key], value), key


@pytest.mark.parametrize(("padding", "most"), [("batch", 100), ("full", 100), ("batch", 9), ("full", 9)])
@pytest.mark.parametrize("form", ["tree", "store", "store32"])
def test_batches_by_definition(tree, tmp_path, form, padding, most):
    dtype = "float16" if form == "store" else "float32"
    if form != "tree":
        pack_regions(tree, tmp_path / "store", dtype=dtype, workers=1)
    source = open_regions(tree if form == "tree" else tmp_path / "store", feature_size=FEATURE_SIZE)
    assert source.ids.tolist() == sorted(IMAGES)
    ids = [12, 3, 3, 5]
    longest = min(most, max(len(region_arrays(number)["bbox"]) for number in ids))
    length = most if padding == "full" else longest
    batch = read_batch(source, rows_of(source, np.array(ids)), padding=padding, max_regions=most)
    assert_batches_equal(batch, expected_batch(ids, length, dtype))


@pytest.mark.parametrize("form", ["tree", "store"])
def test_rows_of_zeros_that_fill_up_a_file_are_no_regions(tree, tmp_path, form):
    """They would be attended to; a region in between whose features are zeros counts, as does one that has a box."""
    padded, none = region_arrays(3, count=6), region_arrays(3, count=2)
    padded["x"][:, 4:], padded["bbox"][4:], padded["x"][:, 3] = 0, 0, 0
    none["x"][:], none["bbox"][:] = 0, 0
    write_npz(tree, "val", 50, **padded)
    write_npz(tree, "val", 51, **none)
    if form == "store":
        pack_regions(tree, tmp_path / "store", workers=1)
    source = open_regions(tree if form == "tree" else tmp_path / "store")
    batch = read_batch(source, rows_of(source, np.array([50, 51])))
    assert batch["counts"].tolist() == [4, 0] and batch["regions"].shape[1] == 4
    assert read_batch(source, rows_of(source, np.array([51])))["regions"].shape[:2] == (1, 1)
    assert read_batch(source, rows_of(source, np.array([50])), max_regions=3)["counts"].tolist() == [3]


def test_unknown_images_have_no_row(tree):
    source = open_regions(tree)
    assert rows_of(source, np.array([0, 3, 4, 12, 13])).tolist() == [-1, 0, -1, 3, -1]


def test_sources_are_cheap_to_send_to_workers(tree, tmp_path):
    store = pack_regions(tree, tmp_path / "store", workers=1)
    for source in (store, open_regions(tree)):
        data = pickle.dumps(source)
        assert len(data) < 1000
        copy = pickle.loads(data)
        assert_batches_equal(read_batch(copy, [0, 3]), read_batch(source, [0, 3]))
        assert copy.fingerprint == source.fingerprint


def test_more_boxes_than_wanted_are_logged(tree, tmp_path, caplog):
    write_npz(tree, "val", 50, **region_arrays(50, count=120))
    pack_regions(tree, tmp_path / "store", workers=1)
    with caplog.at_level("INFO"):
        store = open_regions(tmp_path / "store")
    assert "1 images have more than 100 regions; only the first 100 are used" in caplog.text
    assert store.counts().max() == 120
    batch = read_batch(store, rows_of(store, np.array([50])))
    assert batch["counts"].tolist() == [100] and batch["regions"].shape == (1, 100, FEATURE_SIZE)
    caplog.clear()
    source = open_regions(tree)
    with caplog.at_level("INFO"):
        for _ in range(2):
            batch = read_batch(source, rows_of(source, np.array([50])))
    assert batch["counts"].tolist() == [100] and caplog.text.count("more than 100 regions") == 1


def damaged_files(folder):
    """Name -> (change to the arrays, words of the reason)."""
    good = region_arrays(3)
    wide = good["bbox"].copy()
    wide[2, 2] = wide[2, 0] - 5
    nan = good["x"].copy()
    nan[0, 0] = np.nan
    return {
        "zero boxes": ({"x": good["x"][:, :0], "bbox": good["bbox"][:0]}, "has no boxes"),
        "other number": ({"x": good["x"][:, 1:]}, "expected (D, n) or (n, D), and (n, 4)"),
        "three numbers": ({"bbox": good["bbox"][:, :3]}, "expected (D, n) or (n, D), and (n, 4)"),
        "as many boxes as numbers": (region_arrays(3, count=FEATURE_SIZE), "cannot be told apart"),
        "another count": ({"num_bbox": np.int64(1)}, "but num_bbox 1"),
        "integers": ({"x": good["x"].astype(int)}, "int64"),
        "not a number": ({"x": nan}, "NaN"),
        "turned box": ({"bbox": wide}, "before x1, y1"),
        "no height": ({"image_h": np.int64(0)}, "two numbers above 0"),
        "two widths": ({"image_w": np.ones(2)}, "two numbers above 0"),
        "a pickle": ({"bbox": np.array([None, {}])}, "damaged"),
    }


@pytest.mark.parametrize("name", damaged_files(None))
def test_unusable_files_are_named(tree, name):
    change, words = damaged_files(tree)[name]
    path = write_npz(tree, "train", 3, **change)
    with pytest.raises(BadRegions, match=words.replace("(", r"\(").replace(")", r"\)")):
        read_regions(path)
    refusal(lambda: open_regions(tree), path, words)


@pytest.mark.parametrize("count", [FEATURE_SIZE - 1, FEATURE_SIZE])
def test_both_layouts_are_read(tmp_path, count):
    arrays = region_arrays(3, count=count)
    expected = read_regions(write_npz(tmp_path, "train", 3, **arrays, layout="columns"))
    square = {"layout": "rows"} if count == FEATURE_SIZE else {}
    # As MILVLG/bottom-up-attention.pytorch writes them, with an object array that is not looked at.
    more = {"num_bbox": count, "info": np.array({"a": 1}, dtype=object)}
    found = read_regions(write_npz(tmp_path, "train", 3, **(arrays | {"x": arrays["x"].T} | square | more)))
    assert found.features.shape == (count, FEATURE_SIZE)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_our_own_files_say_their_layout_where_it_does_not_show(tmp_path):
    x, boxes = region_arrays(3, count=FEATURE_SIZE)["x"], region_arrays(3, count=FEATURE_SIZE)["bbox"]
    write_regions(tmp_path / "x_3.npz", x, boxes, 20, 30)
    assert np.array_equal(read_regions(tmp_path / "x_3.npz").features, x)


def test_links_and_upper_case_endings(tree, tmp_path):
    folder = tmp_path / "links"
    (tmp_path / "other").mkdir()
    folder.mkdir()
    npz_path(tree, "val", 12).rename(tmp_path / "other" / "x_12.NPZ")
    (folder / "train").symlink_to(tree / "train2014", target_is_directory=True)
    (folder / "x_12.NPZ").symlink_to(tmp_path / "other" / "x_12.NPZ")
    (folder / "round").symlink_to(".", target_is_directory=True)
    assert list_region_files(folder).ids.tolist() == sorted(IMAGES)
    (folder / "again").symlink_to(tree / "train2014", target_is_directory=True)
    assert list_region_files(folder).ids.tolist() == sorted(IMAGES)


def test_missing_arrays_and_other_files(tmp_path):
    path = tmp_path / "x_1.npz"
    np.savez(path, x=np.zeros((2, 3)), bbox=np.zeros((3, 4)), image_h=1)
    with pytest.raises(BadRegions, match="has no array image_w"):
        read_regions(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(BadRegions, match=r"not an \.npz file"):
        read_regions(path)
    with pytest.raises(BadRegions, match="is missing"):
        read_regions(tmp_path / "x_2.npz")


def test_damaged_bytes_never_pass(tmp_path):
    """Whatever byte is changed or wherever the file ends: the right arrays, or BadRegions."""
    path = write_npz(tmp_path, "train", 3, **region_arrays(3, count=10, size=2))
    good, whole = read_regions(path), path.read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for number in range(300):
        data = bytearray(whole)
        place = int(draw.integers(len(data)))
        if number % 3:
            data[place] ^= 1 << int(draw.integers(8))
        else:
            del data[place:]
        path.write_bytes(data)
        try:
            found = read_regions(path)
        except BadRegions:
            refused += 1
        else:
            assert all(np.array_equal(a, b) for a, b in zip(found, good, strict=True))
    assert refused > 150


def test_float16_range_is_kept(tree, tmp_path):
    path = write_npz(tree, "train", 3, x=region_arrays(3)["x"] * 1e6)
    refusal(lambda: pack_regions(tree, tmp_path / "a", workers=1), path, "65,504", "--float32")
    store = pack_regions(tree, tmp_path / "b", dtype="float32", workers=1)
    assert np.array_equal(store.load(0).features, region_arrays(3)["x"].T * np.float32(1e6))
    with pytest.raises(BadRegions):
        encode_regions(read_regions(path), "float16")


def test_faulty_files_are_listed_then_left_out(tree, tmp_path, capsys):
    bad = [write_npz(tree, "train", 3, x=region_arrays(3)["x"][:, :4]), npz_path(tree, "train", 7)]
    bad[1].write_bytes(bad[1].read_bytes()[:200])
    np.savez(tree / "val2014" / "notes.npz", x=1)
    out = tmp_path / "store"
    refusal(lambda: pack_regions(tree, out, workers=1), "3 files are invalid", "--skip_invalid", out / "invalid.txt")
    assert not (out / "meta.json").exists()
    listed = (out / "invalid.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == sorted([*map(str, bad), str(tree / "val2014" / "notes.npz")])
    refusal(lambda: open_regions(out), "not finished")
    store = pack_regions(tree, out, workers=1, skip_invalid=True)
    assert store.ids.tolist() == [5, 12] and len(store.meta["skipped"]) == 3
    assert "3 files are invalid and left out" in capsys.readouterr().out


def test_one_width_for_all(tree, tmp_path):
    path = write_npz(tree, "val", 12, **region_arrays(12, size=8))
    source = open_regions(tree)
    refusal(lambda: source.load(3), path, "width 8, not 12")
    refusal(lambda: pack_regions(tree, tmp_path / "store", workers=1), path, "width 8, the other images have 12")
    refusal(lambda: open_regions(tree, feature_size=2048), "width 12", "expects 2048")


def test_two_files_of_one_image(tree):
    write_npz(tree, "val", 3)
    refusal(lambda: list_region_files(tree), "both of image 3")


def test_nothing_there(tmp_path):
    refusal(lambda: open_regions(tmp_path / "none"), "is not a directory")
    refusal(lambda: open_regions(tmp_path), "has no features")
    refusal(lambda: pack_regions(tmp_path, tmp_path / "out"), "has no files like")


def test_packing_again_changes_nothing_and_mended_files_join(tree, tmp_path, capsys):
    path = npz_path(tree, "train", 3)
    path.write_bytes(b"")
    out = tmp_path / "store"
    pack_regions(tree, out, workers=1, skip_invalid=True)
    before = (out / "regions.bin").stat().st_mtime_ns
    capsys.readouterr()
    pack_regions(tree, out, workers=1, skip_invalid=True)
    assert "already up to date" in capsys.readouterr().out
    assert (out / "regions.bin").stat().st_mtime_ns == before
    write_npz(tree, "train", 3)
    store = pack_regions(tree, out, workers=1)
    assert "3 images are done already, 1 to go" in capsys.readouterr().out
    assert store.ids.tolist() == sorted(IMAGES)
    assert_batches_equal(read_batch(store, [0, 1, 2, 3]), read_batch(open_regions(out), [0, 1, 2, 3]))
    path = write_npz(tree, "train", 5, image_h=np.int64(399))
    os.utime(path, ns=(1, 1))
    refusal(lambda: pack_regions(tree, out, workers=1), path, "has changed since")
    refusal(lambda: pack_regions(tree, out, dtype="float32", workers=1), "dtype float32")


def test_damage_to_a_store_is_found(tree, tmp_path):
    out = tmp_path / "store"
    store = pack_regions(tree, out, workers=1)
    data = bytearray((out / "regions.bin").read_bytes())
    data[100] ^= 1
    (out / "regions.bin").write_bytes(data)
    refusal(store.verify, "regions.bin is damaged at image")
    (out / "regions.bin").write_bytes(data[:-1])
    refusal(lambda: open_regions(out), "fewer than")
    (out / "index.npy").write_bytes(b"?")
    refusal(lambda: open_regions(out), "index.npy", "damaged")
    (out / "index.npy").unlink()
    refusal(lambda: open_regions(out), "index.npy is missing")
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps(meta | {"dtype": "int8"}))
    refusal(lambda: open_regions(out), "meta.json lacks or misstates")
    (out / "meta.json").write_text("[]")
    refusal(lambda: open_regions(out), "is not a region-store")


def test_a_store_cut_short_while_it_is_open_is_named(tree, tmp_path):
    store = pack_regions(tree, tmp_path / "store", workers=1)
    store.load(0)
    os.truncate(tmp_path / "store" / "regions.bin", 1000)
    refusal(lambda: store.load(0), "regions.bin was cut short while it was open")
    fresh = pickle.loads(pickle.dumps(store))
    refusal(lambda: fresh.load(0), "regions.bin has fewer than")


def test_extraction_travels_with_the_store(tree, tmp_path):
    extraction = {"extractor": {"backbone": "pixels"}}
    (tree / "train2014" / "meta.json").write_text(json.dumps(extraction))
    for source in (pack_regions(tree, tmp_path / "store", workers=1), open_regions(tree)):
        assert source.extraction == extraction and source.description == "region features by pixels"


def test_a_killed_run_goes_on(tmp_path):
    """Killed at several moments and begun again: the store equals that of one run."""
    tree = tmp_path / "npz"
    for number in range(1, 121):
        write_npz(tree, "train", number)
    whole = pack_regions(tree, tmp_path / "whole", workers=1)
    out = tmp_path / "store"
    code = "import sys; from datasets.regions.packing import pack_regions as p; p(sys.argv[1], sys.argv[2], workers=2)"
    command = [sys.executable, "-c", code, str(tree), str(out)]
    for enough in (1, 40, 80):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and count_lines(out / "journal.jsonl") < enough:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (out / "meta.json").exists():
            refusal(lambda: RegionStore(out, "make it"), "not finished", "make it")
    store = pack_regions(tree, out, workers=1)
    store.verify()
    assert store.ids.tolist() == whole.ids.tolist()
    assert_batches_equal(read_batch(store, range(120)), read_batch(whole, range(120)))
    assert store.fingerprint == whole.fingerprint


def count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0
