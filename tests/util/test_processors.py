"""The number of processors depends on affinity, a container's quota, and the number of ranks."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from util import processors
from util.processors import limit_threads, own_processors, usable_processors, use_one_thread


def group(root, own, files):
    """Control group files below ``root``, and the ``/proc/self/cgroup`` of a process in these groups."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    path = root / "self"
    path.write_text(own)
    return path


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4.0),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 3.0),
        # The path is that of the host, while the container's own group is mounted at the root.
        ("0::/docker/0123\n", {"cpu.max": "200000 100000\n"}, 2.0),
        (
            "5:memory:/m\n4:cpu,cpuacct:/c\n",
            {"cpu,cpuacct/c/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/c/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "damaged\n"}, None),
    ],
)
def test_quota(tmp_path, own, files, expected):
    assert processors._quota(tmp_path, group(tmp_path, own, files)) == expected


def test_no_control_groups(tmp_path):
    assert processors._quota(tmp_path, tmp_path / "absent") is None


@pytest.mark.parametrize(("cores", "quota", "expected"), [(8, None, 8), (8, 2.9, 2), (8, 0.5, 1), (2, 16.0, 2)])
def test_the_smaller_of_affinity_and_quota_counts(monkeypatch, cores, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(processors, "_quota", lambda: quota)
    assert usable_processors() == expected


def test_without_affinity_the_machine_counts(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(processors, "_quota", lambda: None)
    assert usable_processors() == 6


@pytest.mark.parametrize(("ranks", "expected"), [("1", 4), ("2", 2), ("3", 1), ("8", 1)])
def test_ranks_share(monkeypatch, ranks, expected):
    monkeypatch.setattr(processors, "usable_processors", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert own_processors() == expected


@pytest.mark.parametrize(("given", "expected"), [(None, 2), ("3", 3)])
def test_torch_takes_no_more_threads_than_are_ours_unless_told(monkeypatch, given, expected):
    monkeypatch.setattr(processors, "own_processors", lambda: 2)
    for name in processors.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        limit_threads()
        assert torch.get_num_threads() == expected
        limit_threads(1)
        assert torch.get_num_threads() == (expected if given else 1)
    finally:
        torch.set_num_threads(before)


def test_a_loaded_opencv_is_left_alone(monkeypatch):
    """A forked process hangs if it sets the number of threads of OpenCV after OpenCV has used threads."""

    def hangs(_):
        raise AssertionError("this would hang")

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(setNumThreads=hangs))
    monkeypatch.setattr(os, "environ", {})
    use_one_thread()
    assert os.environ == {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
