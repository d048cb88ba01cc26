"""Preparation of NTU: the store and the tree hold what the originals would see, and faults stop nothing else."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.ntu.names import BadSample, missing_skeletons
from datasets.ntu.scaling import encode_jpeg, scaled_frames
from datasets.ntu.skeleton import read_skeleton
from datasets.ntu.store import StoreSource
from datasets.ntu.video import avi_length, kept_frames, read_avi
from datasets.prepare_ntu import get_args_parser, main
from datasets.storage.frames import FrameStore
from tests.datasets.ntu_files import level, skeleton_text, write_mjpg, write_raw
from util.cli import UserError

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = {"S001C001P001R001A001": 40, "S001C001P002R001A003": 7, "S002C003P003R002A002": 24}
MISSING = "S001C002P005R002A008"


def raw(folder, **changes):
    return write_raw(folder, LENGTHS | changes)


def run(folder, *flags, store=True):
    argv = ["--dir", str(folder / "nturgb+d_rgb"), "--size", "32", "--workers", "1"]
    if store:
        argv += ["--skeletons", str(folder / "nturgb+d_skeletons"), "--out", str(folder / "store")]
    main([*argv, *flags])


def error_of(*args, **kwargs):
    with pytest.raises(UserError) as error:
        run(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def grey(images):
    return [round(float(image.mean())) for image in images]


def test_store_holds_the_frames_and_skeletons(tmp_path, capsys):
    _, skeletons = raw(tmp_path)
    run(tmp_path)
    out = capsys.readouterr().out
    assert "3 samples (the official NTU RGB+D 60 has 56,880: 56,877 of them are not here)" in out
    source = StoreSource(tmp_path / "store")
    assert source.names == sorted(LENGTHS)
    assert source.frame_shape == (32, 32, 3)
    assert (source.synthetic, source.unpaired) == (False, [])
    frames = FrameStore(tmp_path / "store", "")
    for row, (name, length) in enumerate(sorted(LENGTHS.items())):
        assert frames.length(row) == length
        assert frames.numbers(row).tolist() == kept_frames(length).tolist()
        chosen, images = source.images(row, kept_frames)
        assert chosen.tolist() == sorted(images)
        assert np.allclose(grey(images.values()), [level(number) for number in images], atol=2)
        assert len(source.skeleton(row).counts) == length
        lines = (skeletons / f"{name}.skeleton").read_text().splitlines()
        assert np.allclose(source.skeleton(row).joints[0, 0], [float(word) for word in lines[4].split()[:3]])
    source.verify()


def test_store_tells_what_is_beside_the_videos(tmp_path):
    raw(tmp_path)
    about = {"description": "made up", "synthetic": True, "label_names": ["one", "two", "three"]}
    (tmp_path / "about.json").write_text(json.dumps(about))
    run(tmp_path)
    source = StoreSource(tmp_path / "store")
    assert (source.description, source.synthetic, source.label_names) == tuple(about.values())


def test_same_command_again_finishes_at_once(tmp_path, capsys):
    raw(tmp_path)
    run(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    run(tmp_path)
    assert "already up to date" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before


def test_more_files_are_added(tmp_path, capsys):
    raw(tmp_path)
    run(tmp_path)
    write_raw(tmp_path, {"S003C001P004R001A001": 12})
    run(tmp_path)
    assert "3 samples are done already, 1 to go" in capsys.readouterr().out
    assert len(StoreSource(tmp_path / "store").names) == 4


def test_processes_give_the_same_store(tmp_path):
    raw(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    run(tmp_path / "one")
    run(tmp_path / "two", "--workers", "2")
    one, two = (StoreSource(tmp_path / name / "store") for name in ("one", "two"))
    assert one.fingerprint([0, 1, 2]) == two.fingerprint([0, 1, 2])


def damage(folder):
    """Every fault that a sample can have; returns the ids or names and a word of each reason."""
    videos, skeletons = write_raw(folder, {f"S009C001P00{number}R001A001": 12 for number in range(1, 10)})
    name = "S009C001P00{}R001A001".format
    (videos / f"{name(1)}_rgb.avi").write_bytes(b"RIFF" + bytes(500))
    video = videos / f"{name(2)}_rgb.avi"
    video.write_bytes(video.read_bytes()[:4000])
    (videos / f"{name(3)}_rgb.avi").unlink()
    (skeletons / f"{name(4)}.skeleton").unlink()
    (skeletons / f"{name(5)}.skeleton").write_text("0\n")
    (skeletons / f"{name(6)}.skeleton").write_text(skeleton_text(5).replace("\n25\n", "\n20\n"))
    (skeletons / f"{name(7)}.skeleton").write_text(skeleton_text(5)[:3000])
    (skeletons / f"{name(8)}.skeleton").write_bytes(bytes(range(256)))
    write_mjpg(videos / f"{name(9)}_rgb.avi", 0)
    other = ["S009C001P001R001A061", "S009C001P041R001A001"]
    for text in other:
        write_mjpg(videos / f"{text}_rgb.avi", 3)
    write_mjpg(videos / "holiday.avi", 3)
    reasons = ["not a readable video", "video", "has no video", "skeleton is missing", "has 0 frames"]
    reasons += ["has 20 joints", "skeleton ", "not a text file", "video"]
    expected = {name(number): reason for number, reason in enumerate(reasons, start=1)}
    expected |= {f"{other[0]}_rgb.avi": "NTU RGB+D 120", f"{other[1]}_rgb.avi": "subject 41"}
    return expected | {"holiday.avi": "not named"}


def test_faulty_files_stop_nothing_else(tmp_path, capsys):
    raw(tmp_path)
    expected = damage(tmp_path)
    message = error_of(tmp_path)
    first = min(expected)
    assert message.startswith(f"12 samples or files are invalid, first {first}: ")
    assert "--skip_invalid" in message and str(tmp_path / "store" / "invalid.txt") in message
    listed = dict(line.split("\t") for line in (tmp_path / "store" / "invalid.txt").read_text().splitlines())
    assert listed.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in listed[name], name
    assert not (tmp_path / "store" / "meta.json").exists()
    capsys.readouterr()

    run(tmp_path, "--skip_invalid")
    out = capsys.readouterr().out
    assert "3 samples are done already, 7 to go" in out
    assert "12 samples or files are invalid and left out" in out and f"{first}: {listed[first]}" in out
    assert StoreSource(tmp_path / "store").names == sorted(LENGTHS)
    meta = json.loads((tmp_path / "store" / "meta.json").read_text())
    assert meta["skipped"] == listed
    run(tmp_path, "--skip_invalid")
    assert "already up to date" in capsys.readouterr().out


def test_mended_files_are_taken_in(tmp_path):
    videos, _ = raw(tmp_path)
    path = videos / "S001C001P001R001A001_rgb.avi"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert "first S001C001P001R001A001" in error_of(tmp_path)
    path.write_bytes(whole)
    run(tmp_path)
    assert not (tmp_path / "store" / "invalid.txt").exists()
    assert len(StoreSource(tmp_path / "store").names) == 3


def test_official_missing_skeletons_do_not_stop(tmp_path, capsys):
    names = sorted(missing_skeletons())[:3]
    _, skeletons = raw(tmp_path, **dict.fromkeys(names, 9))
    (skeletons / f"{names[0]}.skeleton").write_text("0\n")
    (skeletons / f"{names[1]}.skeleton").unlink()
    run(tmp_path)
    out = capsys.readouterr().out
    assert "left out 2 samples that are in the official list of missing skeletons" in out
    assert "4 samples (the official NTU RGB+D 60 has 56,880: 56,874 of them are not here)" in out
    assert json.loads((tmp_path / "store" / "meta.json").read_text())["missing_skeletons"] == names[:2]
    assert StoreSource(tmp_path / "store").names == sorted([*LENGTHS, names[2]])


def test_nothing_usable(tmp_path):
    write_raw(tmp_path, {"S001C001P001R001A001": 5})
    (tmp_path / "nturgb+d_rgb" / "S001C001P001R001A001_rgb.avi").write_bytes(b"")
    assert "no usable sample" in error_of(tmp_path, "--skip_invalid")


def test_killed_run_goes_on(tmp_path, capsys):
    names = [f"S001C001P{subject:03d}R001A{action:03d}" for subject in range(1, 13) for action in range(1, 6)]
    write_raw(tmp_path, dict.fromkeys(names, 30))
    argv = [sys.executable, "datasets/prepare_ntu.py", "--dir", str(tmp_path / "nturgb+d_rgb"), "--size", "128"]
    argv += ["--skeletons", str(tmp_path / "nturgb+d_skeletons"), "--out", str(tmp_path / "store"), "--workers", "2"]
    journal = tmp_path / "store" / "journal.jsonl"
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "store" / "meta.json").exists()
    done = journal.read_bytes().count(b"\n")
    assert 5 < done < len(names)
    wait_for_group_to_end(process.pid)
    main(argv[2:])
    found = re.search(r"(\d+) samples are done already, (\d+) to go", capsys.readouterr().out)
    assert int(found[1]) >= done and int(found[1]) + int(found[2]) == len(names)
    source = StoreSource(tmp_path / "store")
    assert source.names == names
    assert source.verify() == len(names)


def wait_for_group_to_end(group):
    """The processes of a killed parent end by themselves."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("processes outlive their parent")


