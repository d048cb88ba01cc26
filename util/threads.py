"""How many cores this process may use, and how OpenMP's threads wait: set before torch is first imported."""

import os
from pathlib import Path

# What a user may have set to say how idle threads wait. Any of them means: leave it to the user.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# A few microseconds of spinning cost nothing on a quiet machine. The defaults (GNU: 300,000 turns, Intel and LLVM:
# 200 ms) hold a core that another process, or a data worker of ours, needs to reach the same barrier.
SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def set_openmp_defaults(environment=os.environ):
    """Make OpenMP's idle threads sleep early, and use no more threads than the container may run at once.

    Call it before torch, scikit-learn or OpenCV are imported: their OpenMP libraries read the environment once, when
    they are loaded. ``benchmarks/busy_machine.py`` measures the effect. What the user has set stays as it is.

    Args:
        environment: The mapping to change.
    """
    if not any(name in environment for name in WAITING):
        environment.update(SHORT_SPIN)
    quota = cpu_quota()
    if quota is not None and "OMP_NUM_THREADS" not in environment and quota < usable_cores(quota=None):
        environment["OMP_NUM_THREADS"] = str(quota)


def usable_cores(quota="cgroup"):
    """Cores that this process may keep busy: those of its affinity mask, within its container's CPU quota.

    Args:
        quota: Cores of the quota; None for no quota; ``cgroup`` reads the container's.

    Returns:
        At least 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota() if quota == "cgroup" else quota
    return cores if quota is None else min(cores, quota)


def cpu_quota(root="/sys/fs/cgroup"):
    """The container's CPU quota in whole cores, rounded up, or None where there is none.

    Args:
        root: Where the control groups are mounted: ``cpu.max`` (version 2) or ``cpu/cpu.cfs_*_us`` (version 1).
    """
    try:
        quota, period = Path(root, "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = (
                Path(root, "cpu", f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        except (OSError, ValueError):
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max", or -1: no limit
    return max(1, -(-int(quota) // int(period)))
