"""Kendall's tau against scipy's and at its limits."""

import math

import numpy as np
import pytest

from metrics.ranking import kendall_tau


def test_tau_is_that_of_scipy_with_ties_too():
    kendalltau = pytest.importorskip("scipy.stats").kendalltau
    first, second = np.random.default_rng(0).integers(0, 8, (2, 40))
    assert math.isclose(kendall_tau(first, second), kendalltau(first, second).statistic, rel_tol=1e-9)


def test_tau_at_its_limits():
    assert kendall_tau([1, 2, 3], [10, 20, 21]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert math.isnan(kendall_tau([1, 1], [1, 2]))
