"""Extraction of region features: form of the files, resuming, faults, and the same extractor again from meta.json."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.extract_features import BACKBONES, get_args_parser, main
from datasets.regions.extractors import EXTRACTORS, accepted, build_extractor, extractor_from_meta, regions_of_image
from datasets.regions.files import image_id_of, read_regions
from datasets.regions.pixels import PixelRegions
from tests.datasets.drawn_pictures import draw, save, write_pictures
from util.cli import UserError

ROOT = Path(__file__).resolve().parents[2]


def run(folder, *flags):
    main(["--images", str(folder / "images"), "--out", str(folder / "out"), "--backbone", "pixels", *flags])


def error_of(folder, *flags):
    with pytest.raises(UserError) as error:
        run(folder, *flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(folder):
    """Name -> bytes of all files of features."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npz")}


def meta_of(folder):
    return json.loads((folder / "out" / "meta.json").read_text())


def test_files_have_the_published_form(tmp_path, capsys):
    boxes = write_pictures(tmp_path / "images", 3)
    save(tmp_path / "images" / "val2014" / "COCO_val2014_000000000042.jpg", draw({}), quality=95)
    run(tmp_path)
    assert "4 images, 7 regions of 512 numbers each (1 to 2 per image)" in capsys.readouterr().out
    assert set(contents(tmp_path / "out")) == {
        "000.png.npz",
        "001.png.npz",
        "002.png.npz",
        "val2014/COCO_val2014_000000000042.jpg.npz",
    }
    for number, box in enumerate(boxes.tolist()):
        with np.load(tmp_path / "out" / f"{number:03d}.png.npz", allow_pickle=False) as file:
            assert set(file.files) == {"x", "bbox", "image_h", "image_w"}
            assert (file["x"].shape, file["x"].dtype) == ((512, 2), np.float32)
            assert file["bbox"].dtype == np.float32
            assert file["bbox"].tolist() == [[0, 0, 60, 50], box]
            assert (file["image_h"].shape, int(file["image_h"]), int(file["image_w"])) == ((), 50, 60)
    assert image_id_of("COCO_val2014_000000000042.jpg.npz") == 42
    regions = read_regions(tmp_path / "out" / "val2014" / "COCO_val2014_000000000042.jpg.npz")
    assert (regions.features.shape, regions.height, regions.width) == ((1, 512), 80, 100)


def test_meta_says_how_they_were_made(tmp_path):
    write_pictures(tmp_path / "images", 2)
    run(tmp_path, "--feature_size", "80", "--boxes", "5")
    meta = meta_of(tmp_path)
    assert meta["extractor"] == {"backbone": "pixels", "feature_size": 80, "boxes": 5}
    assert (meta["feature_size"], meta["images"], meta["regions"], meta["complete"]) == (80, 2, 4, True)
    assert meta["versions"]["numpy"] == np.__version__


def test_one_image_by_an_extractor_from_meta(tmp_path):
    write_pictures(tmp_path / "images", 1)
    run(tmp_path, "--feature_size", "80")
    extractor = extractor_from_meta(meta_of(tmp_path))
    assert extractor.feature_size == 80
    found = regions_of_image(tmp_path / "images" / "000.png", extractor)
    stored = read_regions(tmp_path / "out" / "000.png.npz")
    assert np.array_equal(found["x"], stored.features)
    assert np.array_equal(found["boxes"], stored.boxes)
    assert (found["height"], found["width"]) == (50, 60)
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        regions_of_image(tmp_path / "none.png", extractor)


@pytest.mark.parametrize("noted", [None, {}, {"backbone": "other"}, {"backbone": "pixels", "a": 1}])
def test_meta_of_something_else(noted):
    with pytest.raises(UserError, match="does not record how they were made"):
        extractor_from_meta({"extractor": noted})
    with pytest.raises(UserError, match="does not record how they were made"):
        extractor_from_meta([])


def test_same_command_completes_what_is_missing(tmp_path, capsys):
    write_pictures(tmp_path / "images", 6)
    run(tmp_path)
    out, before = tmp_path / "out", contents(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    (out / "001.png.npz").unlink()
    (out / "002.png.npz").write_bytes(before["002.png.npz"][:-30])
    np.savez(out / "003.png.npz", x=np.zeros((512, 2), np.float32))
    (out / ".004.png.npz.abc").write_bytes(b"left by a killed run")
    save(tmp_path / "images" / "005.png", draw({"red": (1, 2, 13, 14)}))
    capsys.readouterr()
    run(tmp_path)
    assert "2 images are done already, 4 to go" in capsys.readouterr().out
    after = contents(out)
    assert after.pop("005.png.npz") != before.pop("005.png.npz")
    assert after == before
    assert all((out / name).stat().st_mtime_ns == times[out / name] for name in ("000.png.npz", "004.png.npz"))


def test_a_killed_run_goes_on(tmp_path):
    write_pictures(tmp_path / "images", 600)
    command = [sys.executable, "datasets/extract_features.py", "--images", tmp_path / "images", "--workers", "1"]
    command += ["--backbone", "pixels", "--out", tmp_path / "out"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("out/*.npz"))) < 20 and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(tmp_path.glob("out/*.npz")))
    assert 20 <= done < 600
    assert meta_of(tmp_path)["complete"] is False
    run(tmp_path, "--workers", "1")
    assert meta_of(tmp_path)["complete"] is True
    found = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, "--workers", "1")
    assert found == contents(tmp_path / "out")
    assert len(found) == 600


