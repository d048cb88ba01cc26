"""How a run describes itself: id, command and sessions; its README; and tools that track its scores."""

import json
import sys
from types import SimpleNamespace

import pytest

import main_darts_searchable_mmimdb as search
from engine import identity, scripts
from engine.arguments import RecipeParser, add_run_flags, parse_args
from engine.report import checksum
from engine.run import start_run
from engine.tracking import Tracker
from util.cli import UserError


def arguments(**changes):
    return SimpleNamespace(**{"seed": 2, "device": "cpu", "save": "EXP", "resume": None, "parallel": False, **changes})


def record(epoch=0):
    return {"epoch": epoch, "dev": {"loss": 0.5, "f1": 0.25}, "best": False, "seconds": 1.0, "entropy": {"a": 0.5}}


def test_a_run_has_an_identity_and_a_session_per_start(tmp_path):
    with start_run(arguments(), "search", tmp_path) as run:
        folder, first = run.folder, run.identity
        run.track()
        run.finish_epoch(record())
    with start_run(arguments(), "search", tmp_path) as run:
        assert run.identity["id"] != first["id"]
    with start_run(arguments(resume=str(folder)), "search", tmp_path) as run:
        assert len(json.loads((folder / "run.json").read_text())["sessions"]) == 1  # until it is known to continue
        run.track()
        result = run.write_result({"kind": "search", "metrics": {}})
    known = json.loads((folder / "run.json").read_text())
    assert known == result["run"] and known["id"] == first["id"] and len(known["sessions"]) == 2
    assert set(known["sessions"][0]) == {"started", "git_commit", "changes", "torch", "device"}
    written = json.loads((folder / "result.json").read_text())
    assert written["checksum"] == checksum(written) == result["checksum"]
    assert checksum({**written, "metrics": {"dev": 1}}) != written["checksum"]


def test_a_run_of_an_earlier_version_gets_no_identity_when_it_goes_on(tmp_path):
    with start_run(arguments(), "search", tmp_path) as run:
        folder = run.folder
    (folder / "run.json").unlink()
    with start_run(arguments(resume=str(folder)), "search", tmp_path) as run:
        run.track()
        assert run.identity["id"] is None and len(run.identity["sessions"]) == 1
    (folder / "run.json").write_text("[]")
    with (
        pytest.raises(UserError, match=r"run\.json does not identify a run"),
        start_run(arguments(resume=str(folder)), "search", tmp_path) as run,
    ):
        run.track()


def test_the_commands_of_a_run_include_those_that_made_it_longer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def session(*argv):
        parser = RecipeParser("Another recipe.")
        add_run_flags(parser)
        parser.add_argument("--epochs", type=int, default=1)
        with start_run(parse_args(parser, argv), "search", tmp_path / "an é") as run:
            identity._parsed["command"] = " ".join(argv)  # a parser of a test is in no file
            run.identity = identity.begin_session(run.folder, run.args, run.device)
            return run.folder

    folder = session("--epochs", "2")
    for flags in ([], ["--num_workers", "1"], ["--epochs", "7"]):
        session("--resume", str(folder), *flags)
    known = json.loads((folder / "run.json").read_text())
    known["command"] = "first"
    assert identity.commands_of(known) == ["first", f"--resume {folder} --epochs 7"]
    text = identity.readme_text(folder, known, None)
    assert f"    first\n    --resume {folder} --epochs 7" in text and f"--resume '{folder}'`" in text


def test_the_command_is_that_of_the_recipe_whatever_process_runs_it():
    search.get_args_parser()
    parse_args(search.get_args_parser(), ["--text_cp", "my run/x", "--seed", "3"])
    assert identity._parsed == {
        "script": "main_darts_searchable_mmimdb.py",
        "command": "python main_darts_searchable_mmimdb.py --text_cp 'my run/x' --seed 3",
    }
    parser = RecipeParser("no module has this docstring")
    add_run_flags(parser)
    parse_args(parser, [])
    assert identity._parsed == {"script": None, "command": None}


