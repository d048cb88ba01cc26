"""A run that is interrupted at any moment and resumed ends exactly like one that was not."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

import engine.run
import main_darts_found_mmimdb as found
import main_darts_searchable_mmimdb as search
from engine.updates import OptimizerStep
from tests.narrow_backbones import run_narrowly
from tests.processes import start
from util.checkpoint import load_checkpoint
from util.cli import UserError
from util.files import read_json, write_json

pytestmark = pytest.mark.usefixtures("narrow_backbones")

SIZES = ["--C", "8", "--L", "4", "--epochs", "3"]


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test may catch it."""


def comparable(folder):
    """What must be equal: result without times and places, and every tensor of the checkpoints."""
    result = read_json(folder / "result.json")
    for name in ("seconds", "peak_memory_mb", "latency", "arguments", "folder", "run", "checksum"):
        del result[name]
    log = [
        {k: v for k, v in record.items() if k != "seconds"} for record in engine.run.Run(folder, None, None).records()
    ]
    return result, log, load_checkpoint(folder / "best.pth"), load_checkpoint(folder / "last.pth")["objects"]


def assert_same(first, second):
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
    """An uninterrupted search and found training."""
    out = tmp_path_factory.mktemp("whole")
    searched = search.main([*films.flags, *SIZES, "--out_dir", str(out)])["folder"]
    trained = found.main([*films.flags, *SIZES, "--freeze_backbones", "--search_exp_dir", searched])["folder"]
    return Path(searched), Path(trained)


@pytest.mark.parametrize("step", [6, 13, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 8, 20))])
def test_search_killed_at_a_step(films, whole, tmp_path, monkeypatch, step):
    """Killed within a weight or an architecture step of the first, second or third epoch (7 steps each)."""
    original, calls = OptimizerStep.apply, []

    def apply_or_die(self):
        calls.append(1)
        if len(calls) == step:
            raise Killed
        return original(self)

    monkeypatch.setattr(OptimizerStep, "apply", apply_or_die)
    with pytest.raises(Killed):
        search.main([*films.flags, *SIZES, "--out_dir", str(tmp_path)])
    monkeypatch.undo()
    (folder,) = tmp_path.iterdir()
    torch.manual_seed(999)  # what the new process happens to hold must not matter
    search.main(["--resume", str(folder)])
    assert_same(comparable(folder), comparable(whole[0]))


@pytest.mark.parametrize("write", [2, 3, *(pytest.param(write, marks=pytest.mark.slow) for write in (1, 4))])
def test_training_killed_while_saving(films, whole, tmp_path, monkeypatch, write):
    """Killed before best.pth or last.pth of an epoch is in place: the epoch is done again."""
    original, calls = engine.run.save_checkpoint, []

    def save_or_die(*args):
        calls.append(1)
        if len(calls) == write:
            raise Killed
        original(*args)

    monkeypatch.setattr(engine.run, "save_checkpoint", save_or_die)
    flags = ["--freeze_backbones", "--search_exp_dir", str(whole[0]), "--save", f"killed{write}"]
    with pytest.raises(Killed):
        found.main([*films.flags, *SIZES, *flags])
    monkeypatch.undo()
    (folder,) = whole[0].glob(f"eval-killed{write}-*")
    found.main(["--resume", str(folder)])
    assert_same(comparable(folder), comparable(whole[1]))


def test_kill_9(films, whole, tmp_path):
    """The real thing, twice in one run, at random moments."""
    log = tmp_path / "log.txt"
    flags = [*films.flags, *SIZES, "--out_dir", str(tmp_path / "runs")]
    kills = 0
    for _ in range(2):
        log.write_text("")
        process = start(run_narrowly, search.main, flags, log=log)
        if wait_for(lambda p=process: "features of image, dev" in log.read_text() or not p.is_alive()):
            time.sleep(random.uniform(0, 0.4) if kills else 0)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        (folder,) = (tmp_path / "runs").iterdir()
        flags = ["--resume", str(folder)]
    torch.manual_seed(999)
    search.main(flags)
    assert_same(comparable(folder), comparable(whole[0]))
    if not kills:
        pytest.skip("the run ended before this process got a core to kill it")


