"""Region features of other projects, TSV files and grids, are packed and converted; what is bad of them is named."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import extract_features
from datasets.regions import open_regions
from datasets.regions import packing as region_packing
from datasets.regions.files import BadRegions, read_regions
from datasets.regions.grid import pooled_size, read_grid
from datasets.regions.tsv import read_rows
from tests.datasets.vqa_files import FEATURE_SIZE, refusal, region_arrays

ROOT = Path(__file__).resolve().parents[2]
pack_regions = partial(region_packing.pack_regions, remedy="python datasets/prepare_vqa.py", workers=1)


def line(image_id, lxmert=False, name=None, **changes):
    """One line of a TSV file, as bytes without its end."""
    arrays = region_arrays(image_id) | changes
    size = {"w": str(int(arrays["image_w"])), "h": str(int(arrays["image_h"]))}
    tail = [str(len(arrays["bbox"]))]
    tail += [base64.b64encode(np.ascontiguousarray(one)).decode() for one in (arrays["bbox"], arrays["x"].T)]
    head = [name or str(image_id)]
    head += [size["h"], size["w"], "AA==", "AA==", "AA==", "AA=="] if lxmert else [size["w"], size["h"]]
    return "\t".join([*head, *tail]).encode()


def write(path, lines, end=b"\r\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join(lines) + end)
    return path


def assert_holds(source, ids):
    """The features of `region_arrays`, rounded as the store rounds them."""
    assert source.ids.tolist() == sorted(ids)
    for row, image_id in enumerate(sorted(ids)):
        arrays, found = region_arrays(image_id), source.load(row)
        assert np.array_equal(found.features, arrays["x"].T.astype(source.dtype))
        assert np.array_equal(found.boxes, arrays["bbox"])
        assert (found.height, found.width) == (arrays["image_h"], arrays["image_w"])


def test_both_forms_of_tsv_files(tmp_path, capsys):
    """The second file has LXMERT's columns, a heading, a byte order mark, and no line end at its end."""
    write(tmp_path / "in" / "a.tsv", [line(7), b"", line(3)])
    heading = b"\t".join([b"img_id", *[b"x"] * 9])
    named = [line(12, lxmert=True, name="COCO_val2014_000000000012"), line(5, lxmert=True, name="n5x_5")]
    (tmp_path / "in" / "inner").mkdir()
    (tmp_path / "in" / "inner" / "b.TSV").write_bytes(b"\xef\xbb\xbf" + b"\n".join([heading, *named]))
    assert_holds(pack_regions(tmp_path / "in", tmp_path / "store"), (3, 5, 7, 12))
    pack_regions(tmp_path / "in", tmp_path / "store")
    assert "already up to date" in capsys.readouterr().out
    assert_holds(pack_regions(tmp_path / "in" / "a.tsv", tmp_path / "one", dtype="float32"), (3, 7))


def test_repeated_and_damaged_lines_of_whole_images_do_no_harm(tmp_path, capsys):
    path = write(tmp_path / "a.tsv", [line(3)[:-40], line(7), line(3), line(7), line(7)[:-41]])
    for _ in range(2):
        store = pack_regions(path, tmp_path / "store")
        path.touch()
        said = capsys.readouterr().out
        assert "note: 1 lines repeat an image" in said
        note = f"note: 2 damaged lines are left out, since other lines have the same images, first {path} line 1"
        assert note in said
        assert_holds(store, (3, 7))
        assert store.meta["skipped"] == {}


