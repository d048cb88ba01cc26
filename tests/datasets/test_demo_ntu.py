"""The NTU demo: official file forms, reproducible, and each half of the classes in one modality alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.demo import ntu as demo_ntu
from datasets.demo import ntu_clips as scenes
from datasets.demo.ntu import list_clips
from datasets.make_demo import main
from datasets.ntu import SPLITS, open_ntu
from datasets.ntu.names import missing_skeletons, parse_id
from datasets.ntu.scaling import scaled_frames
from datasets.ntu.skeleton import parse_skeleton
from util.cli import UserError

ROOT = Path(__file__).resolve().parents[2]


def run(out, *flags):
    main(["ntu", "--out", str(out), "--workers", "1", "--subjects", "3", "--repetitions", "1", *flags])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A demo of three persons."""
    folder = tmp_path_factory.mktemp("demo") / "ntu"
    run(folder)
    return folder


@pytest.fixture
def keep_clips(monkeypatch):
    """A function that lets a demo have those clips alone of which a condition holds."""

    def keep(condition):
        monkeypatch.setattr(
            demo_ntu, "list_clips", lambda *args: [clip for clip in list_clips(*args) if condition(clip)]
        )

    return keep


def error_of(action, *words):
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    for word in words:
        assert str(word) in str(error.value)


def test_files_have_the_official_form(made):
    ids = sorted(path.name[:20] for path in (made / "nturgb+d_rgb").iterdir())
    assert ids == sorted(path.stem for path in (made / "nturgb+d_skeletons").iterdir())
    assert {(name.subject, name.action) for name in map(parse_id, ids)} == {
        (subject, action) for subject in (1, 2, 3) for action in range(1, 9)
    }
    assert len(ids) == 24
    for name in ids[:3]:
        frames = scaled_frames(made / "nturgb+d_rgb" / f"{name}_rgb.avi", 32, 30)
        skeleton = parse_skeleton((made / "nturgb+d_skeletons" / f"{name}.skeleton").read_text())
        assert 40 <= len(frames) == len(skeleton.counts) <= 70


def test_prepared_data_open_as_every_split(made):
    for split in SPLITS:
        dataset = open_ntu(made / "dataset", split)
        assert dataset.synthetic and "synthetic" in dataset.description
        assert dataset.label_names == list(scenes.CLASSES)
        batch = dataset.read(range(len(dataset)))
        persons = 2 if split == "train+dev" else 1
        assert batch["label"].tolist() == list(range(8)) * persons
        assert batch["rgb"].shape == (8 * persons, 8, 32, 32, 3)
        # The last slot is empty by the original's way of sampling.
        assert batch["rgb"][:, :7].any() and not batch["rgb"][:, 7].any()


def test_same_seed_same_data(tmp_path, keep_clips):
    keep_clips(lambda clip: clip.action in (1, 5))
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        run(tmp_path / name, "--seed", str(seed))
    one, again, other = (
        open_ntu(tmp_path / name / "dataset", "train").fingerprint for name in ("one", "again", "other")
    )
    assert one == again != other


def test_a_demo_that_was_interrupted_goes_on(tmp_path, keep_clips, capsys):
    keep_clips(lambda clip: clip.action < 3)
    run(tmp_path / "ntu", "--size", "16")
    name = "S001C002P001R001A002"
    kept = (tmp_path / "ntu" / "nturgb+d_rgb" / "S001C002P001R001A001_rgb.avi").stat().st_mtime_ns
    skeleton = tmp_path / "ntu" / "nturgb+d_skeletons" / f"{name}.skeleton"
    content = skeleton.read_bytes()
    skeleton.unlink()
    (tmp_path / "ntu" / "dataset" / "meta.json").unlink()
    run(tmp_path / "ntu", "--size", "16")
    assert skeleton.read_bytes() == content
    assert (tmp_path / "ntu" / "nturgb+d_rgb" / "S001C002P001R001A001_rgb.avi").stat().st_mtime_ns == kept
    assert "6 samples are done already, 0 to go" in capsys.readouterr().out