def wait_for(condition, seconds=90):
    """Wait until ``condition()`` holds; return whether it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_resuming_a_finished_run_changes_nothing(whole):
    before = comparable(whole[0])
    search.main(["--resume", str(whole[0])])
    assert_same(comparable(whole[0]), before)


def test_more_epochs_continue_a_finished_run(films, tmp_path):
    """--epochs is free on resume: 1 epoch and 2 more are 3."""
    short = search.main([*films.flags, *SIZES, "--epochs", "1", "--out_dir", str(tmp_path)])["folder"]
    longer = search.main(["--resume", short, "--epochs", "3"])
    straight = search.main([*films.flags, *SIZES, "--out_dir", str(tmp_path)])
    assert longer["metrics"] == straight["metrics"] and longer["epochs"] == 3


def test_a_training_keeps_its_genotype_when_its_search_changes_or_moves(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "changed")
    genotype = read_json(tmp_path / "changed" / "genotype.json")
    genotype["steps"][0]["inner_steps"] = ["Sum" if genotype["steps"][0]["inner_steps"] != ["Sum"] else "LinearGLU"]
    write_json(tmp_path / "changed" / "genotype.json", genotype)
    run = tmp_path / "changed" / whole[1].name
    kept = read_json(run / "genotype.json")
    for search_run in (tmp_path / "changed", tmp_path / "gone"):
        edit_arguments(run, search_exp_dir=str(search_run))
        result = found.main(["--resume", str(run)])
        assert result["genotype"] == kept and result["architecture"]["search_id"]
    with pytest.raises(UserError, match="the genotype differs from what the run started with"):
        found.main(["--resume", str(run), "--search_exp_dir", str(tmp_path / "changed")])


def test_data_may_move_but_not_change(films, whole, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(whole[0], run)
    shutil.copytree(films.folder, moved)
    search.main(["--resume", str(run), "--datadir", str(moved), "--num_workers", "1"])
    assert_same(comparable(run)[1:], comparable(whole[0])[1:])
    assert read_json(run / "args.json")["datadir"] == str(moved)
    meta = read_json(moved / "meta.json")
    edit(moved / "meta.json", meta["splits"]["dev"]["fingerprint"], "0123456789abcdef")
    with pytest.raises(UserError, match=r"the dev data differs from what the run started with; .* with --datadir"):
        search.main(["--resume", str(run)])


def test_resume_refuses_other_settings(whole):
    about = [(whole[0] / name).read_text() for name in ("run.json", "README.md")]
    with pytest.raises(UserError, match=r"--epochs 1: .* has already done"):
        search.main(["--resume", str(whole[0]), "--epochs", "1"])
    assert [(whole[0] / name).read_text() for name in ("run.json", "README.md")] == about
    with pytest.raises(UserError, match=r"--batchsize 16 \(was 8\)"):
        search.main(["--resume", str(whole[0]), "--batchsize", "16"])
    with pytest.raises(UserError, match="another script"):
        found.main(["--resume", str(whole[0])])
    with pytest.raises(UserError, match=r"no args\.json"):
        search.main(["--resume", "nowhere"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda run: edit(run / "args.json", '"C": 8', '"C": 6'),
            r"args\.json was changed after .*C is 6, but the run used 8",
        ),
        (lambda run: edit(run / "args.json", '"batchsize": 8', '"batchsize": 0'), r"args\.json: batchsize is 0"),
        (lambda run: (run / "args.json").write_text("[]"), r"does not hold the arguments"),
        (lambda run: (run / "log.jsonl").write_text("garbage\n"), r"log\.jsonl is damaged"),
        (lambda run: (run / "log.jsonl").unlink(), r"lacks epoch"),
        (lambda run: (run / "last.pth").write_bytes(b"junk"), r"last\.pth is not a readable checkpoint"),
        (lambda run: (run / "best.pth").write_bytes(b"junk"), r"best\.pth is not a readable checkpoint"),
        (lambda run: (run / "best.pth").unlink(), r"best\.pth does not exist"),
    ],
)
def test_a_damaged_run_folder_is_named(whole, tmp_path, damage, message):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    damage(folder)
    about = [(folder / name).read_text() for name in ("run.json", "README.md")]
    with pytest.raises(UserError, match=message) as error:
        search.main(["--resume", str(folder)])
    assert "\n" not in str(error.value)
    if "lacks" not in message:  # which is found at the end
        assert [(folder / name).read_text() for name in ("run.json", "README.md")] == about


def edit_arguments(run, **changes):
    write_json(run / "args.json", {**read_json(run / "args.json"), **changes})


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
