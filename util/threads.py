"""How OpenMP's and OpenCV's threads behave: set before torch and OpenCV are first imported."""

import os
from collections.abc import MutableMapping

# What a user may have set to say how idle threads wait. Any of them means: leave it to the user.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# A few microseconds of spinning cost nothing on a quiet machine. The defaults (GNU: 300,000 turns, Intel and LLVM:
# 200 ms) hold a core that another process, or a data worker of ours, needs to reach the same barrier.
SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def set_openmp_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make OpenMP's idle threads sleep early; what the user has set stays as it is.

    Call it before torch, scikit-learn or OpenCV are imported: their OpenMP libraries read the environment once, when
    they are loaded. ``benchmarks/busy_machine.py`` measures the effect.

    Args:
        environment: The mapping to change.
    """
    if not any(name in environment for name in WAITING):
        environment.update(SHORT_SPIN)
    # Its threads do not survive a fork, and a data worker that then uses them waits for ever. We read pictures in many
    # processes, not in many threads.
    environment.setdefault("OPENCV_FOR_THREADS_NUM", "1")