def test_lines_that_cannot_be_used_are_listed_then_left_out(tmp_path, capsys):
    nan = region_arrays(5)["x"].copy()
    nan[0, 0] = np.nan
    bad = {
        line(4)[:-40]: "line 2 (image 4)\tis cut short or damaged",
        line(5, x=nan): "line 3 (image 5)\tholds NaN",
        line(6).replace(b"6\t506", b"6\t0", 1): "line 4 (image 6)\thas image_w '0'",
        line(8).replace(b"8\t", b"house\t", 1): "line 5\thas no image id but 'house'",
        # Cut within the fifth column, so that both together have as many as a line of LXMERT's.
        line(9)[:90] + line(10): "line 6 (image 9)\thas 10 columns; the file has 6",
        line(3, image_h=np.int64(9)): "line 7 (image 3)\thas other features than an earlier line",
        line(11, **region_arrays(11, size=8)): "line 8 (image 11)\thas features of width 8, the other images have 12",
    }
    path, out = write(tmp_path / "a.tsv", [line(3), *bad]), tmp_path / "store"
    refusal(lambda: pack_regions(path, out), "7 files are invalid", "--skip_invalid", out / "invalid.txt")
    listed = (out / "invalid.txt").read_text().splitlines()
    assert all(one.startswith(f"{path} {words}") for one, words in zip(listed, bad.values(), strict=True))
    assert_holds(pack_regions(path, out, skip_invalid=True), (3,))
    write(path, [line(3, image_h=np.int64(8))])
    refusal(lambda: pack_regions(path, out), f"{path} line 1 (image 3) has changed since it was packed")
    write(path, [line(3)[:-4]])
    refusal(lambda: pack_regions(path, tmp_path / "other"), "1 file is invalid")
    refusal(lambda: pack_regions(path, tmp_path / "other", skip_invalid=True), "no usable file")


def test_files_that_are_something_else(tmp_path):
    path = write(tmp_path / "a.tsv", [b"image\tcaption", b"1\ta dog"])
    refusal(lambda: pack_regions(path, tmp_path / "out"), path, "2 columns", "expected 6 (image_id", "10 (img_id")
    path.write_bytes(line(3).decode().encode("utf-16"))
    refusal(lambda: pack_regions(path, tmp_path / "out"), path, "saved as UTF-16")
    refusal(lambda: list(read_rows(tmp_path / "none.tsv")), "cannot be read")
    refusal(lambda: pack_regions(tmp_path / "none", tmp_path / "out"), "--features", "does not exist", ".tsv files")
    (tmp_path / "empty").mkdir()
    refusal(lambda: pack_regions(tmp_path / "empty", tmp_path / "out"), "has no files like", ".pth files")


def test_a_killed_run_goes_on(tmp_path):
    ids = range(1, 121)
    path, out = write(tmp_path / "a.tsv", map(line, ids)), tmp_path / "store"
    code = "import sys; from datasets.regions.packing import pack_regions as p; p(*sys.argv[1:], remedy='')"
    command = [sys.executable, "-c", code, str(path), str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        journal = out / "journal.jsonl"
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 10):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    before = (out / "regions.bin").stat().st_size
    store = pack_regions(path, out)
    store.verify()
    assert_holds(store, ids)
    assert before <= (out / "regions.bin").stat().st_size
    assert store.fingerprint == pack_regions(path, tmp_path / "whole").fingerprint


def test_training_says_how_to_pack_them(tmp_path):
    write(tmp_path / "tsv" / "a.tsv", [line(3)])
    (tmp_path / "pth").mkdir()
    torch.save(torch.rand(1, 4, 2, 3), tmp_path / "pth" / "9.pth")
    for form in ("tsv", "pth"):
        command = f"`make --features {tmp_path / form}`"
        refusal(lambda form=form: open_regions(tmp_path / form, remedy="make --features NPZ_DIR"), form, command)


