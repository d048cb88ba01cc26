"""Processes for tests of several ranks and of kills, forked so that they start at once: torch is imported already."""

import contextlib
import io
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from pathlib import Path

import pytest
import sklearn.metrics  # noqa: F401 - imported by the first score
import torch._dynamo  # noqa: F401 - imported by the first optimiser

ROOT = Path(__file__).resolve().parent.parent


def start(function, *args, log, environment=()):
    """Call ``function(*args)`` in a process of its own.

    Args:
        function: Anything; its exceptions are printed, `SystemExit` gives the exit code.
        log: File that takes what the process writes, with what it has already.
        environment: Variables that only the process has.

    Returns:
        A started `multiprocessing.Process`.
    """
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    process = multiprocessing.get_context("fork").Process(target=_become, args=(function, args, log, environment))
    process.start()
    return process


def _become(function, args, log, environment):
    os.environ.update(environment)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Not what pytest has put in their place.
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(fd, "wb", 0), write_through=True) for fd in (1, 2))
    function(*args)


def run_ranks(function, *args, count=2):
    """Call ``function(*args)`` in ``count`` processes that find each other as under torchrun; all must succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    shared |= {"LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ended:
        logs = [Path(folder, f"{rank}.txt") for rank in range(count)]
        ranks = []
        for rank, log in enumerate(logs):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(start(function, *args, log=log, environment=own))
            ended.callback(ranks[-1].kill)
        for process in ranks:
            process.join(300)
        said = "\n".join(log.read_text()[-3000:] for log in logs)
        assert [process.exitcode for process in ranks] == [0] * count, said
    return said


def run_script(path, *argv):
    """Run a script of this repository as `python path ...` would, in this process."""
    sys.argv = [str(path), *map(str, argv)]
    runpy.run_path(str(path), run_name="__main__")
