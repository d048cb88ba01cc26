"""What `tools/compare_runs.py` says of two runs, on small run folders made by hand, and of scripts that fail."""

import json
import math
import subprocess
from functools import partial

import pytest
import torch

from tools import compare_runs
from tools.compare_runs import DIFFERENT, FAILED, SAME, Row, checkout
from tools.run_differences import compare, difference, read_mapping, read_run, rename
from tools.script_server import ScriptServer
from tools.tiny_runs import TASKS, TinyTask
from util.cli import UserError


def make_run(folder, losses=(0.5, 0.25), weight=(1.0, 2.0), name="net.weight", **more):
    """A run folder of two epochs, with the entries that scripts write."""
    folder.mkdir(parents=True)
    records = [
        {"epoch": i, "train": {"loss": loss}, "genotype": {"enc": [["self_att_64"]]}, "seconds": 1.5, "warnings": []}
        for i, loss in enumerate(losses)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "args.json").write_text(json.dumps({"out_dir": str(folder)}))
    (folder / "genotype.json").write_text(json.dumps({"enc": [["self_att_64"]]}))
    result = {"metrics": {"test": {"accuracy": 0.75}}, "folder": str(folder), "seconds": 3, "git_commit": folder.name}
    (folder / "result.json").write_text(json.dumps({**result, **more}))
    net = {name: torch.tensor(weight), "steps": torch.tensor(3)}
    torch.save({"net": net, "epoch": 1}, folder / "best.pth")
    state = {"weights": {"optimizer": {"state": {0: {"exp_avg": torch.tensor(weight) / 10}}}}}
    torch.save({"epoch": 2, "seconds": 1.0, "objects": state, "random": [torch.rand(2)]}, folder / "last.pth")
    return folder


def compared(tmp_path, exact=True, rules=(), tolerance=1e-4, **changes):
    old, new = (read_run(make_run(tmp_path / side, **kw)) for side, kw in (("old", {}), ("new", changes)))
    return compare(rename(old, rules), new, exact=exact, tolerance=tolerance)


def test_equal_runs(tmp_path):
    found = compared(tmp_path)
    assert found.same and found.largest == 0 and found.first is None and not found.notes
    # Two epochs of three values, a genotype, a score, two tensors and an epoch, one tensor and an epoch.
    assert found.values == 6 + 1 + 1 + 3 + 2


def test_a_loss_differs(tmp_path):
    found = compared(tmp_path, exact=False, losses=(0.5, 0.26))
    assert not found.same and found.differing == 1 and found.largest == pytest.approx(0.01 / 0.26)
    assert found.first.startswith("log.jsonl/1/train/loss: 0.25 -> 0.26 ")


def test_a_difference_within_the_tolerance(tmp_path):
    found = compared(tmp_path, exact=False, losses=(0.5, 0.250001), weight=(1.0, 2.00001))
    assert found.same and 0 < found.largest < 1e-5


def test_a_weight_differs_in_its_last_bit(tmp_path):
    found = compared(tmp_path, weight=(1.0, torch.nextafter(torch.tensor(2.0), torch.tensor(3.0)).item()))
    assert found.differing >= 1 and 0 < found.largest < 2e-7
    assert found.first.startswith("best.pth/net/net.weight: tensor (2,) -> tensor (2,) ")


def test_an_epoch_is_missing(tmp_path):
    found = compared(tmp_path, exact=False, losses=(0.5,))
    assert found.differing == 3 and found.largest == math.inf
    assert found.first == "log.jsonl/1/epoch is missing in the new run"


def test_new_entries_are_noted_and_lost_ones_differ(tmp_path):
    found = compared(tmp_path, batch={"samples": 8})
    assert found.same and found.notes == ["only the new run has result.json/batch/samples"]
    old, new = read_run(tmp_path / "old"), read_run(tmp_path / "new")
    assert compare(new, old).first == "result.json/batch/samples is missing in the new run"


def test_renamed_weights_are_compared_by_value(tmp_path):
    found = compared(tmp_path, name="head.weight")
    assert found.same and found.notes == [
        "1 tensors have other names and are compared by value, e.g. best.pth/net/net.weight -> best.pth/net/head.weight"
    ]
    old, new = read_run(tmp_path / "old"), read_run(tmp_path / "new")
    new["best.pth/net/head.weight"] = torch.tensor([1.0, 2.5])
    assert "best.pth/net/net.weight" in compare(old, new).first
    # Another shape is another tensor.
    new["best.pth/net/head.weight"] = torch.tensor([1.0, 2.0, 3.0])
    assert [compare(*pair).differing for pair in ((old, new), (new, old))] == [2, 2]


