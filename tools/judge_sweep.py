#!/usr/bin/env python
"""Check that sweeps survive interruptions: kill sweeps, cancel and requeue jobs, and compare with undisturbed sweeps.

  python tools/judge_sweep.py --out judged                     # everything on this machine, killed twice
  python tools/judge_sweep.py --out judged --slurm timeout_min=30 cpus_per_task=1 mem_gb=2

It runs three seeds of two tasks with three strategies, on tiny data that it makes in --out. The disturbed sweep of each
task is killed (SIGKILL, with all its processes) once a quarter of its commands are finished and again after half of
them, each time while a run is between two epochs. The rest runs on this machine, or with --slurm on the cluster, where
one running job is cancelled and another one requeued; tools/one_node_slurm.sh starts a cluster for this. At the end the
reports of both sweeps must agree in everything but times, memory, dates and folders. It takes about ten minutes on two
CPU cores. Exit status: 0 if they agree, 1 if not, 2 after a usage error.
"""

import argparse
import difflib
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reports.comparing import compare
from reports.contents import as_csv, as_markdown, sections_of
from reports.reading import read_runs
from sweeping.plan import jobs_of
from util.cli import UserError, run_cli
from util.files import read_json

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ("published", "gdas", "random")
# Task -> arguments of datasets/make_demo.py (its first word names the folder), and flags of the scripts.
TASKS = {
    "mmimdb": (
        "mmimdb --source synthetic --train 24 --dev 16 --test 8 --image_size 32 32",
        "--datadir DATA/mmimdb/dataset --backbone_weights random --L 4 --search:C 8 --batchsize 8"
        " --unimodal:freeze_backbones --training:freeze_backbones",
    ),
    "vqa": (
        "scenes --train 12 --scored 6 --matched 6 --workers 1",
        "--data DATA/scenes/vqa --hsize 64 --batchsize 16 --word_vectors none --min_answer_count 1 --enc_blocks 1"
        " --dec_blocks 2 --search:alpha_start 1 --search:alpha_every 2",
    ),
}
SHARED = "--epochs 4 --num_workers 0 --device cpu --search:budget 3 --search:training_epochs 2"
# Columns of a report that differ between two runs of the same command.
TIMES = ("search time", "run time", "peak memory, MiB")
# Seconds between two checks of a sweep.
POLL = 0.02


def get_args_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for data and sweeps")
    parser.add_argument("--slurm", nargs="+", metavar="KEY=VALUE", help="run the rest on a cluster, as sweep.py does")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=tuple(TASKS), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="default: 0 1 2")
    return parser


def main(argv=None):
    """Run both sides and compare them; returns whether they agree."""
    args = get_args_parser().parse_args(argv)
    out = Path(args.out).resolve()
    for task in args.tasks:
        make_data(out, task)
        for side in ("whole", "disturbed"):
            words = plan(out / side / task, out, task, args.seeds)
            if side == "disturbed":
                disturb(words, out / side / task, args.slurm)
            else:
                run(words, out / side / task)
    whole, disturbed = (shown([out / side / task / "runs" for task in args.tasks]) for side in ("whole", "disturbed"))
    differences = list(difflib.unified_diff(whole, disturbed, "undisturbed", "disturbed", lineterm="", n=0))
    print("\n".join(differences) or f"the reports agree in {len(whole)} lines; {out} holds both sides")
    return not differences


def make_data(out, task):
    """Make the data of a task, unless they exist."""
    name, *flags = shlex.split(TASKS[task][0])
    if not (out / "data" / name).exists():
        words = [str(ROOT / "datasets" / "make_demo.py"), name, *flags, "--out", str(out / "data" / name)]
        subprocess.run([sys.executable, *words], check=True)


def plan(folder, out, task, seeds):
    """The command that runs a sweep from the start, as a list of words."""
    flags = [word.replace("DATA", str(out / "data")) for word in shlex.split(f"{TASKS[task][1]} {SHARED}")]
    words = [sys.executable, str(ROOT / "sweep.py"), "--task", task, "--seeds", *map(str, seeds)]
    return [*words, "--strategies", *STRATEGIES, "--out", str(folder), "--jobs", "2", "--", *flags]


