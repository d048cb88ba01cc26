"""Sweeps: their commands, and that one which was killed goes on to the same report."""

import dataclasses
import glob
import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sweep
from datasets.prepare_own import main as prepare_own
from sweeping import cluster, running
from sweeping.plan import UNIMODAL, Command, Planner, commands_text, jobs_of, plan_file
from tools.freeze_command_line import FROZEN
from util.cli import UserError
from util.files import read_json, write_json

TOY = str(Path(__file__).with_name("toy_run.py"))
FLAGS = read_json(FROZEN)


def commands(task, *, seeds=(0,), strategies=("published",), baselines=(), flags=()):
    jobs = Planner(task, "sweeps/x", flags).jobs(seeds, strategies, baselines)
    return {command.name: command for job in jobs for command in job}


@pytest.mark.parametrize("task", ["mmimdb", "ntu", "ego", "vqa", "vgd", "itm"])
def test_every_task_has_commands_that_its_scripts_accept(task):
    fusion = task in ("mmimdb", "ntu", "ego")
    baselines = ("late-fusion", "random", "unimodal") if fusion else ("random", "mcan")
    flags = ["--demo", "--epochs", "3", "--search:epochs", "5"]
    found = commands(
        task, strategies=("published", "gdas --strategy_option pairs=False"), baselines=baselines, flags=flags
    )
    names = {name.removeprefix("seed-0/") for name in found}
    assert names >= {"search-published", "found-published", "search-gdas-strategy_option-pairs-False"}
    assert len(names) == 4 + (2 + 2 if fusion else 2)
    for command in found.values():
        words = shlex.split(command.line())[1:]
        assert words[0] == command.script
        assert {word for word in words if word.startswith("--")} <= FLAGS[command.script].keys(), command.name
        parser = importlib.import_module(command.script.removesuffix(".py")).get_args_parser()
        args = parser.parse_args(words[1:])
        assert args.seed == 0 and args.demo and args.epochs == (5 if "search" in command.name else 3)
        assert args.out_dir == f"sweeps/x/runs/{command.name}"


def test_unimodal_networks_come_first_and_are_handed_on():
    found = commands("ego", baselines=["late-fusion"])
    assert list(found)[:2] == ["seed-0/unimodal-rgb", "seed-0/unimodal-depth"]
    for name in ("search-published", "late-fusion"):
        line = found[f"seed-0/{name}"].line()
        assert "--rgb_cp sweeps/x/runs/seed-0/unimodal-rgb/*-sweep-*" in line and "--depth_cp " in line
    assert "--depth_cp" not in found["seed-0/found-published"].line()  # it takes them from the search
    assert found["seed-0/unimodal-rgb"].makes == "backbone.pth"
    given = commands("ego", flags=["--rgb_cp", "random", "--depth_cp", "random"])
    assert list(given) == ["seed-0/search-published", "seed-0/found-published"]


def test_a_search_gets_no_flag_that_its_strategy_refuses():
    flags = ["--epochs", "3", "--search:budget", "4"]
    found = commands("mmimdb", strategies=("published", "random"), flags=flags)
    published, by_trainings = (found[f"seed-0/search-{name}"].words for name in ("published", "random"))
    assert "--epochs" in published and "--budget" not in published
    assert "--epochs" not in by_trainings and "--budget" in by_trainings
    assert "--epochs" in found["seed-0/found-random"].words


def test_own_data_name_their_modalities(tmp_path):
    with pytest.raises(UserError, match="--task own: name the prepared folder after --"):
        commands("own")
    labels = np.array([0, 1] * 10)
    for name in ("sound", "motion", "y"):
        np.save(tmp_path / f"{name}.npy", labels if name == "y" else np.eye(20, dtype=np.float32) + labels[:, None])
    arrays = ["--arrays", f"sound={tmp_path / 'sound.npy'}", f"motion={tmp_path / 'motion.npy'}"]
    prepare_own([*arrays, "--labels", str(tmp_path / "y.npy"), "--out", str(tmp_path / "data")])
    found = commands("own", baselines=["unimodal", "concat"], flags=["--datadir", str(tmp_path / "data")])
    names = ["unimodal-sound", "unimodal-motion", "search-published", "found-published", "concat"]
    assert list(found) == [f"seed-0/{name}" for name in names]
    assert "unimodal" not in found["seed-0/search-published"].line()  # its encoders learn with the fusion
    for command in found.values():
        words = shlex.split(command.line())[1:]
        assert {word for word in words if word.startswith("--")} <= FLAGS[command.script].keys(), command.name