@pytest.mark.parametrize(
    ("processes", "local", "start"),
    [
        (1, 1, "python"),
        (2, 2, "torchrun --nproc_per_node 2"),
        (4, 2, "torchrun --nnodes 2 --nproc_per_node 2 --rdzv_backend c10d --rdzv_endpoint HOST:29500"),
    ],
)
def test_commands_start_as_many_processes(monkeypatch, tmp_path, processes, local, start):
    for name, value in {"RANK": 0, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": local}.items():
        monkeypatch.setenv(name, str(value))
    script = "main_darts_searchable_mmimdb.py"
    parse_args(search.get_args_parser(), ["--seed", "3"])
    known = {**identity._parsed, "sessions": []}
    assert known["command"] == f"{start} {script} --seed 3"
    assert f"continue it: `{start} {script} --resume {tmp_path}`" in identity.readme_text(tmp_path, known, None)
    # --GPU starts the processes itself.
    monkeypatch.setattr(identity, "_starts_itself", False)
    identity.remember_launch()
    parse_args(search.get_args_parser(), ["--seed", "3"])
    assert identity._parsed["command"] == f"python {script} --seed 3"


def test_a_run_that_did_not_record_its_processes_is_continued_in_as_many():
    known = {"script": "search_itm.py", "command": "python search_itm.py --demo"}
    assert identity.resume_command("a b", known, 2) == "torchrun --nproc_per_node 2 search_itm.py --resume 'a b'"
    known["command"] += " --GPU 0,1"
    assert identity.resume_command("EXP", known, 2) == "python search_itm.py --resume EXP"


def test_a_search_tells_what_it_left_and_how_to_go_on(searched):
    text = (searched.folder / "README.md").read_text()
    assert "A run of `main_darts_searchable_mmimdb.py`: finished." in text and len(text.splitlines()) < 40
    assert f"python main_darts_found_mmimdb.py --search_exp_dir {searched.folder}" in text
    assert f"python report.py {searched.folder}" in text and "f1 " in text and "synthetic data" in text
    assert "    python main_darts_searchable_mmimdb.py --datadir " in text
    assert searched.result["task"] == "mmimdb"


def test_a_run_that_is_not_finished_tells_how_to_resume(tmp_path):
    identity._parsed.update(script="search_vqa.py", command="python search_vqa.py --demo")
    with start_run(arguments(), "search", tmp_path) as run:
        text = (run.folder / "README.md").read_text()
    assert "under way, or interrupted" in text and f"python search_vqa.py --resume {run.folder}" in text


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("main_darts_searchable_ntu.py", ["python main_darts_found_ntu.py --search_exp_dir RUN"]),
        ("search_itm.py", ["python train_itm.py --RUN train --ARCH_PATH RUN"]),
        ("train_vgd.py", ["python train_vgd.py --RUN test --CKPT_PATH RUN"]),
        ("main_darts_found_ego.py", ["python main_darts_found_ego.py --eval_exp_dir RUN"]),
        ("main_unimodal_ego.py", []),
        ("sweep.py", []),
    ],
)
def test_what_follows_a_script(script, expected):
    assert [command for _, command in scripts.next_commands(script, "RUN")] == expected
    assert all((scripts.ROOT / command.split()[1]).is_file() for command in expected)


class Tool:
    """A tracking tool that remembers its calls."""

    def __init__(self, fails=False):
        self.told, self.fails = [], fails

    def init(self, **options):
        self.told.append(("init", options))

    def log(self, scores, step):
        if self.fails:
            raise RuntimeError("no network\nat all")
        self.told.append((step, scores))

    def finish(self):
        self.told.append("finish")


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tool_gets_the_scores_of_every_epoch(tmp_path, monkeypatch, name):
    tool = Tool()
    monkeypatch.setitem(sys.modules, name, tool)
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "films")
    tracker = Tracker(tmp_path / "search-x", name, "abc", {"seed": 3, "none": None})
    tracker.log(record(0))
    tracker.log(record(1))
    tracker.close()
    (_, options), *logged = tool.told
    assert options["project"] == "films" and options["name"] == "search-x" and options["config"] == {"seed": 3}
    assert options.get("id") == ("abc" if name == "wandb" else None) and options["resume"] == "allow"
    scores = {"dev/loss": 0.5, "dev/f1": 0.25, "entropy/a": 0.5}
    assert logged == [(0, scores), (1, scores), "finish"]


def test_a_tool_that_fails_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", Tool(fails=True))
    tracker = Tracker(tmp_path, "wandb", None, {})
    for epoch in range(3):
        tracker.log(record(epoch))
    tracker.close()
    assert [r.message for r in caplog.records] == ["scores are no longer sent to wandb: no network at all"]


def test_a_tool_that_is_missing_is_named_before_the_run_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.tracking.importlib.util.find_spec", lambda name: None)
    missing = pytest.raises(UserError, match=r"--track wandb: .*pip install wandb")
    with missing, start_run(arguments(track="wandb"), "search", tmp_path):
        pass
    assert not list(tmp_path.iterdir())