def test_a_mapping_names_what_was_renamed_or_does_not_count(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps([["/net\\.", "/head."], ["^result.json/metrics", None]]))
    found = compared(tmp_path, rules=read_mapping(path), name="head.weight", metrics={"test": {"accuracy": 0.5}})
    assert found.same and found.notes == ["only the new run has result.json/metrics/test/accuracy"]


@pytest.mark.parametrize("text", ["{}", '["a"]', '[["a", 1]]', '[["(", "b"]]', '[[1, "b"]]'])
def test_a_faulty_mapping_is_one_line(tmp_path, text):
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"names\.json") as error:
        read_mapping(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "size", "same_bits"),
    [
        (1.0, 1.0, 0, True),
        (2.0, 2, 0, True),
        (100.0, 101.0, 1 / 101, False),
        (1e-9, 2e-9, 1e-6, False),
        (0.0, -0.0, 0, False),
        (math.nan, math.nan, 0, True),
        (math.nan, 1.0, math.inf, False),
        (math.inf, math.inf, 0, True),
        ("skip", "skip", 0, True),
        ("skip", "none", math.inf, False),
        (True, 1, math.inf, False),
        (None, None, 0, True),
        (torch.zeros(2), torch.zeros(3), math.inf, False),
        (torch.zeros(2), torch.zeros(2).double(), math.inf, False),
        (torch.zeros(2), 0.0, math.inf, False),
        (torch.tensor([0.0]), torch.tensor([-0.0]), 0, False),
        (torch.tensor([math.nan, 4.0]), torch.tensor([math.nan, 5.0]), 0.2, False),
        (torch.tensor([math.nan]), torch.tensor([math.nan]), 0, True),
        (torch.tensor([math.inf, 4.0]), torch.tensor([4.0, math.inf]), math.inf, False),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), math.inf, False),
        (torch.zeros(0), torch.zeros(0), 0, True),
    ],
)
def test_difference_of_two_values(old, new, size, same_bits):
    assert difference(old, new) == (pytest.approx(size), same_bits)
    assert difference(new, old) == (pytest.approx(size), same_bits)


def test_a_damaged_run_is_one_line(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "log.jsonl").write_text("junk\n")
    with pytest.raises(UserError, match=r"log\.jsonl is damaged"):
        read_run(folder)


def test_rows_of_the_table(tmp_path):
    same, other = Row("vqa", "search", compared(tmp_path / "a")), compared(tmp_path / "b", losses=(0.5, 0.5))
    other.notes += list("abcde")
    different, failed = Row("vqa", "search", other), Row("vqa", "test", error="NEW: exit code 2: error: no")
    assert [row.verdict for row in (same, different, failed)] == [SAME, DIFFERENT, FAILED]
    assert str(same).split() == ["vqa", "search", "same", "13", "0"]
    assert "5.0e-01  log.jsonl/1/train/loss: 0.25 -> 0.5" in str(different) and "2 more notes" in str(different)
    assert str(failed).endswith("NEW: exit code 2: error: no")


SCRIPT = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for flag in ("--out_dir", "--resume", "--found"):
    parser.add_argument(flag)
