"""Runs the commands of a sweep on this machine: several jobs at a time, each command in its own process."""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.arguments import earlier_arguments
from engine.launch import MASK
from engine.scripts import ROOT
from sweeping.plan import Command, RunOf
from util.cli import UserError
from util.locks import locked
from util.processors import usable_processors
from util.progress import progress

logger = logging.getLogger("mdarts")

# Seconds between two checks of a process, and seconds that it has to end by itself after an interrupt.
_POLL, _GRACE = 0.2, 10
FINISHED, FAILED, SKIPPED = "finished", "failed", "not run"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        command: The command.
        state: ``finished``, ``failed`` or ``not run`` (because an earlier command of its job failed).
        seconds: Wall time of this attempt.
        log: File with its output.
    """

    command: Command
    state: str
    seconds: float
    log: Path


def run_folder(command: Command) -> Path | None:
    """The run folder of a command: the latest finished one, or else the latest one; None if there is none."""
    place = Path(command.out_dir)
    folders = [path.parent for path in place.glob("*/args.json")]
    finished = [folder for folder in folders if is_finished(command, folder)]
    return max(finished or folders, key=lambda folder: (folder / "args.json").stat().st_mtime, default=None)


def is_finished(command: Command, folder: Path) -> bool:
    """Whether a run folder contains everything that the command makes."""
    return (folder / "result.json").exists() and (not command.makes or (folder / command.makes).exists())


def words_now(command: Command, jobs: Sequence[Sequence[Command]]) -> list[str]:
    """The flags with which a command starts, or ``--resume`` with its run folder if it has begun.

    Args:
        command: The command.
        jobs: All commands of the sweep.

    Raises:
        UserError: A command that must come first is not finished.
    """
    folder = run_folder(command)
    if folder is not None:
        return ["--resume", str(folder), *_moved_flags(command, folder)]
    by_name = {other.name: other for job in jobs for other in job}
    words = []
    for word in command.words:
        if isinstance(word, RunOf):
            source = by_name[word.name]
            made = run_folder(source)
            if made is None or not is_finished(source, made):
                raise UserError(f"{command.name} needs the run of {word.name}, which is not finished; run that first")
            word = str(made)
        words.append(word)
    return words


def _moved_flags(command: Command, folder: Path) -> list[str]:
    """Flags of a run to be resumed whose paths lie in this sweep, with their new values if the sweep was moved."""
    earlier, now = earlier_arguments(folder), Path(command.out_dir).as_posix()
    before = Path(str(earlier.get("out_dir"))).as_posix()
    if before == now or not before.endswith(f"/runs/{command.name}"):
        return []
    old, new = (place.removesuffix(f"runs/{command.name}") for place in (before, now))
    moved = {name: value for name, value in earlier.items() if name != "resume" and isinstance(value, str)}
    found = [(f"--{name}", new + value[len(old) :]) for name, value in moved.items() if value.startswith(old)]
    return [word for pair in found for word in pair]


def run_only(name: str, jobs: Sequence[Sequence[Command]]) -> None:
    """Run one command in this process, unless it is finished; continue it where an earlier attempt stopped.

    A lock keeps two processes from running the same command: if a killed sweep has left one running, wait for its end.

    Raises:
        UserError: There is no such command, or one that must come first is not finished.
    """
    command = next((command for job in jobs for command in job if command.name == name), None)
    if command is None:
        raise UserError(f"--only {name}: the sweep has no such command; sweep.json lists them")
    place = Path(command.out_dir)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / ".lock", waiting=f"another process is still running {name}: waiting for it"):
        folder = run_folder(command)
        if folder is not None and is_finished(command, folder):
            return
        sys.argv = [str(ROOT / command.script), *words_now(command, jobs)]
        runpy.run_path(sys.argv[0], run_name="__main__")


def run_job(out: Path, job: Sequence[Command], environment: dict[str, str], stop: threading.Event) -> Iterator[Outcome]:
    """Run the commands of a job one after another, each in its own process; yields an `Outcome` for each.

    Args:
        out: Folder of the sweep.
        job: The commands.
        environment: Environment variables of the processes, in addition to those of this one.
        stop: Once it is set, no further command is started.
    """
    failed = False
    for command in job:
        log = out / "logs" / f"{command.name.replace('/', '-')}.txt"
        folder, start = run_folder(command), time.perf_counter()
        if folder is not None and is_finished(command, folder):
            yield Outcome(command, FINISHED, 0.0, log)
            continue
        if failed or stop.is_set():
            yield Outcome(command, SKIPPED, 0.0, log)
            continue
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, str(ROOT / "sweep.py"), "--out", str(out), "--only", command.name]
        failed = _call(words, log, {**os.environ, **environment}, stop) != 0
        yield Outcome(command, FAILED if failed else FINISHED, time.perf_counter() - start, log)


def _call(words, log, environment, stop):
    """Run a process; returns its exit status. It receives interrupts too; if it does not end then, it is terminated."""
    with open(log, "ab") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
    deadline = None
    while True:
        try:
            return process.wait(timeout=_POLL)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                deadline = deadline or time.monotonic() + _GRACE
                if time.monotonic() > deadline:
                    process.terminate()


def run_jobs(out: Path, jobs: Sequence[Sequence[Command]], count: int, gpus: Sequence[str] = ()) -> list[Outcome]:
    """Run jobs, ``count`` at a time, with one progress display; returns the outcome of every command.

    Args:
        out: Folder of the sweep.
        jobs: The jobs.
        count: Jobs at a time.
        gpus: Values of `CUDA_VISIBLE_DEVICES`, one for each concurrent job; (): the processes see all GPUs.
    """
    places: queue.Queue[str] = queue.Queue()
    for number in range(count):
        places.put(gpus[number % len(gpus)] if gpus else "")
    done: queue.Queue[Outcome | BaseException] = queue.Queue()
    stop = threading.Event()

    def work(job):
        gpu = places.get()
        try:
            for outcome in run_job(out, job, _environment(gpu, count), stop):
                done.put(outcome)
        except BaseException as error:
            done.put(error)
        finally:
            places.put(gpu)

    total = sum(map(len, jobs))
    pool = ThreadPoolExecutor(count)
    try:
        for job in jobs:
            pool.submit(work, job)
        return [_told(done.get()) for _ in progress(range(total), "sweep", unit="command")]
    except BaseException:
        stop.set()  # an interrupt reaches the processes too: they save and end
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _environment(gpu, count):
    own = {MASK: gpu} if gpu else {}
    if count > 1 and "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(1, usable_processors() // count))
    return own


def _told(outcome):
    if isinstance(outcome, BaseException):
        raise outcome
    what = f"{outcome.command.name}: {outcome.state}"
    if outcome.state == FAILED:
        lines = outcome.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        logger.warning("%s (%s; see %s)", what, lines[-1][:200] if lines else "no output", outcome.log)
    elif outcome.state == FINISHED:
        logger.info("%s", what + (f" in {outcome.seconds:.0f} s" if outcome.seconds else " already"))
    return outcome
