"""Runs the jobs of a sweep on a cluster, as one job array, through submitit (an optional dependency)."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.scripts import ROOT
from sweeping.plan import Command
from util.cli import UserError
from util.progress import progress

logger = logging.getLogger("mdarts")

# Seconds between two queries of the state of the jobs.
_POLL = 5.0


def parameters_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Parameters of the cluster: ["timeout_min=60", "slurm_partition=gpu"] -> dict; whole numbers become int.

    Raises:
        UserError: An entry is not of the form name=value.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (name.isidentifier() and sign and value):
            raise UserError(f"--slurm {pair}: expected NAME=VALUE, such as timeout_min=600 or slurm_partition=gpu")
        found[name] = int(value) if value.isdigit() else value
    return found


def check_submitit() -> None:
    """Raise a `UserError` if submitit is not installed."""
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--slurm: the package submitit is not installed; run pip install submitit")


def submit_jobs(
    out: Path, jobs: Sequence[Sequence[Command]], count: int | None, parameters: dict[str, Any]
) -> list[Any]:
    """Submit the jobs as an array; returns submitit's jobs.

    Args:
        out: Folder of the sweep; the cluster's machines must see it under the same path.
        jobs: The jobs; a job whose commands are finished ends immediately.
        count: Jobs at a time; None: as many as the cluster allows.
        parameters: Parameters of submitit's executor; ``cluster=local`` runs the jobs on this machine.

    Raises:
        UserError: A parameter is unknown, or there is no cluster.
    """
    check_submitit()
    import submitit

    parameters = dict(parameters)
    cluster = parameters.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=out.resolve() / "slurm", cluster=cluster)
        if count and cluster == "slurm":
            parameters.setdefault("slurm_array_parallelism", count)
        executor.update_parameters(**parameters)
        with executor.batch():
            return [
                executor.submit(
                    submitit.helpers.CommandFunction(
                        [sys.executable, str(ROOT / "sweep.py"), "--out", str(out.resolve()), "--job", str(number)],
                        verbose=False,
                    )
                )
                for number in range(len(jobs))
            ]
    except (RuntimeError, NameError, TypeError, KeyError, submitit.core.utils.UncompletedJobError) as error:
        raise UserError(f"--slurm: {' '.join(str(error).split())[:300]}; see submitit's parameters") from None


def _queued():
    """Ids of the cluster's queued and running jobs; None if squeue is not available here.

    submitit queries slurm's accounting, which not every cluster has; without it, submitit would wait for a killed job.
    """
    try:
        words = ["squeue", "-h", "-r", "-o", "%F_%K %A"]
        text = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return set(text.split())


def wait_for(jobs: Sequence[Any]) -> int:
    """Wait for submitted jobs with one progress display; returns how many failed.

    An interrupt leaves the jobs on the cluster.
    """
    waiting, failed = list(jobs), 0
    missing: set[Any] = set()
    bar = iter(progress(range(len(waiting)), "jobs", unit="job"))
    while waiting:
        ended = {job: _fault(job) for job in waiting if job.done()}
        queued = _queued() if type(waiting[0]).__name__ == "SlurmJob" else None
        if queued is not None:
            gone = {job for job in waiting if job not in ended and job.job_id not in queued}
            # A job counts as lost only if it is missing twice: one that has just ended may still write its result.
            ended |= dict.fromkeys(gone & missing, "it has ended without a result; see the sweep's slurm folder")
            missing = gone
        for job, fault in ended.items():
            waiting.remove(job)
            next(bar)
            failed += fault is not None
            if fault:
                logger.warning("job %s failed: %s", job.job_id, fault)
            else:
                logger.info("job %s finished", job.job_id)
        if waiting:
            time.sleep(_POLL if len(waiting) > 1 else _POLL / 5)
    next(bar, None)
    return failed


def _fault(job):
    error = job.exception()
    return None if error is None else " ".join(str(error).split())[:200]