def start(words, folder):
    """Start a command in its own process group; its output goes to a file next to the sweep's folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{folder.name}.txt", "ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def run(words, folder):
    """Run a command to its end.

    Raises:
        UserError: The command failed.
    """
    process = start(words, folder)
    try:
        status = process.wait()
    finally:
        end(process)
    if status != 0:
        raise UserError(f"a sweep failed: see {folder.parent / folder.name}.txt")


def end(process):
    """Kill a command and all its processes, if it is still running."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def disturb(words, folder, slurm):
    """Run a sweep, kill it twice, and run the rest here or on a cluster.

    Raises:
        UserError: The sweep failed, or ended before it could be killed.
    """
    for share in (0.25, 0.5):
        before, process = set(between_epochs(folder)), start(words, folder)
        while process.poll() is None:
            time.sleep(POLL)
            planned = folder / "sweep.json"
            total = sum(map(len, jobs_of(read_json(planned), folder))) if planned.exists() else math.inf
            # A run that an earlier kill interrupted looks like a running one until it has been continued.
            if len(finished(folder)) >= share * total and set(between_epochs(folder)) - before:
                end(process)
                print(f"{folder.name}: killed after {len(finished(folder))} of {total} commands", flush=True)
                break
        else:
            raise UserError(f"{folder}: the sweep ended before it could be killed; use more --seeds and a new --out")
        process.wait()
    words = [*words[: words.index("--task")], "--out", str(folder), "--jobs", "2"]
    if slurm:
        through_slurm([*words, "--slurm", *slurm], folder)
    else:
        run(words, folder)


def through_slurm(words, folder):
    """Run the rest on the cluster: requeue one running job, cancel another one, then start the sweep again."""
    process, wanted = start(words, folder), ["requeue", "cancel"]
    touched = set()
    while process.poll() is None:
        time.sleep(POLL)
        free = [job for job in running_jobs(folder) if job not in touched]
        if wanted and free and any(between_epochs(folder)):
            touched.add(free[0])
            what = wanted.pop(0)
            subprocess.run(["scontrol", "requeue", free[0]] if what == "requeue" else ["scancel", free[0]], check=True)
            print(f"{folder.name}: {what} of job {free[0]}", flush=True)
    if wanted:
        raise UserError(f"{folder}: all jobs ended before two could be disturbed; use more --seeds")
    print(f"{folder.name}: the sweep ended with status {process.wait()} (2: a job failed); start it again", flush=True)
    run(words, folder)


def running_jobs(folder):
    """The running jobs of this sweep on the cluster, according to submitit's files."""
    own = {path.name.removesuffix("_submitted.pkl") for path in (folder / "slurm").glob("*_submitted.pkl")}
    words = ["squeue", "-h", "-r", "-t", "R", "-o", "%F_%K"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return [job for job in listed if job in own]


def finished(folder):
    """The ``result.json`` files of a sweep's runs."""
    return list(folder.glob("runs/*/*/*/result.json"))


def between_epochs(folder):
    """Runs that have logged an epoch and are not finished: pairs (folder, bytes of the log)."""
    for path in folder.glob("runs/*/*/*/log.jsonl"):
        if (size := path.stat().st_size) and not (path.parent / "result.json").exists():
            yield path.parent, size


def shown(folders):
    """Lines of the report of some folders, without times, memory, dates and folders."""
    sections = sections_of(compare(read_runs(folders)))
    for section in sections:
        for table in section.tables:
            kept = [number for number, name in enumerate(table.columns) if name not in TIMES]
            table.columns = [table.columns[number] for number in kept]
            table.rows = [[row[number] for number in kept] for row in table.rows]
    header, *rows = (line.split(",") for line in as_csv(sections).splitlines())
    # Scores with all digits: they come before the first cell that may contain a comma.
    digits = [",".join(row[: header.index("seeds")]) for row in rows]
    text = as_markdown(sections)
    for folder in folders:
        text = text.replace(str(folder.parent.parent), "OUT")
    return [*re.sub(r"\d{8}-\d{6}", "DATE", text).splitlines(), *digits]


if __name__ == "__main__":
    run_cli(lambda: sys.exit(not main()))
