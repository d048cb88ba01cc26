"""Processes for GPUs: the list of --GPU within a scheduler's mask, an interrupt, and a process that is killed."""

import functools
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from torch.multiprocessing import ProcessExitedException

from engine import launch as launching
from engine.launch import _wait, choose_gpus, launch
from tests.processes import start
from util.cli import UserError, run_cli


@pytest.mark.parametrize(
    ("gpus", "mask", "count", "chosen"),
    [
        ("1", None, 2, ["1"]),
        ("0, 3", None, 4, ["0", "3"]),
        ("1", "4,5", 2, ["5"]),
        ("1,0", "4, 5", 2, ["5", "4"]),
        ("4,5", "4,5", 2, ["4", "5"]),
        ("5", "4,5", 2, ["5"]),
        # An entry that is both a number within the mask and a name in it counts as a number, as everywhere in torch.
        ("1", "1,2", 2, ["2"]),
        ("1,2", "1,2", 2, ["1", "2"]),
        ("1", "GPU-3f2a,GPU-77b0", 2, ["GPU-77b0"]),
        ("GPU-77b0", "GPU-3f2a,GPU-77b0", 2, ["GPU-77b0"]),
        ("MIG-1/2/0", "MIG-1/2/0", 1, ["MIG-1/2/0"]),
    ],
)
def test_a_gpu_is_chosen_within_the_mask(gpus, mask, count, chosen):
    assert choose_gpus(gpus, mask, count) == chosen


@pytest.mark.parametrize(
    ("gpus", "mask", "count", "message"),
    [
        ("2", "4,5", 2, r"--GPU 2: this torch sees 2 GPUs within CUDA_VISIBLE_DEVICES=4,5; count them from 0"),
        ("0,4", "4,5", 2, r"sees 2 GPUs within"),
        ("9", "4,9", 1, r"sees 1 GPUs within CUDA_VISIBLE_DEVICES=4,9; count them from 0 to 0, or name them: 4,"),
        ("0", "", 0, r"sees no GPUs within CUDA_VISIBLE_DEVICES=; drop the flag, or pass --device cpu"),
        ("0", None, 0, r"--GPU 0: this torch sees no GPUs; drop the flag, or pass --device cpu"),
        ("7", None, 2, r"sees 2 GPUs; count them from 0 to 1, or pass"),
        ("GPU-1", None, 2, r"'GPU-1' is not a list of GPUs"),
        ("0,0", None, 2, r"'0,0' is not a list of GPUs"),
        (",", None, 2, r"',' is not a list of GPUs"),
        ("0,1", "3,3", 2, r"names a GPU twice"),
    ],
)
def test_what_is_not_within_it_is_one_line(gpus, mask, count, message):
    with pytest.raises(UserError, match=message) as error:
        choose_gpus(gpus, mask, count)
    assert "\n" not in str(error.value)


def test_the_mask_stays_as_it_is_on_a_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.delenv("RANK", raising=False)
    assert launch(None, [], "1", "cpu") is False and os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"


def main(argv=None):
    """The script that --GPU '0, 1' starts twice; each process prints that it is working, and then waits."""
    if not launch(__name__, argv, "0, 1", "cpu"):
        print("working", flush=True)
        time.sleep(120)


def lead_and_main():
    """Run `main` as the leader of a new process group, as a terminal starts a command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("RANK", None)
    # Forked and not spawned, which would import torch in each process.
    torch.multiprocessing.spawn = functools.partial(torch.multiprocessing.start_processes, start_method="fork")
    launching._wait = functools.partial(say_and_wait, launching._wait)
    run_cli(main)


def say_and_wait(wait, context):
    """On a busy machine, both processes may be working before the one that started them waits for them."""
    print("waiting", flush=True)
    wait(context)


def test_an_interrupt_is_told_once(tmp_path):
    """A terminal sends the signal to every process of the group, but only one of them reports it."""
    log = tmp_path / "log.txt"
    log.touch()
    process = start(lead_and_main, log=log)
    end = time.monotonic() + 60
    while log.read_text().count("ing\n") < 3 and process.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert log.read_text().split("\n", 3)[3].strip() == "interrupted; everything saved so far is kept"


class Process:
    """A process that ignores interrupts."""

    def __init__(self):
        self.calls = []

    def join(self, seconds):
        self.calls.append("join")

    def is_alive(self):
        return True

    def terminate(self):
        self.calls.append("terminate")


def waiting(error, processes=()):
    def join():
        raise error

    with pytest.raises(SystemExit) as end:
        _wait(SimpleNamespace(join=join, processes=processes))
    return end.value.code


def test_an_interrupt_of_the_first_process_alone_ends_the_others():
    processes = [Process(), Process()]
    assert waiting(KeyboardInterrupt(), processes) == 130
    assert [process.calls for process in processes] == [["join", "terminate"]] * 2


def test_how_a_process_ended_is_passed_on(capsys):
    assert waiting(ProcessExitedException("", 1, 99, 2)) == 2 and capsys.readouterr().err == ""


def test_a_killed_process_is_named():
    killed = ProcessExitedException("", 1, 99, -9, "SIGKILL")
    with pytest.raises(UserError, match="process 1 was killed by SIGKILL, most likely because memory ran out"):
        _wait(SimpleNamespace(join=lambda: (_ for _ in ()).throw(killed), processes=()))
