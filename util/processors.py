"""The number of processors that this process may use, given its affinity, container quota, and the number of ranks."""

import os
from pathlib import Path

# If any of these is set, the user has chosen a thread count.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_processors() -> int:
    """Number of processors that this process may use, at least 1.

    A container with a quota (``docker --cpus 2``, a pod's CPU limit) sees all processors of its machine, but is paused
    when it uses more than its quota. The quota is therefore a limit too.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, min(count, int(quota))) if quota else count


def own_processors() -> int:
    """`usable_processors` divided by the number of ranks on this machine (torchrun or ``--GPU``), at least 1."""
    return max(1, usable_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def limit_threads(most: int | None = None) -> None:
    """Limit torch's threads to ``most``, unless the user has set a thread count in the environment.

    Args:
        most: Number of threads; None: `own_processors`. 1 suits small networks, whose operations take microseconds:
            more threads mostly wait for each other, above all while other processes run. On two cores, two threads
            took twice the processor time for the networks of `make demo`, and were no faster.
    """
    import torch

    if not any(name in os.environ for name in THREAD_VARIABLES):
        torch.set_num_threads(min(torch.get_num_threads(), most or own_processors()))


def use_one_thread() -> None:
    """Let this process compute in one thread; for workers, of which there is one per processor."""
    import sys

    # For libraries that are imported later. If OpenCV is imported already, it computes in one thread (`util.threads`).
    # Setting that again in a forked process would wait forever for threads that do not exist after the fork.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _quota(root=Path("/sys/fs/cgroup"), own=Path("/proc/self/cgroup")):
    """The smallest processor quota (float) of this process's control groups; None if none has a limit."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += [_quota_of_2(folder) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            # The mount point of version 1 differs between systems.
            for mount in (root / "cpu", root / "cpu,cpuacct"):
                quotas += [_quota_of_1(folder) for folder in _upwards(mount, path)]
    return min((quota for quota in quotas if quota), default=None)


def _upwards(root, path):
    """The folders of a control group and of all groups above it."""
    folder = root / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _quota_of_2(folder):
    words = _words(folder / "cpu.max")
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(map(str.isdigit, words)) else None


def _quota_of_1(folder):
    words = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(map(str.isdigit, words)) else None


def _words(path):
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return []
