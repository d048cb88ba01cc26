"""Settings for the threads of OpenMP and OpenCV, which must be made before torch and OpenCV are imported."""

import os
from collections.abc import MutableMapping

# Variables with which users control how idle threads wait. If any of them is set, nothing is changed.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# A few microseconds of spinning cost nothing on an idle machine. The defaults (GNU: 300,000 turns, Intel and LLVM:
# 200 ms) occupy a core that another process or data worker may need to reach the same barrier.
SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def set_openmp_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make idle OpenMP threads sleep early, unless the user has set how they wait.

    It must be called before torch, scikit-learn or OpenCV are imported, since their OpenMP libraries read the
    environment when they are loaded. ``benchmarks/busy_machine.py`` measures the effect.

    Args:
        environment: The environment variables to change.
    """
    if not any(name in environment for name in WAITING):
        environment.update(SHORT_SPIN)
    # OpenCV's threads do not survive a fork, and a data worker that uses them afterwards waits forever. Images are read
    # by several processes anyway, so OpenCV does not need threads.
    environment.setdefault("OPENCV_FOR_THREADS_NUM", "1")
