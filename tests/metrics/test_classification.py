"""F1 against the golden values and a count by hand."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from metrics.classification import Accuracy, MultilabelF1
from tests.golden import DATA, normal

SPEC = json.loads((DATA / "metrics.json").read_text())


@pytest.fixture(scope="module")
def golden():
    logits, score = (normal(entry["seed"], entry["shape"]) for entry in SPEC["inputs"])
    labels = (score > 1.2).float()
    labels[:, 5:7] = 0
    logits[:, 6] = -5
    return logits, {"label": labels}


@pytest.mark.parametrize(("average", "division", "key"), [
    ("weighted", 1.0, "f1_weighted_zero_division_1"),
    ("weighted", 0.0, "f1_weighted_default_zero_division"),
    ("macro", 1.0, "f1_macro_zero_division_1"),
    ("macro", 0.0, "f1_macro_default_zero_division"),
])  # fmt: skip
def test_golden_values(golden, average, division, key):
    logits, batch = golden
    metric = MultilabelF1(average, zero_division=division)
    for part in (slice(0, 10), slice(10, 64)):  # over the epoch, not per batch
        metric.update(logits[part], {"label": batch["label"][part]})
    assert metric.compute()["f1"] == pytest.approx(SPEC["values"][key], rel=1e-12)


def test_golden_loss(golden):
    logits, batch = golden
    loss = F.binary_cross_entropy_with_logits(logits, batch["label"]).item()
    assert loss == pytest.approx(SPEC["values"]["bce_with_logits"], rel=1e-6)


def test_by_hand():
    """Threshold 0.3 on the probability: logit -0.84 is predicted, -0.86 is not."""
    metric = MultilabelF1("micro")
    metric.update(torch.tensor([[-0.84, -0.86], [2.0, -3.0]]), {"label": torch.tensor([[1.0, 1.0], [0.0, 0.0]])})
    assert metric.compute()["f1"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    metric.reset()
    assert metric.compute()["f1"] != metric.compute()["f1"]


def test_accuracy_counts_samples_not_batches():
    metric = Accuracy()
    logits = torch.tensor([[0.0, 2, 1], [3, 0, 0], [0, 0, 1], [5, 4, 3], [0, 1, 0]])
    labels = torch.tensor([1, 0, 1, 0, 2])
    for part in (slice(0, 4), slice(4, 5)):
        metric.update(logits[part], {"label": labels[part]})
    assert metric.compute() == {"accuracy": 3 / 5}
    metric.reset()
    assert math.isnan(metric.compute()["accuracy"])
