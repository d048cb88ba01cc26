"""Work over processes: everything comes back, and a process that dies takes only its task with it."""

import os

import pytest

from datasets.storage import workers
from datasets.storage.workers import map_tasks
from util.cli import UserError


def double(task):
    if task == 13:
        os._exit(9)
    if task == 99:
        raise UserError("the disk is full")
    return 2 * task


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_task_comes_back(workers):
    assert dict(map_tasks(double, range(12), workers)) == {task: 2 * task for task in range(12)}


def test_nothing_to_do():
    assert list(map_tasks(double, [], 2)) == []


def test_a_task_that_kills_its_process(tmp_path):
    outcomes = dict(map_tasks(double, range(10, 30), 2))
    assert outcomes.pop(13) is None
    assert outcomes == {task: 2 * task for task in range(10, 30) if task != 13}


def test_a_users_mistake_comes_through():
    with pytest.raises(UserError, match="the disk is full"):
        list(map_tasks(double, [1, 99, 2], 2))


def test_without_semaphores_this_process_works(monkeypatch, capsys):
    def refuses(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(workers.multiprocessing, "get_context", refuses)
    assert dict(map_tasks(double, range(5), 2)) == {task: 2 * task for task in range(5)}
    (line,) = capsys.readouterr().out.splitlines()
    assert "in one process" in line


def threads(_):
    import cv2

    return cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]


def test_a_process_computes_in_one_thread():
    assert dict(map_tasks(threads, [0], 2)) == {0: (1, "1")}