def test_tree_of_the_originals(tmp_path, capsys):
    raw(tmp_path)
    run(tmp_path, store=False)
    folder = tmp_path / "nturgb+d_rgb_32x32_30"
    assert f"wrote {folder}" in capsys.readouterr().out
    assert json.loads((folder / "prepared.json").read_text())["frames"] == LENGTHS
    for name, length in LENGTHS.items():
        path = folder / f"{name}_rgb.avi"
        assert avi_length(path) == length
        _, images = read_avi(path, lambda count: range(count))
        assert len(images) == length
        assert all(image.shape == (32, 32, 3) for image in images.values())
        assert np.allclose(grey(images.values()), [level(number) for number in range(length)], atol=3)
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.avi")}
    (folder / f"{name}_rgb.avi").unlink()
    (folder / f".{name}_rgb.avi.x1").touch()
    run(tmp_path, store=False)
    assert "2 videos are done already, 1 to go" in capsys.readouterr().out
    later = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.avi")}
    assert [other for other in times if later[other] != times[other]] == [f"{name}_rgb.avi"]
    assert not list(folder.glob(".*_rgb.avi.*"))
    run(tmp_path, "--verify", store=False)
    assert "3 samples are intact" in capsys.readouterr().out


def test_the_tree_of_a_linked_folder_lies_beside_the_link(tmp_path):
    videos, _ = raw(tmp_path / "far")
    (tmp_path / "nturgb+d_rgb").symlink_to(videos, target_is_directory=True)
    for name in LENGTHS:
        (videos / f"{name}_rgb.avi").rename(videos / f"{name}_rgb.AVI")
    run(tmp_path, store=False)
    assert json.loads((tmp_path / "nturgb+d_rgb_32x32_30" / "prepared.json").read_text())["frames"] == LENGTHS
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["nturgb+d_rgb", "nturgb+d_skeletons"]


