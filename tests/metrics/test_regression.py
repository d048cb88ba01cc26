"""Regression scores are equal to those of scikit-learn and NumPy, and to counts by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score

from metrics.regression import Regression


def scores_of(true, predicted, **options):
    metric = Regression(**options)
    for part in (slice(0, 3), slice(3, None)):
        metric.update(torch.tensor(predicted[part])[:, None], {"label": torch.tensor(true[part])})
    return metric.compute()


def test_errors_and_correlation():
    rng = np.random.default_rng(0)
    true = rng.normal(size=40)
    predicted = 0.5 * true + rng.normal(size=40)
    scores = scores_of(true, predicted)
    assert scores == pytest.approx({
        "mean_absolute_error": mean_absolute_error(true, predicted),
        "correlation": np.corrcoef(true, predicted)[0, 1],
        "r2": r2_score(true, predicted),
    }, abs=1e-12)  # fmt: skip


def test_constants():
    constant = scores_of(np.arange(5.0), np.ones(5))
    assert math.isnan(constant["correlation"]) and constant["r2"] == pytest.approx(r2_score(np.arange(5.0), np.ones(5)))
    assert scores_of(np.ones(5), np.ones(5))["r2"] == 1 and scores_of(np.ones(5), np.arange(5.0))["r2"] == 0
    assert all(map(math.isnan, Regression().compute().values()))
    with pytest.raises(ValueError, match="neither r2 nor correlation"):
        Regression(select="mean_absolute_error")


def test_sentiment():
    rng = np.random.default_rng(1)
    true = np.concatenate([rng.uniform(-3, 3, 60), np.zeros(10)])
    predicted = np.concatenate([true[:30] + rng.normal(size=30), rng.uniform(-4, 4, 40)])
    scores, sided = scores_of(true, predicted, sentiment=True), true != 0
    seven = [np.rint(np.clip(values, -3, 3)).astype(int) for values in (true, predicted)]
    assert scores["accuracy_7"] == pytest.approx(accuracy_score(*seven))
    for ending, labels, outputs in (
        ("", true[sided] > 0, predicted[sided] > 0),
        ("_with_zero", true >= 0, predicted >= 0),
    ):
        assert scores[f"accuracy_2{ending}"] == pytest.approx(accuracy_score(labels, outputs))
        assert scores[f"f1_2{ending}"] == pytest.approx(f1_score(labels, outputs, average="weighted"))
    assert scores["accuracy_2"] != scores["accuracy_2_with_zero"]


def test_sentiment_by_hand():
    scores = scores_of(np.array([-3.0, 2.4, 0.0, 1.0]), np.array([-5.0, 2.6, -0.1, -1.0]), sentiment=True)
    assert scores["accuracy_7"] == 0.5  # -3 and 0 are correct
    assert scores["accuracy_2"] == pytest.approx(2 / 3) and scores["accuracy_2_with_zero"] == 0.5