def test_nothing_else_is_replaced(made, tmp_path):
    error_of(lambda: run(made, "--seed", "5"), made, "seed 0", "seed 5", "choose another --out")
    (tmp_path / "nturgb+d_rgb").mkdir()
    error_of(lambda: run(tmp_path), tmp_path, "not a demo", "choose another --out")


def test_default_ids_are_unique_and_some_are_officially_missing():
    ids = [clip.id for clip in list_clips(40, 2, 0, "x")]
    assert len(set(ids)) == len(ids) == 640
    assert 0 < len(missing_skeletons() & set(ids)) < 10


def test_officially_missing_skeletons_are_empty(tmp_path, keep_clips, capsys):
    keep_clips(lambda clip: clip.action == 1 or (clip.subject, clip.repetition) == (5, 2))
    run(tmp_path / "ntu", "--subjects", "5", "--repetitions", "2", "--size", "16")
    missing = json.loads((tmp_path / "ntu" / "dataset" / "meta.json").read_text())["missing_skeletons"]
    assert missing == [f"S001C003P005R002A00{action}" for action in (4, 5, 6)]
    assert (tmp_path / "ntu" / "nturgb+d_skeletons" / f"{missing[0]}.skeleton").read_text() == "0\n"
    assert "left out 3 samples" in capsys.readouterr().out


def travel(action, draw):
    """How far each joint moves during a clip: (25,)."""
    joints = scenes.figure(action, 60, scenes.draw_subject(draw), draw)
    return (joints - joints[:, :1]).std(axis=0).sum(axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_motions_move_their_limb_alone(seed):
    draw = np.random.default_rng(seed)
    for action, hand in {0: 11, 1: 7, 2: 18, 3: 3}.items():
        moved = travel(action, draw)
        others = [joint for joint in (11, 7, 18) if joint != hand and not (action == 3 and joint != 18)]
        assert moved[hand] > 0.2 > 2 * max(moved[others])
    for action in (4, 5, 6, 7):
        assert travel(action, draw).max() < 0.15


def coloured(pictures):
    """Share of strongly coloured pixels."""
    spread = pictures.max(axis=-1).astype(int) - pictures.min(axis=-1)
    return (spread > 110).mean()


@pytest.mark.parametrize("seed", range(5))
def test_shapes_have_a_colour_and_a_direction(seed):
    draw = np.random.default_rng(seed)
    for action in range(8):
        pictures = scenes.scene(action, 50, 96, 54, scenes.draw_subject(draw), draw, extra=seed % 2 == 0)
        assert (pictures.shape, pictures.dtype) == ((50, 54, 96, 3), np.uint8)
        if action < 4:
            assert coloured(pictures) < 0.001
            continue
        spread = pictures.max(axis=-1).astype(int) - pictures.min(axis=-1) > 110
        assert 0.02 < spread.mean() < 0.3
        first, last = (np.argwhere(spread[number]).mean(axis=0) for number in (5, 44))
        axis, sign = {4: (1, 1), 5: (1, -1), 6: (0, -1), 7: (0, 1)}[action]
        assert sign * (last - first)[axis] > 10


def test_two_persons_in_the_text():
    draw = np.random.default_rng(0)
    one, two = (scenes.figure(0, 3, scenes.draw_subject(draw), draw) for _ in range(2))
    skeleton = parse_skeleton(scenes.skeleton_text([[one[0]], [one[1], two[1]], []]))
    assert skeleton.counts.tolist() == [1, 2, 0]
    assert np.allclose(skeleton.joints, [one[0], one[1], two[1]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--subjects", "2"], "--subjects 2"),
        (["--subjects", "41"], "--subjects 41"),
        (["--repetitions", "0"], "--repetitions 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--size", "31"], "--size 31"),
        (["--workers", "0"], "--workers 0"),
    ],
)
def test_impossible_flags(tmp_path, flags, words):
    error_of(lambda: run(tmp_path / "ntu", *flags), words)
    assert not (tmp_path / "ntu").exists()


def test_help_needs_no_heavy_modules():
    code = (
        "import datasets.demo.ntu as demo, datasets.prepare_ntu as prepare, sys; prepare.get_args_parser();"
        "print({'numpy', 'cv2', 'av', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n"
