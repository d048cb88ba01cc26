"""Random numbers that depend on a key and a position only: equal in every process, whatever was drawn before."""

from collections.abc import Sequence

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hashed_integers(key: Sequence[int], rows: np.ndarray, count: int, high: int) -> np.ndarray:
    """Uniform integers by the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        key: Non-negative integers, such as a seed and an epoch. Different keys give different numbers.
        rows: Non-negative positions, int64 (n,).
        count: Number of draws per row.
        high: Exclusive upper bound of the draws; at least 1.

    Returns:
        int64 (n, count) in 0..high-1.
    """
    state = np.zeros(1, dtype=np.uint64)
    for number in key:
        state = _mixed((state ^ np.uint64(number)) + _STEP)
    places = np.asarray(rows, dtype=np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    # The bias of the remainder towards small numbers is less than high / 2**64.
    return (_mixed(_mixed(places + _STEP) ^ state) % np.uint64(high)).astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
