"""Processes for tests of several ranks and of kills, which start at once: a server that has imported torch forks them.

Not this process: what it has computed before may have started threads, which do not survive a fork.
"""

import contextlib
import io
import multiprocessing
import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Further ones are imported by every process for itself.
PRELOADED = ["torch._dynamo", "torch.distributed", "torchvision", "sklearn.metrics"]


@contextlib.contextmanager
def no_word_vectors():
    """Those that the machine may have would be read by every training, which takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.text.word_vectors.PLACES", ())
        patch.setattr("datasets.text.word_vectors.PACKAGE", "no_such_package")
        yield


def start(function, *args, log, environment=()):
    """Call ``function(*args)`` in a process of its own.

    Args:
        function: A function of a module; its exceptions are printed, `SystemExit` gives the exit code.
        log: File that takes what the process writes, with what it has already.
        environment: Variables that only the process has.

    Returns:
        A started `multiprocessing.Process`.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_become, args=(function, args, log, dict(environment)))
    process.start()
    return process


def _become(function, args, log, environment):
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(fd, "wb", 0), write_through=True) for fd in (1, 2))
    with no_word_vectors():
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