parser.add_argument("--epochs", type=int)
args = parser.parse_args()
folder = pathlib.Path(args.resume or args.out_dir + "/" + pathlib.Path(__file__).stem)
folder.mkdir(parents=True, exist_ok=True)
(folder / "args.json").write_text("{}")
with open(folder / "log.jsonl", "a") as log:
    for epoch in range(2, 3) if args.resume else range(args.epochs):
        log.write(json.dumps({"epoch": epoch, "train": {"loss": LOSS / (1 + epoch)}}) + "\\n")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function: loss of the training -> folder of a project with three tiny scripts, which run without torch."""
    commands = {
        "search": "search.py --out_dir $work --epochs 2",
        "training": "train.py --out_dir $work --epochs 2 --found $search",
        "test": "train.py --out_dir $work/test --epochs 1 --found $training",
    }
    monkeypatch.setitem(TASKS, "vqa", TinyTask("scenes --size 1", commands))
    monkeypatch.setattr("tools.script_server.ScriptServer", partial(ScriptServer, preloaded=()))

    def make(name, loss):
        (tmp_path / name / "datasets").mkdir(parents=True)
        (tmp_path / name / "datasets" / "make_demo.py").write_text("import os, sys; os.mkdir(sys.argv[-1])")
        (tmp_path / name / "search.py").write_text(SCRIPT.replace("LOSS", "1.0"))
        (tmp_path / name / "train.py").write_text(SCRIPT.replace("LOSS", str(loss)))
        return tmp_path / name

    return make


STAGES = ["search", "search, resumed", "search, resumed from OLD"]
STAGES += ["training", "training, resumed", "training, resumed from OLD", "test"]


def table(capsys):
    """Stage -> (verdict, first difference) of the table that was printed."""
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("vqa ")]
    return {line[8:35].strip(): (line[36:45].strip(), line[63:]) for line in rows}


def test_versions_that_agree(project, capsys):
    old = project("old", 1.0)
    before = sorted(old.rglob("*"))
    assert compare_runs.main([str(old), str(project("new", 1.0)), "--tasks", "vqa", "--equal"])
    found = table(capsys)
    assert list(found) == STAGES and {verdict for verdict, _ in found.values()} == {SAME}
    assert sorted(old.rglob("*")) == before


def test_versions_that_differ_in_a_constant(project, capsys, tmp_path):
    folders = str(project("old", 1.0)), str(project("new", 2.0))
    assert not compare_runs.main([*folders, "--tasks", "vqa", "--keep", str(tmp_path / "kept")])
    found = table(capsys)
    assert [stage for stage in STAGES if found[stage][0] == DIFFERENT] == STAGES[3:]
    assert found["training"][1].startswith("log.jsonl/0/train/loss: 1.0 -> 2.0 ")
    # The first two epochs are OLD's own.
    assert found["training, resumed from OLD"][1].startswith("log.jsonl/2/train/loss: ")
    assert (tmp_path / "kept" / "vqa" / "new" / "train" / "log.jsonl").exists()


def test_a_script_that_fails(project, capsys):
    folders = [project(name, 1.0) for name in ("old", "new")]
    (folders[1] / "search.py").write_text("import sys; print('starting'); sys.exit('error: no such flag')")
    assert not compare_runs.main([*map(str, folders), "--tasks", "vqa"])
    found = table(capsys)
    assert found["search"] == (FAILED, "NEW: exit code 1: error: no such flag")
    assert found["search, resumed"] == (FAILED, "NEW: not run, because search failed")
    assert found["search, resumed from OLD"] == (FAILED, "NEW: exit code 1: error: no such flag")
    assert found["test"] == (FAILED, "NEW: not run, because training failed")


def test_data_that_cannot_be_made(project, capsys):
    old = project("old", 1.0)
    (old / "datasets" / "make_demo.py").write_text("raise SystemExit('error: disk full')")
    assert not compare_runs.main([str(old), str(old), "--tasks", "vqa"])
    assert table(capsys) == {"data": (FAILED, "exit code 1: error: disk full")}


def test_a_commit_is_exported(tmp_path):
    git = ["git", "-C", str(compare_runs.ROOT)]
    if subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("no git checkout")
    folder = checkout("HEAD", tmp_path / "head")
    assert folder == tmp_path / "head" and (folder / "search_vqa.py").exists() and not (folder / ".git").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["no_such_commit", "."], "no_such_commit is neither a commit of .* nor a folder"),
        (["tests/data", "."], "tests/data is neither a commit of .* nor a folder"),
        ([".", ".", "--tolerance", "-1"], "--tolerance -1"),
        ([".", ".", "--jobs", "0"], "--jobs 0"),
        ([".", ".", "--keep", "tests"], "--keep tests exists already"),
        ([".", ".", "--mapping", "nowhere.json"], r"nowhere\.json"),
    ],
)
def test_bad_input_is_one_line(flags, message, monkeypatch):
    monkeypatch.chdir(compare_runs.ROOT)
    with pytest.raises(UserError, match=message) as error:
        compare_runs.main(flags)
    assert "\n" not in str(error.value)
