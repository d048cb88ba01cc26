"""Packing EgoGesture: the files' own bytes, what is done stays done, and what cannot be read is named."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from datasets import prepare_ego
from datasets.ego import open_ego
from datasets.ego import pack as ego_pack
from datasets.prepare_ego import prepare
from datasets.storage.frames import FrameStore
from tests.datasets.ego_files import CLIPS, FRAMES, clips_of, frame_path, one_line, write_annotation, write_tree
from util.cli import UserError

SCRIPT = Path(prepare_ego.__file__)
COUNTS = {"training": 4, "validation": 2, "testing": 1}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("ego") / "raw")


@pytest.fixture
def raw(tree, tmp_path):
    """A copy of the official tree that a test may damage."""
    return shutil.copytree(tree, tmp_path / "raw")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_packed(raw, out, names=None):
    """The store holds the files of each clip, byte for byte, and nothing else."""
    for field in ("rgb", "depth"):
        store, rows = FrameStore(out / field, "remedy"), clips_of("train+dev") + clips_of("test")
        rows = [row for row in rows if names is None or row[0] in names]
        assert sorted(store.names) == sorted(row[0] for row in rows)
        for name, colour, _, start, length in rows:
            clip = store.row(name)
            assert store.length(clip) == length
            assert store.numbers(clip).tolist() == list(range(start, start + length))
            for position in range(length):
                path = frame_path(raw, colour, field, start + position)
                assert store.jpeg(clip, position).tobytes() == path.read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bytes_of_the_files_are_packed(tree, tmp_path, workers, capsys):
    assert prepare(tree, tmp_path / "out", workers=workers) == COUNTS
    assert_packed(tree, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "training 4 clips\nvalidation 2 clips\ntesting 1 clips\n" in printed
    assert "note: 7 clips, the official data have 24,161 (14,416 / 4,768 / 4,977)" in printed
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["clips"], meta["skipped"]) == (COUNTS, [])
    assert (meta["description"], meta["synthetic"]) == ("EgoGesture", False)
    annotation = (tree / "egogestureall_but_None.json").read_text()
    assert (tmp_path / "out" / meta["annotation"]).read_text() == annotation
    # Few files, however many frames.
    assert len(contents(tmp_path / "out")) < 30


def test_official_counts_are_recognised(capsys, monkeypatch, tree):
    monkeypatch.setattr("datasets.ego.annotation.OFFICIAL_COUNTS", COUNTS)
    assert prepare(tree, workers=1) == COUNTS
    assert "these are all 7 clips of the official data" in capsys.readouterr().out


def test_the_same_command_again_finishes_at_once(tree, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    prepare(tree, out, workers=1)
    before = contents(out)
    monkeypatch.delattr(ego_pack, "load_clip")
    assert prepare(tree, out, workers=1) == COUNTS
    assert f"{out} is finished already" in capsys.readouterr().out
    assert contents(out) == before


def test_checking_without_packing(raw, capsys):
    before = contents(raw)
    assert prepare(raw, workers=1) == COUNTS
    path = raw / "Subject01/Scene2/Depth/depth1/000050.jpg"
    path.write_bytes(path.read_bytes()[:100])
    # Without --verify a frame only has to exist.
    assert prepare(raw, workers=1) == COUNTS
    with pytest.raises(UserError) as error:
        prepare(raw, workers=1, verify=True)
    one_line(error, "1 clip cannot be used", CLIPS[5][0], str(path), "--skip_invalid")
    assert prepare(raw, workers=2, verify=True, skip_invalid=True) == COUNTS | {"validation": 1}
    assert f"note: left out 1 clips:\n  {CLIPS[5][0]}: {path} cannot be read" in capsys.readouterr().out
    path.write_bytes(before[str(path.relative_to(raw))])
    assert contents(raw) == before


DAMAGE = {
    "gone": (lambda path: path.unlink(), "is missing (1 of 20 frames)"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-80]), "truncated"),
    "text": (lambda path: path.write_bytes(b"no image"), "not a readable image"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable image"),
    "size": (lambda path: Image.new("L", (20, 26)).save(path), "has 20x26 pixels, the clip's first frame has 26x20"),
    "folder": (lambda path: shutil.rmtree(path.parent), "is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("field", ["rgb", "depth"])
def test_what_cannot_be_read_is_named_and_the_rest_kept(raw, tmp_path, damage, field, capsys):
    change, words = DAMAGE[damage]
    path, out = frame_path(raw, "Subject03/Scene1/Color/rgb2", field, 39), tmp_path / "out"
    write_annotation(raw, CLIPS[:3] + CLIPS[4:])
    good = path.read_bytes()
    others = {file: file.read_bytes() for file in path.parent.iterdir()}
    change(path)
    with pytest.raises(UserError) as error:
        prepare(raw, out, workers=1)
    one_line(error, f"1 of 6 clips cannot be packed, first {CLIPS[2][0]}: ", words, str(out / "left_out.txt"))
    one_line(error, "the others are kept", "--skip_invalid")
    assert (out / "left_out.txt").read_text().startswith(f"{CLIPS[2][0]}: ")
    assert not (out / "meta.json").exists()
    with pytest.raises(UserError) as error:
        open_ego(out, "train")
    one_line(error, "is not finished")
    kept = (out / "rgb" / "frames.bin").read_bytes()
    assert prepare(raw, out, workers=1, skip_invalid=True) == COUNTS | {"training": 2}
    assert f"note: left out 1 clips:\n  {CLIPS[2][0]}: " in capsys.readouterr().out
    assert (out / "rgb" / "frames.bin").read_bytes() == kept
    assert_packed(raw, out, [CLIPS[0][0], CLIPS[1][0], *(clip[0] for clip in CLIPS[4:])])
    dataset = open_ego(out, "train")
    assert len(dataset) == 2
    assert [fault.name for fault in dataset.skipped] == [CLIPS[2][0]]
    # The same flags again are content with that; without --skip_invalid the clip is tried once more.
    prepare(raw, out, workers=1, skip_invalid=True)
    assert "is finished already" in capsys.readouterr().out
    with pytest.raises(UserError):
        prepare(raw, out, workers=1)
    assert len(open_ego(out, "train")) == 2
    if path.is_dir():
        path.rmdir()
    path.parent.mkdir(exist_ok=True)
    for file, data in others.items():
        file.write_bytes(data)
    path.write_bytes(good)
    assert prepare(raw, out, workers=1) == COUNTS | {"training": 3}
    assert len(open_ego(out, "train")) == 3
    assert not (out / "left_out.txt").exists()


def test_faults_of_the_annotation_are_left_out_too(raw, tmp_path):
    clips = [*CLIPS[:4], ("Subject01/Scene2/Color/rgb1_8", "validation", "jump", 1, 2), *CLIPS[5:]]
    write_annotation(raw, clips)
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "out", workers=1)
    one_line(error, "1 of 7 clips cannot be packed", "label 'jump'")
    assert prepare(raw, tmp_path / "out", workers=1, skip_invalid=True) == COUNTS | {"validation": 1}
    # What the preparation was told to leave out is no fault when training starts.
    assert len(open_ego(tmp_path / "out", "dev")) == 1


def test_nothing_can_be_packed(raw, tmp_path):
    for path in raw.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "out", workers=1, skip_invalid=True)
    one_line(error, "none of the 7 clips can be packed", CLIPS[0][0])
    assert not (tmp_path / "out" / "meta.json").exists()


def test_another_annotation_needs_another_folder(raw, tmp_path):
    out = tmp_path / "out"
    prepare(raw, out, workers=1)
    write_annotation(raw, CLIPS[:6])
    with pytest.raises(UserError) as error:
        prepare(raw, out, workers=1)
    one_line(error, f"{out / 'rgb'} was begun with annotation", "choose another folder")
    # The finished data stay as they are.
    assert len(open_ego(out, "test")) == 1


def test_verify_finds_changed_bytes(tree, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(tree, out, workers=1, verify=True)
    assert "every image in" in capsys.readouterr().out
    prepare(tree, out, workers=1, verify=True)
    assert "every image in" in capsys.readouterr().out
    with open(out / "depth" / "frames.bin", "r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    prepare(tree, out, workers=1)
    with pytest.raises(UserError) as error:
        prepare(tree, out, workers=1, verify=True)
    one_line(error, str(out / "depth"), "1 damaged clips", "delete")


def test_annotation_from_label_files(raw, tmp_path, capsys):
    (raw / "egogestureall_but_None.json").unlink()
    labels, names, out = tmp_path / "labels", tmp_path / "names.txt", tmp_path / "out"
    names.write_text("1 wave\n2 knock\n3 point\n")
    for place, text in {"subject03": "1,1,5\n3,20,39\n", "subject01": "2,3,42\n", "subject02": "3,1,60\n"}.items():
        folder = labels / place / ("Scene2" if place == "subject01" else "Scene1")
        folder.mkdir(parents=True)
        (folder / "Group1.csv").write_text(text)
    counts = prepare(raw, out, labels=labels, class_names=names, workers=1)
    assert counts == {"training": 2, "validation": 1, "testing": 1}
    assert "annotation of 4 clips and 3 classes" in capsys.readouterr().out
    train = open_ego(raw, "train")
    assert train.ids.tolist() == ["Subject03/Scene1/Color/rgb1_3", "Subject03/Scene1/Color/rgb1_4"]
    assert train.labels.tolist() == open_ego(out, "train").labels.tolist() == [0, 2]
    assert prepare(raw, out, labels=labels, class_names=names, workers=1) == counts
    assert "is finished already" in capsys.readouterr().out
    # A row that makes no sense.
    (labels / "subject02" / "Scene1" / "Group1.csv").write_text("3,1,60\n9,1,60\n")
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "new", labels=labels, class_names=names, annotation=tmp_path / "new.json", workers=1)
    one_line(error, f"--labels {labels}", "class 9 is not in 1..3", "--skip_invalid")
    assert not (tmp_path / "new.json").exists()
    options = {"annotation": tmp_path / "new.json", "skip_invalid": True, "workers": 1}
    assert prepare(raw, tmp_path / "new", labels=labels, class_names=names, **options) == counts
    assert "class 9 is not in 1..3" in capsys.readouterr().out
    assert "class 9 is not in 1..3" in (tmp_path / "new" / "left_out.txt").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, ["--workers 0: must be 1 or more"]),
        ({"class_names": "names.txt"}, ["--class_names belongs to --labels"]),
        ({"annotation": "nowhere.json"}, ["no annotation nowhere.json", "--labels labels-final-revised1"]),
        ({"labels": "nowhere"}, ["--labels nowhere contains no subjectXX"]),
    ],
)
def test_options_that_cannot_be(tree, tmp_path, options, words):
    with pytest.raises(UserError) as error:
        prepare(tree, tmp_path / "out", **options)
    one_line(error, *words)
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be(raw, tmp_path):
    with pytest.raises(UserError) as error:
        prepare(tmp_path / "nowhere", tmp_path / "out")
    one_line(error, f"--dir {tmp_path / 'nowhere'} contains no SubjectXX folders")
    with pytest.raises(UserError) as error:
        prepare(raw, raw)
    one_line(error, f"--out {raw} is the folder with the frames")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "file")
    one_line(error, "is a file; give a folder")
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "file" / "out", workers=1)
    one_line(error, "cannot write")
    assert (tmp_path / "file").read_text() == "mine"


# Interruptions


def children_of(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def lines_in(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_when_growing(command, journal):
    """Start the command and kill it after some more clips; returns whether it was alive then."""
    before = lines_in(journal)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and lines_in(journal) < before + 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = children_of(process) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    # Nobody is left behind to hold memory or files.
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    return killed


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_killed_run_goes_on_where_it_stopped(raw, tmp_path):
    clips = [(f"Subject03/Scene1/Color/rgb1_{i}", "training", "wave", 1 + i % 20, FRAMES - i % 10) for i in range(150)]
    write_annotation(raw, [*clips, *CLIPS[4:]])
    out = tmp_path / "out"
    journal = out / "rgb" / "journal.jsonl"
    command = [sys.executable, str(SCRIPT), "--dir", str(raw), "--out", str(out), "--workers"]
    assert kill_when_growing([*command, "2"], journal)
    after_one = lines_in(journal)
    assert kill_when_growing([*command, "1"], journal)
    assert after_one < lines_in(journal) < 153
    assert not (out / "meta.json").exists()
    done = subprocess.run([*command, "2"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "training 150 clips" in done.stdout
    prepare(raw, tmp_path / "whole", workers=1)
    for split in ("train", "test"):
        one, other = (open_ego(folder, split) for folder in (out, tmp_path / "whole"))
        assert one.ids.tolist() == other.ids.tolist()
        assert one.fingerprint == other.fingerprint
    for field in ("rgb", "depth"):
        # The fingerprints are made of checksums; these are true, and no clip is there twice.
        store = FrameStore(out / field, "remedy")
        store.verify()
        assert (out / field / "frames.bin").stat().st_size == (tmp_path / "whole" / field / "frames.bin").stat().st_size


def test_a_clip_that_is_in_one_store_only(tree, tmp_path, monkeypatch):
    genuine, calls = ego_pack.FrameStoreWriter.add, []

    def dies(self, *args):
        calls.append(args[0])
        if len(calls) == 4:
            raise KeyboardInterrupt
        genuine(self, *args)

    monkeypatch.setattr(ego_pack.FrameStoreWriter, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(tree, tmp_path / "out", workers=1)
    monkeypatch.undo()
    assert [lines_in(tmp_path / "out" / field / "journal.jsonl") for field in ("rgb", "depth")] == [2, 1]
    prepare(tree, tmp_path / "out", workers=1)
    assert_packed(tree, tmp_path / "out")


def test_two_runs_at_once(tree, tmp_path):
    digest = ego_pack.file_hash(tree / "egogestureall_but_None.json")
    settings = {"data": "EgoGesture", "frames": "rgb", "annotation": digest}
    with ego_pack.FrameStoreWriter(tmp_path / "out" / "rgb", settings), pytest.raises(UserError) as error:
        prepare(tree, tmp_path / "out", workers=1)
    one_line(error, "another run is writing")


def test_a_process_that_is_killed_over_a_clip(tree, tmp_path, monkeypatch):
    def dies(function, tasks, workers):
        return ((task, None if task.name == CLIPS[2][0] else function(task)) for task in tasks)

    monkeypatch.setattr(ego_pack, "map_tasks", dies)
    for options in ({"out": tmp_path / "out"}, {"verify": True}):
        with pytest.raises(UserError) as error:
            prepare(tree, workers=2, **options)
        one_line(error, "1 ", f"{CLIPS[2][0]}: the process that read it was killed", "--workers 1", "--skip_invalid")


# The script


def test_script_from_any_folder(tree, tmp_path):
    def run(*args):
        return subprocess.run([sys.executable, SCRIPT, *args], cwd=tmp_path, capture_output=True, text=True)

    done = run("--dir", str(tree), "--out", "packed", "--workers", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote packed\ntraining 4 clips\n")
    failed = run("--dir", "absent", "--out", "b")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: --dir absent contains no SubjectXX folders")
    assert not (tmp_path / "b").exists()


def test_help_does_not_wait_for_heavy_modules():
    code = "import datasets.prepare_ego as m, sys; m.get_args_parser(); print({'numpy', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent.parent, capture_output=True, text=True)
    assert done.stdout == "set()\n"