def test_processes_make_the_same_files(tmp_path):
    write_pictures(tmp_path / "images", 10)
    run(tmp_path)
    found = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, "--workers", "2")
    assert found == contents(tmp_path / "out")


def test_folder_of_other_features_is_left_alone(tmp_path):
    write_pictures(tmp_path / "images", 1)
    run(tmp_path)
    assert "made with other settings" in error_of(tmp_path, "--feature_size", "60")
    (tmp_path / "out" / "meta.json").unlink()
    assert "holds .npz files but no meta.json" in error_of(tmp_path)
    assert read_regions(tmp_path / "out" / "000.png.npz").features.shape == (2, 512)


def test_unreadable_images_are_named_and_the_others_kept(tmp_path, capsys):
    write_pictures(tmp_path / "images", 4)
    bad = tmp_path / "images" / "001.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    (tmp_path / "images" / "003.png").write_bytes(b"no image")
    message = error_of(tmp_path)
    assert message.startswith(f"2 images are invalid, first {bad}: is not a readable image")
    assert "--skip_invalid" in message
    listed = (tmp_path / "out" / "invalid.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["001.png", "003.png"]
    assert set(contents(tmp_path / "out")) == {"000.png.npz", "002.png.npz"}
    assert meta_of(tmp_path)["complete"] is False

    run(tmp_path, "--skip_invalid")
    assert "2 images are invalid and left out" in capsys.readouterr().out
    assert (meta_of(tmp_path)["images"], list(meta_of(tmp_path)["skipped"])) == (2, ["001.png", "003.png"])

    bad.write_bytes(whole)
    assert "1 image is invalid" in error_of(tmp_path)
    (tmp_path / "images" / "003.png").unlink()
    run(tmp_path)
    assert not (tmp_path / "out" / "invalid.txt").exists()
    assert (meta_of(tmp_path)["images"], meta_of(tmp_path)["skipped"]) == (3, {})


def test_no_readable_image_at_all(tmp_path):
    save(tmp_path / "images" / "a.png", draw({})).write_bytes(b"")
    assert "none of the images can be read" in error_of(tmp_path, "--skip_invalid")


def test_wrong_folders(tmp_path):
    assert "images is not a directory" in error_of(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".hidden.png").touch()
    (tmp_path / "images" / "notes.txt").touch()
    assert "has no image" in error_of(tmp_path)
    write_pictures(tmp_path / "images", 1)
    (tmp_path / "out").write_text("a file")
    assert f"cannot write {tmp_path / 'out' / 'meta.json'}" in error_of(tmp_path)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--grid", "3"], "--grid belongs to --backbone resnet101-grid, not to pixels"),
        (["--weights", "random"], "--weights belongs to --backbone resnet101-grid or fasterrcnn"),
        (["--device", "cpu"], "--device belongs to"),
        (["--batch_size", "2"], "--batch_size belongs to"),
        (["--workers", "0"], "--workers 0: must be 1 or more"),
        (["--boxes", "0"], "--boxes 0: must be 1 to 100"),
        (["--feature_size", "9"], "--feature_size 9: must be 53 to"),
    ],
)
def test_flags_that_cannot_be(tmp_path, flags, words):
    write_pictures(tmp_path / "images", 1)
    assert words in error_of(tmp_path, *flags)
    assert not (tmp_path / "out").exists()


def test_flags_and_settings_agree():
    """Every setting of an extractor has its flag, with the default that the help tells."""
    assert set(BACKBONES) == set(EXTRACTORS)
    flags = {action.dest: action for action in get_args_parser()._actions}
    for name in EXTRACTORS:
        assert set(accepted(name)) <= set(flags)
    assert PixelRegions().settings == {"backbone": "pixels", "feature_size": 512, "boxes": 100}
    assert "512" in flags["feature_size"].help
    assert "100" in flags["boxes"].help
    with pytest.raises(UserError, match="--backbone other is unknown"):
        build_extractor("other")