def test_the_unimodal_networks_of_an_unlisted_task_are_found(monkeypatch):
    """MM-IMDB, without its entry: posters have pretrained weights, plots do not."""
    listed = [command.line() for command in commands("mmimdb", baselines=["unimodal"]).values()]
    monkeypatch.delitem(UNIMODAL, "mmimdb")
    assert [command.line() for command in commands("mmimdb", baselines=["unimodal"]).values()] == listed
    assert list(commands("vqa")) == ["seed-0/search-published", "seed-0/found-published"]


def test_a_chain_is_one_job_and_chains_that_share_nothing_are_apart():
    assert len(Planner("mmimdb", "x").jobs([0, 1], ["published", "gdas"], ["random"])) == 2
    assert [len(job) for job in Planner("vqa", "x").jobs([0, 1], ["published", "gdas"], ["mcan"])] == [2, 2, 1] * 2


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("mmimbd", {}, "--task mmimbd: there is no script main_darts_searchable_mmimbd.py"),
        ("vqa", {"flags": ["--C", "8"]}, "--C: no script of this sweep has such a flag"),
        ("mmimdb", {"flags": ["--found:epochs", "8"]}, "--found:epochs: no script"),
        ("mmimdb", {"flags": ["--seed", "8"]}, "--seed after --: the sweep sets it"),
        ("mmimdb", {"flags": ["8"]}, "'8' after -- is not a flag"),
        ("vqa", {"baselines": ["late-fusion"]}, "--baselines late-fusion: vqa has no such baseline"),
        ("ego", {"baselines": ["mcan"]}, "--baselines mcan: ego has no such baseline"),
    ],
)
def test_what_cannot_be_planned_is_named(task, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        commands(task, **options)


def test_names_with_spaces_survive_the_shell():
    (search, found) = Planner("vqa", "my sweeps/x y").jobs([0], ["published"], [])[0]
    words = shlex.split(found.line())
    assert "my sweeps/x y/runs/seed-0/search-published/*-published-*" in words
    # The shell expands a star only outside quotation marks.
    assert "/search-published'/*-published-*" in found.line() and search.line() in commands_text([[search, found]])


def toy_jobs(out):
    """A search and a training for each of two seeds, of scripts that need no torch."""
    jobs = []
    for seed in (0, 1):
        places = [(out / "runs" / f"seed-{seed}" / name).as_posix() for name in ("search", "found")]
        words = [
            ("--seed", str(seed), "--out_dir", place, "--save", name) for place, name in zip(places, "sf", strict=True)
        ]
        search = Command(f"seed-{seed}/search", TOY, words[0], places[0], f"{places[0]}/*-s-*")
        found = Command(f"seed-{seed}/found", TOY, (*words[1], "--from", search.run), places[1], f"{places[1]}/*-f-*")
        jobs.append([search, found])
    return jobs


def begin(out):
    write_json(out / "sweep.json", plan_file(toy_jobs(out), {}))


def shown(out):
    """The report without its paths."""
    return (out / "report.md").read_text().replace(str(out), "OUT")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    begin(out)
    sweep.main(["--out", str(out), "--jobs", "2"])
    return out


def test_a_sweep_ends_in_a_report(whole):
    assert "| searched architecture, published | 55.00 ± 7.07 | 2 | 0, 1 |" in shown(whole)
    assert "<table>" in (whole / "report.html").read_text()
    assert len(glob.glob(f"{whole}/runs/*/*/*/result.json")) == 4


@pytest.mark.parametrize("killed", ["s", "f"])
def test_a_sweep_with_a_killed_run_goes_on_to_the_same_report(whole, tmp_path, killed):
    begin(tmp_path)
    (tmp_path / "die").write_text(killed)
    with pytest.raises(UserError, match=r"1 commands failed: seed-0/.*start the sweep again to retry"):
        sweep.main(["--out", str(tmp_path)])
    assert shown(tmp_path) != shown(whole)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*/result.json")}
    assert len(kept) == (2 if killed == "s" else 3)
    outcomes = sweep.main(["--out", str(tmp_path)])
    assert {outcome.state for outcome in outcomes} == {running.FINISHED} and shown(tmp_path) == shown(whole)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert len(glob.glob(f"{tmp_path}/runs/*/*/*/args.json")) == 4


@pytest.mark.parametrize("version", ["now", "before"])
def test_a_copied_sweep_works_in_the_copy(whole, tmp_path, version):
    out = tmp_path / "copy"
    shutil.copytree(whole, out)
    if version == "before":  # folders were stored with the path of the sweep
        jobs = [[dataclasses.asdict(command) for command in job] for job in toy_jobs(tmp_path / "elsewhere")]
        write_json(out / "sweep.json", {"settings": {}, "jobs": jobs})
    shutil.rmtree(out / "runs" / "seed-1" / "found")
    sweep.main(["--out", str(out)])
    (found,) = out.glob("runs/seed-1/found/*/toy.json")
    assert str(out) in read_json(found)["source"] and not (tmp_path / "elsewhere").exists()
    assert len(glob.glob(f"{whole}/runs/*/*/*/result.json")) == 4


def test_a_run_of_a_moved_sweep_reads_the_other_runs_where_they_are_now(tmp_path):
    _, found = toy_jobs(tmp_path / "new")[0]
    folder = tmp_path / "new" / "runs" / "seed-0" / "found" / "found-f-1"
    old = {"out_dir": "old/runs/seed-0/found", "search_exp_dir": "old/runs/seed-0/search/s", "datadir": "data", "C": 3}
    folder.mkdir(parents=True)
    write_json(folder / "args.json", {**old, "resume": "old/runs/seed-0/found/found-f-1"})
    new = f"{tmp_path}/new/runs/seed-0"
    moved = ["--out_dir", f"{new}/found", "--search_exp_dir", f"{new}/search/s"]
    assert running.words_now(found, []) == ["--resume", str(folder), *moved]
    write_json(folder / "args.json", {**old, "out_dir": found.out_dir})
    assert running.words_now(found, []) == ["--resume", str(folder)]


def test_a_sweep_without_any_run_names_what_failed(tmp_path):
    begin(tmp_path)
    plan = read_json(tmp_path / "sweep.json")
    for job in plan["jobs"]:
        job[0]["script"] = "no_such_script.py"
    write_json(tmp_path / "sweep.json", plan)
    with pytest.raises(UserError, match=r"2 commands failed: seed-0/search, seed-1/search; see .*logs"):
        sweep.main(["--out", str(tmp_path)])
    assert not (tmp_path / "report.md").exists()


def test_only_runs_a_single_command_and_names_what_is_missing(tmp_path, monkeypatch):
    begin(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep.py"])
    with pytest.raises(UserError, match=r"seed-0/found needs the run of seed-0/search, which is not finished"):
        sweep.main(["--out", str(tmp_path), "--only", "seed-0/found"])
    sweep.main(["--out", str(tmp_path), "--only", "seed-1/search"])
    assert [path.parent.name for path in tmp_path.glob("runs/*/*/*/result.json")] == ["search-s-1"]
    with pytest.raises(UserError, match="no such command"):
        sweep.main(["--out", str(tmp_path), "--only", "seed-7/search"])
    with pytest.raises(UserError, match="2 jobs, counted from 0"):
        sweep.main(["--out", str(tmp_path), "--job", "2"])


def test_a_run_folder_counts_when_it_holds_all_that_its_command_makes(tmp_path):
    command = Command("a", TOY, (), str(tmp_path), "", makes="backbone.pth")
    folder = tmp_path / "unimodal-x"
    folder.mkdir()
    for name in ("args.json", "result.json"):
        (folder / name).write_text("{}")
    assert running.run_folder(command) == folder and not running.is_finished(command, folder)
    assert running.words_now(command, []) == ["--resume", str(folder)]
    (folder / "backbone.pth").touch()
    assert running.is_finished(command, folder)


def test_a_plan_is_kept_and_may_only_grow(tmp_path, capsys):
    out = str(tmp_path / "x")
    flags = ["--task", "vqa", "--out", out, "--dry_run"]
    sweep.main([*flags, "--seeds", "0", "--", "--demo"])
    assert capsys.readouterr().out == (tmp_path / "x" / "commands.txt").read_text()
    sweep.main([*flags, "--seeds", "0", "1", "--", "--demo"])
    assert len(jobs_of(read_json(tmp_path / "x" / "sweep.json"), tmp_path / "x")) == 2
    with pytest.raises(UserError, match=r"seed-0/search-published has other flags; name another --out"):
        sweep.main([*flags, "--seeds", "0", "--", "--epochs", "3"])
    with pytest.raises(UserError, match="it holds no sweep; pass --task"):
        sweep.main(["--out", str(tmp_path / "y"), "--dry_run"])
    (tmp_path / "x" / "sweep.json").write_text('{"jobs": [3]}')
    with pytest.raises(UserError, match=r"sweep\.json is damaged"):
        sweep.main(["--out", out, "--dry_run"])


def test_each_job_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(running, "usable_processors", lambda: 8)
    assert running._environment("2,3", 4) == {"CUDA_VISIBLE_DEVICES": "2,3", "OMP_NUM_THREADS": "2"}
    assert running._environment("", 1) == {}


class TestCluster:
    def test_parameters(self):
        found = cluster.parameters_of(["timeout_min=60", "slurm_partition=gpu"])
        assert found == {"timeout_min": 60, "slurm_partition": "gpu"}
        with pytest.raises(UserError, match="expected NAME=VALUE"):
            cluster.parameters_of(["gpu"])

    def test_without_submitit_the_command_is_named(self, monkeypatch):
        monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match="pip install submitit"):
            cluster.submit_jobs(Path(), [], None, {})

    def test_jobs_that_vanish_count_as_failed(self, monkeypatch):
        class SlurmJob:
            def __init__(self, job_id, done, error=None):
                self.job_id, self.done, self.exception = job_id, lambda: done, lambda: error

        monkeypatch.setattr(cluster, "_POLL", 0.0)
        monkeypatch.setattr(cluster, "_queued", lambda: {"1_0"})
        jobs = [SlurmJob("1_1", True), SlurmJob("1_2", True, RuntimeError("x\nlast")), SlurmJob("1_3", False)]
        assert cluster.wait_for(jobs) == 2

    @pytest.mark.slow  # submitit's processes take seconds to start
    def test_jobs_run_on_this_machine_through_submitit(self, tmp_path):
        pytest.importorskip("submitit")
        begin(tmp_path)
        sweep.main(["--out", str(tmp_path), "--slurm", "cluster=local", "timeout_min=5"])
        assert "55.00 ± 7.07" in shown(tmp_path)
        with pytest.raises(UserError, match="--slurm: "):
            sweep.main(["--out", str(tmp_path), "--slurm", "cluster=local", "no_such_parameter=5"])


@pytest.mark.slow  # the same with toy scripts is faster
def test_a_sweep_of_real_runs_that_was_killed_goes_on_to_the_same_scores(easy_vqa, tmp_path):
    sizes = "--hsize 64 --enc_blocks 1 --dec_blocks 2 --batchsize 16 --epochs 2 --alpha_start 1 --device cpu"
    flags = [*easy_vqa.flags, *sizes.split(), "--word_vectors", "none"]
    results = SimpleNamespace()
    for name in ("whole", "killed"):
        out = tmp_path / name
        words = ["--task", "vqa", "--seeds", "0", "--strategies", "published", "--out", str(out), "--", *flags]
        if name == "killed":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(running, "_call", killed_after_an_epoch(out))
                with pytest.raises(UserError, match="failed"):
                    sweep.main(words)
        sweep.main(words)
        found = sorted(out.glob("runs/*/*/*/result.json"))
        setattr(results, name, [read_json(path)["metrics"] for path in found])
    assert len(results.whole) == 2 and results.whole == results.killed


def killed_after_an_epoch(out):
    """A `running._call` that kills every process once its run has logged an epoch."""
    import subprocess
    import time

    def call(words, log, environment, stop):
        with open(log, "ab") as output:
            process = subprocess.Popen(words, stdout=output, stderr=output, env=environment)
        while process.poll() is None and not [p for p in out.glob("runs/*/*/*/log.jsonl") if p.stat().st_size]:
            time.sleep(0.05)
        process.kill()
        process.wait()
        return 1

    return call
