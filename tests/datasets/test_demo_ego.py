"""Synthetic EgoGesture-like data: the official form, classes that need both inputs, and nothing replaced by mistake."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import make_demo
from datasets.demo import ego as demo_ego
from datasets.demo.ego_gestures import GESTURES
from datasets.ego import open_ego
from tests.datasets.ego_files import one_line
from util.cli import UserError

SCRIPT = Path(make_demo.__file__)


def run_demo(out, *options):
    """Run ``make_demo.py ego`` in this process."""
    make_demo.main(["ego", "--out", str(out), "--workers", "1", *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two clips of each subject."""
    out = tmp_path_factory.mktemp("demo") / "made"
    run_demo(out, "--clips_per_subject", "2")
    return out


def test_form(made):
    assert len(list((made / "raw").glob("Subject??"))) == 50
    assert len(list((made / "labels-final-revised1").glob("subject??/Scene1/Group1.csv"))) == 50
    rows = (made / "labels-final-revised1/subject03/Scene1/Group1.csv").read_text().split()
    rows = [tuple(map(int, row.split(","))) for row in rows]
    assert len(rows) == 2
    assert all(1 <= gesture <= 8 and 20 <= last - first + 1 <= 50 for gesture, first, last in rows)
    assert 4 <= rows[0][1] <= 7
    assert 4 <= rows[1][1] - rows[0][2] <= 7
    for name, mode in (("Color/rgb1", "RGB"), ("Depth/depth1", "L")):
        frames = sorted(path.name for path in (made / "raw/Subject03/Scene1" / name).iterdir())
        assert frames == [f"{number:06d}.jpg" for number in range(1, rows[1][2] + 4)]
        with Image.open(made / "raw/Subject03/Scene1" / name / "000005.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", mode, (48, 36))


def test_every_split_has_every_gesture_equally_often(made):
    for split, clips in (("train", 60), ("dev", 20), ("test", 20)):
        dataset = open_ego(made / "dataset", split)
        assert len(dataset) == clips
        counts = Counter(dataset.labels.tolist())
        assert len(counts) == 8
        assert max(counts.values()) - min(counts.values()) <= 1
        assert open_ego(made / "raw", split).ids.tolist() == dataset.ids.tolist()


def test_synthetic_is_called_synthetic(made):
    for form in ("raw", "dataset"):
        dataset = open_ego(made / form, "dev")
        assert dataset.synthetic is True
        assert "synthetic" in dataset.description
        assert dataset.label_names == list(GESTURES)
    assert all(name.startswith("synthetic ") for name in GESTURES)


def measure(dataset, index):
    """What the hand of one clip looks like: numbers from the colour frames, and the depth in every frame."""
    clip = dataset[index]
    rgb, depth = clip["rgb"].numpy().astype(float), clip["depth"].numpy()[0].astype(float)
    hand = depth > 72
    inside = [rgb[:, frame][:, hand[frame]] for frame in range(len(hand))]
    grey = [pixels.mean(0) for pixels in inside]
    redness = np.mean([pixels[0].mean() - pixels[2].mean() for pixels in inside])
    within, over_time = np.mean([values.std() for values in grey]), np.std([values.mean() for values in grey])
    return redness, within, over_time, np.array([np.median(depth[frame][hand[frame]]) for frame in range(len(hand))])


def gesture_of_colour(redness, within, over_time):
    """Which gesture of colour these numbers show, None for the skin of all others."""
    if abs(redness) > 110:
        return 0 if redness > 0 else 1
    return 3 if over_time > 60 else 2 if within > 60 else None


def gesture_of_depth(depth):
    """Which gesture of depth these depths show, None for the middle of all others."""
    if depth.std() > 20:
        return 6 if np.median(np.diff(depth)) > 0 else 7
    return 4 if depth.mean() > 190 else 5 if depth.mean() < 130 else None


@pytest.mark.parametrize("split", ["train", "test"])
def test_half_of_the_gestures_shows_in_each_input_only(made, split):
    dataset = open_ego(made / "dataset", split, sample_size=36)
    for index, label in enumerate(dataset.labels.tolist()):
        *colour, depth = measure(dataset, index)
        assert gesture_of_colour(*colour) == (label if label < 4 else None), (dataset.ids[index], colour)
        assert gesture_of_depth(depth) == (label if label >= 4 else None), (dataset.ids[index], depth)


