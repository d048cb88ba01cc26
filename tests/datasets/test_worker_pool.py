"""Work over processes: everything comes back, and a process that dies takes only its task with it."""

import os

import pytest

from datasets.worker_pool import map_tasks
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