def test_tree_with_faulty_videos(tmp_path, capsys):
    videos, _ = raw(tmp_path)
    (videos / "S001C001P001R001A001_rgb.avi").write_bytes(b"nothing")
    message = error_of(tmp_path, store=False)
    assert message.startswith("1 sample or file is invalid, first S001C001P001R001A001: video is not a readable video")
    run(tmp_path, "--skip_invalid", store=False)
    folder = tmp_path / "nturgb+d_rgb_32x32_30"
    assert sorted(path.name[:20] for path in folder.glob("*.avi")) == sorted(LENGTHS)[1:]


def test_store_from_the_tree_equals_the_frames_that_opencv_reads(tmp_path):
    raw(tmp_path)
    run(tmp_path, store=False)
    (tmp_path / "nturgb+d_rgb").rename(tmp_path / "raw")
    (tmp_path / "nturgb+d_rgb_32x32_30").rename(tmp_path / "nturgb+d_rgb")
    run(tmp_path)
    source = StoreSource(tmp_path / "store")
    for row, name in enumerate(source.names):
        _, stored = source.images(row, kept_frames)
        _, decoded = read_avi(tmp_path / "nturgb+d_rgb" / f"{name}_rgb.avi", kept_frames)
        assert stored.keys() == decoded.keys()
        for number, image in stored.items():
            assert np.abs(image.astype(int) - decoded[number]).max() <= 2


@pytest.mark.parametrize(("rate", "count", "expected"), [(15, 10, 19), (25, 20, 24), (30, 20, 20), (60, 20, 10)])
def test_frame_rate_is_brought_to_thirty(tmp_path, rate, count, expected):
    path = write_mjpg(tmp_path / "clip.avi", count, fps=rate)
    frames = scaled_frames(path, 32, 30)
    assert abs(len(frames) - expected) <= 1
    levels = [frame.to_ndarray(format="bgr24").mean() for frame in frames]
    assert levels == sorted(levels)


def test_video_without_pictures(tmp_path):
    import wave

    path = tmp_path / "sound.avi"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    with pytest.raises(BadSample, match="no video stream"):
        scaled_frames(path, 32, 30)


def test_jpeg_is_faithful():
    draw = np.random.default_rng(0)
    image = cv2.resize(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)
    back = cv2.imdecode(np.frombuffer(encode_jpeg(image, 95), dtype=np.uint8), cv2.IMREAD_COLOR)
    error = np.mean((back.astype(float) - image) ** 2)
    assert 10 * np.log10(255**2 / error) > 40