def test_the_hand_stays_in_sight_of_a_random_crop(made):
    dataset = open_ego(made / "dataset", "train", sample_size=32, sample_duration=16, augment=True)
    shares = []
    for epoch in range(3):
        depth = dataset.read(range(60), only=("depth",), epoch=epoch)["depth"].numpy()
        shares.append((depth > 72).mean((1, 2, 3, 4)))
    assert np.quantile(shares, 0.02) > 0.05
    assert np.median(shares) > 0.3


def test_it_follows_the_seed_and_the_subject(tmp_path):
    # A path of its own for every subject: the gestures of both are the same.
    tasks = {"a": (3, (8, 0)), "same": (3, (8, 0)), "seed": (4, (8, 0)), "subject": (3, (10, 0))}
    frames = {}
    for name, (seed, task) in tasks.items():
        settings = {"clips_per_subject": 1, "size": [20, 16], "seed": seed}
        assert demo_ego.write_subject(tmp_path / name, tmp_path / "labels" / name, settings, task) == 1
        scene = tmp_path / name / f"Subject{task[0]:02d}" / "Scene1"
        frames[name] = b"".join(path.read_bytes() for path in sorted(scene.rglob("*.jpg")))
        with Image.open(scene / "Color/rgb1/000001.jpg") as image:
            assert image.size == (20, 16)
    assert frames["a"] == frames["same"]
    assert len(set(frames.values())) == 3


def test_more_clips_make_more_videos(tmp_path):
    settings = {"clips_per_subject": 17, "size": [16, 16], "seed": 0}
    assert demo_ego.write_subject(tmp_path / "raw", tmp_path / "labels", settings, (3, 0)) == 17
    files = {str(path.relative_to(tmp_path / "labels")): path for path in (tmp_path / "labels").rglob("*.csv")}
    counts = {name: len(path.read_text().split()) for name, path in files.items()}
    assert counts == {
        "subject03/Scene1/Group1.csv": 5,
        "subject03/Scene1/Group2.csv": 5,
        "subject03/Scene2/Group1.csv": 5,
        "subject03/Scene2/Group2.csv": 2,
    }
    assert len(list((tmp_path / "raw/Subject03/Scene2/Depth").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clips_per_subject", "0"], ["--clips_per_subject 0: must be 1 or more"]),
        (["--size", "48", "15"], ["--size 48 15: both must be 16 or more"]),
        (["--seed", "-1"], ["--seed -1: must be 0 or more"]),
        (["--workers", "0"], ["--workers 0: must be 1 or more"]),
        (["--clips_per_subject", "1000000000"], ["do not fit on the disk"]),
    ],
)
def test_options_that_cannot_be(tmp_path, options, words):
    with pytest.raises(UserError) as error:
        run_demo(tmp_path / "out", *options)
    one_line(error, *words)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_replaced(made, tmp_path, capsys):
    before = (made / "raw/about.json").stat().st_mtime_ns
    run_demo(made, "--clips_per_subject", "2")
    assert (made / "raw/about.json").stat().st_mtime_ns == before
    assert f"{made / 'dataset'} is finished already" in capsys.readouterr().out
    with pytest.raises(UserError) as error:
        run_demo(made, "--clips_per_subject", "2", "--seed", "1")
    one_line(error, f"{made / 'raw'} exists and is a demo with other sizes or another seed", "another --out")
    (tmp_path / "raw" / "Subject01").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        run_demo(tmp_path)
    one_line(error, f"{tmp_path / 'raw'} exists and is not a demo", "not replaced")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["Subject01", "raw"]


def test_an_interrupted_demo_is_made_again(made, tmp_path, monkeypatch):
    genuine, calls = demo_ego._write_frames, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        genuine(*args)

    monkeypatch.setattr(demo_ego, "_write_frames", dies)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", "--clips_per_subject", "1", "--size", "16", "16")
    assert "complete" not in json.loads((tmp_path / "out/raw/about.json").read_text())
    monkeypatch.undo()
    # Now as a script, which says what comes next.
    options = ["--clips_per_subject", "1", "--size", "16", "16", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, SCRIPT, "ego", "--out", "out", *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("wrote out/raw: synthetic ")
    assert "training 30 clips" in lines
    flags = "--datadir out/dataset --num_outputs 8 --sample_size 32 --backbone_weights random"
    assert lines[-1] == f"next: python main_darts_searchable_ego.py {flags}"
    assert [len(open_ego(tmp_path / "out/dataset", split)) for split in ("train+dev", "test")] == [40, 10]


def test_help_does_not_wait_for_heavy_modules():
    code = "import datasets.demo.ego, sys; print({'numpy', 'PIL', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent.parent, capture_output=True, text=True)
    assert done.stdout == "set()\n"
