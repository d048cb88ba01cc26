"""F1 and accuracy against golden values and counts by hand."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from metrics.classification import Accuracy, AccuracyAndF1, MultilabelF1
from metrics.regression import Regression
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


@pytest.mark.parametrize("present", [5, 3])
def test_macro_f1_is_that_of_scikit_learn(present):
    from sklearn.metrics import accuracy_score, f1_score

    draw = torch.Generator().manual_seed(present)
    logits, labels = torch.randn(80, 5, generator=draw), torch.randint(present, (80,), generator=draw)
    logits[:, 4] -= 9 * (present == 3)  # then class 4 is neither present nor predicted, and class 3 is only predicted
    metric = AccuracyAndF1(5, select="macro_f1")
    assert math.isnan(metric.compute()["macro_f1"])
    for part in (slice(0, 50), slice(50, 80)):
        metric.update(logits[part], {"label": labels[part]})
    scores, predicted = metric.compute(), logits.argmax(1)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-12)
    assert scores[metric.name] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-12)
    metric.reset()
    assert math.isnan(metric.compute()["accuracy"])
    with pytest.raises(ValueError, match="neither accuracy nor macro_f1"):
        AccuracyAndF1(5, select="f1")


@pytest.mark.parametrize("make", [lambda: AccuracyAndF1(3), lambda: Regression(sentiment=True)])
def test_ranks_are_joined(make, monkeypatch):
    """The scores of two ranks are those of a single one with all samples; a third rank has none."""
    draw = torch.Generator().manual_seed(0)
    number = make().name == "r2"
    outputs = 2 * torch.randn((20,) if number else (20, 3), generator=draw)
    labels = torch.randn(20, generator=draw) if number else torch.randint(3, (20,), generator=draw)
    sent, scores = [], []
    module = f"metrics.{'regression' if number else 'classification'}.gather"
    for part in (slice(0, 20), slice(0, 13), slice(13, 20), slice(20, 20)):
        metric = make()
        if part.start < 20:
            metric.update(outputs[part], {"label": labels[part]})
        monkeypatch.setattr(module, lambda own: sent.append(own) or [own])
        scores.append(metric.compute())
    monkeypatch.setattr(module, lambda own: sent[1:])
    assert make().compute() == pytest.approx(scores[0], abs=1e-12)