class TestGrid:
    def test_cells_become_regions(self, tmp_path):
        grid = torch.rand(1, 4, 3, 5)
        torch.save(grid, tmp_path / "COCO_9.pth")
        found = read_grid(tmp_path / "COCO_9.pth", 100)
        assert np.array_equal(found.features, grid[0].permute(1, 2, 0).reshape(15, 4).numpy())
        assert found.boxes[7].tolist() == [64, 32, 96, 64]
        assert (found.height, found.width) == (96, 160)
        store = pack_regions(tmp_path, tmp_path / "store", dtype="float32")
        assert store.ids.tolist() == [9] and store.description.startswith("grid features of")
        assert np.array_equal(store.load(0).features, found.features)

    def test_large_grids_are_averaged(self, tmp_path):
        torch.save(torch.arange(20 * 20.0).reshape(1, 20, 20).half(), tmp_path / "1.pth")
        found = read_grid(tmp_path / "1.pth", 100)
        assert found.features.shape == (100, 1) and found.features[0] == np.mean([0, 1, 20, 21])
        assert found.boxes[11].tolist() == [64, 64, 128, 128] and (found.height, found.width) == (640, 640)

    @pytest.mark.parametrize("size", [(19, 25), (25, 19), (10, 10), (101, 1), (1, 1000), (3, 300), (13, 8)])
    def test_the_number_of_cells_is_bounded(self, size):
        rows, columns = pooled_size(*size, 100)
        assert 1 <= rows <= size[0] and 1 <= columns <= size[1] and 50 < rows * columns <= 100

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ({"a": torch.zeros(1)}, "holds no tensor of numbers"),
            (torch.zeros(2, 4, 3, 3), r"holds a tensor \(2, 4, 3, 3\)"),
            (torch.zeros(4, 3), r"expected grid features \(1, D, h, w\)"),
            (torch.zeros(1, 4, 0, 3), "holds a tensor"),
            (torch.full((1, 4, 2, 2), torch.nan), "NaN"),
            (torch.zeros(1, 4, 2, 2, dtype=torch.int64), "no tensor of numbers"),
        ],
    )
    def test_other_files_are_named(self, tmp_path, value, words):
        torch.save(value, tmp_path / "9.pth")
        with pytest.raises(BadRegions, match=words):
            read_grid(tmp_path / "9.pth", 100)
        refusal(lambda: pack_regions(tmp_path, tmp_path / "out"), tmp_path / "9.pth")

    def test_damaged_files_are_named(self, tmp_path):
        (tmp_path / "9.pth").write_bytes(b"PK\x03\x04")
        refusal(lambda: pack_regions(tmp_path, tmp_path / "out"), "9.pth: is not a readable checkpoint")


class TestConversion:
    def run(self, *flags):
        extract_features.main([*map(str, flags)])

    def test_a_tree_of_npz_files(self, tmp_path, capsys):
        first, second = write(tmp_path / "a.tsv", [line(7), line(3)]), write(tmp_path / "b.tsv", [line(5)])
        (tmp_path / "pth").mkdir()
        torch.save(torch.rand(1, FEATURE_SIZE, 2, 3), tmp_path / "pth" / "9.pth")
        out = tmp_path / "out"
        self.run("--from_tsv", first, second, tmp_path / "pth", "--out", out)
        assert f"wrote {out}: 4 images" in capsys.readouterr().out
        assert sorted(os.listdir(out)) == ["3.npz", "5.npz", "7.npz", "9.npz"]
        shutil.copytree(out, tmp_path / "three", ignore=lambda *_: ["9.npz"])
        assert_holds(open_regions(tmp_path / "three"), (3, 5, 7))
        assert read_regions(out / "9.npz").features.shape == (6, FEATURE_SIZE)
        (out / "3.npz").write_bytes(b"cut")
        times = {name: (out / name).stat().st_mtime_ns for name in ("5.npz", "7.npz", "9.npz")}
        self.run("--from_tsv", first, second, tmp_path / "pth", "--out", out)
        assert read_regions(out / "3.npz").boxes.shape == (len(region_arrays(3)["bbox"]), 4)
        assert {name: (out / name).stat().st_mtime_ns for name in times} == times

    def test_wrong_flags(self, tmp_path):
        path = write(tmp_path / "a.tsv", [line(7)])
        out = ["--out", tmp_path / "out"]
        refusal(lambda: self.run("--from_tsv", path, *out, "--backbone", "pixels"), "--backbone belongs to --images")
        refusal(lambda: self.run(*out), "give --images DIR and --backbone NAME, or --from_tsv")
        np.savez(tmp_path / "x_1.npz", x=1)
        refusal(lambda: self.run("--from_tsv", tmp_path, *out), "holds .npz files already")
        write(path, [line(7)[:-4]])
        refusal(lambda: self.run("--from_tsv", path, *out), "1 file is invalid", "--skip_invalid")
