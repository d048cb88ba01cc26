"""Agreement between two rankings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two lists of numbers: 1 for the same order, -1 for the reverse; NaN if one is constant.

    It is (pairs in the same order - pairs in opposite order) / geometric mean of the lists' numbers of untied pairs.
    """
    signs = [np.sign(np.subtract.outer(values, values)) for values in map(np.asarray, (first, second))]
    pairs = math.sqrt(np.abs(signs[0]).sum() * np.abs(signs[1]).sum())
    return float((signs[0] * signs[1]).sum() / pairs) if pairs else math.nan