FAKE_FFMPEG = """#!{python}
import shutil, sys
assert sys.argv[sys.argv.index("-vf") + 1] == "scale=32:32,fps=30"
assert sys.argv[sys.argv.index("-crf") + 1] == "17"
source = sys.argv[sys.argv.index("-i") + 1]
if "A003" in source:
    sys.exit("cannot open this one")
shutil.copyfile(source, sys.argv[-1])
"""


def test_ffmpeg_program(tmp_path):
    raw(tmp_path)
    program = tmp_path / "ffmpeg"
    program.write_text(FAKE_FFMPEG.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    message = error_of(tmp_path, "--ffmpeg", str(program), store=False)
    assert "first S001C001P002R001A003: video makes ffmpeg fail (cannot open this one)" in message
    folder = tmp_path / "nturgb+d_rgb_32x32_30"
    name = "S001C001P001R001A001_rgb.avi"
    assert (folder / name).read_bytes() == (tmp_path / "nturgb+d_rgb" / name).read_bytes()
    assert "is not a program" in error_of(tmp_path, "--ffmpeg", str(tmp_path / "none"), store=False)


def test_verify_finds_damage(tmp_path, capsys):
    raw(tmp_path)
    assert "nothing finished to verify" in error_of(tmp_path, "--verify")
    run(tmp_path)
    run(tmp_path, "--verify")
    assert "3 samples are intact" in capsys.readouterr().out
    for name, words in (("frames.bin", "1 damaged clips"), ("skeletons.bin", "is damaged at sample")):
        path = tmp_path / "store" / name
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 255]) + content[1:])
        message = error_of(tmp_path, "--verify")
        assert str(path) in message and words in message and "prepare_ntu.py" in message
        path.write_bytes(content)


def test_verify_finds_a_cut_avi(tmp_path):
    raw(tmp_path)
    run(tmp_path, store=False)
    path = tmp_path / "nturgb+d_rgb_32x32_30" / "S001C001P001R001A001_rgb.avi"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert str(path) in error_of(tmp_path, "--verify", store=False)


def test_bodies_that_are_dropped_are_counted(tmp_path, capsys):
    _, skeletons = raw(tmp_path)
    (skeletons / "S001C001P001R001A001.skeleton").write_text(skeleton_text(6, persons=4))
    (skeletons / "S001C001P002R001A003.skeleton").write_text(skeleton_text(5, persons=3))
    run(tmp_path)
    told = "note: 2 samples with more than two bodies: kept the first two of each frame, left out 17 bodies"
    assert told in capsys.readouterr().out
    assert json.loads((tmp_path / "store" / "meta.json").read_text())["dropped_bodies"] == [2, 17]
    first = StoreSource(tmp_path / "store")
    assert "begun with bodies None, not motion" in error_of(tmp_path, "--bodies", "motion")
    run(tmp_path, "--bodies", "motion", "--out", str(tmp_path / "moving"))
    assert "kept the two that move most, left out 17 bodies" in capsys.readouterr().out
    moving = StoreSource(tmp_path / "moving")
    for row, name in enumerate(first.names):
        expected = read_skeleton(skeletons / f"{name}.skeleton", "motion").joints
        assert np.array_equal(moving.skeleton(row).joints, expected)
    assert not np.array_equal(first.skeleton(0).joints, moving.skeleton(0).joints)


def test_other_settings_are_refused(tmp_path):
    raw(tmp_path)
    run(tmp_path)
    assert "begun with size 32, not 64" in error_of(tmp_path, "--size", "64")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "33"], "--size 33"),
        (["--size", "8"], "--size 8"),
        (["--quality", "0"], "--quality 0"),
        (["--fps", "0"], "--fps 0"),
        (["--workers", "0"], "--workers 0"),
        (["--ffmpeg", "ffmpeg"], "--ffmpeg belongs"),
        (["--dir", "/nowhere"], "--dir /nowhere is not a directory"),
        (["--skeletons", "/nowhere"], "--skeletons /nowhere is not a directory"),
        (["--skeletons", ""], "give --skeletons DIR"),
        (["--bodies", "motion", "--out", ""], "--bodies motion belongs to --out"),
    ],
)
def test_impossible_flags(tmp_path, flags, words):
    raw(tmp_path)
    assert words in error_of(tmp_path, *flags)


def test_wrong_folder(tmp_path):
    _, skeletons = raw(tmp_path)
    assert "has no files SsssCcccPpppRrrrAaaa_rgb.avi" in error_of(tmp_path, "--dir", str(skeletons))


def test_defaults_are_the_originals():
    args = get_args_parser().parse_args(["--dir", "x"])
    assert (args.size, args.fps, args.out, args.skip_invalid) == (256, 30, None, False)
