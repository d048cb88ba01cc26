"""Accuracy of grounding against the original's rows (fixture ``vgd_targets``, ``decode``) and counts by hand."""

import numpy as np
import pytest
import torch

from metrics.grounding import GroundingAccuracy, best_boxes
from tests.mmnas_golden import generator
from tests.models.test_grounding_loss import GOLDEN, batch_of

ROWS = GOLDEN.spec["decode"]["rows"]


def golden_inputs():
    """Outputs and batch of the decoded rows: cases 0, 1 and 4."""
    g = generator(55)
    scores, offsets = (torch.from_numpy(g.standard_normal(s).astype(np.float32)) for s in ((3, 100), (3, 100, 4)))
    scores[1, 7] += 10
    return (scores, offsets), batch_of(0, 1, 4) | {"index": torch.arange(3)}


def test_rows_of_the_original():
    outputs, batch = golden_inputs()
    assert outputs[0].argmax(1).tolist() == [row["argmax"] for row in ROWS]
    np.testing.assert_allclose(best_boxes(outputs, batch).numpy(), [row["box"] for row in ROWS], rtol=1e-4, atol=1e-3)
    metric = GroundingAccuracy()
    metric.update(outputs, batch)
    rows, boxes, overlaps = metric.results()
    assert rows.tolist() == [0, 1, 2] and boxes.shape == (3, 4)
    np.testing.assert_allclose(overlaps, [row["iou"] for row in ROWS], rtol=1e-4)
    assert (overlaps >= 0.5).tolist() == [row["correct"] for row in ROWS]
    found = metric.compute()
    assert found["accuracy"] == pytest.approx(1 / 3) and found["mean_iou"] == pytest.approx(overlaps.mean())


def test_samples_count_once_over_batches_and_ranks(monkeypatch):
    outputs, batch = golden_inputs()
    metric = GroundingAccuracy()
    for rows in ([1], [0, 1], [2, 0]):  # a sampler that repeats samples, in any order
        metric.update(tuple(one[rows] for one in outputs), {name: value[rows] for name, value in batch.items()})
    assert metric.results()[0].tolist() == [0, 1, 2] and metric.compute()["accuracy"] == pytest.approx(1 / 3)
    # Another rank also saw sample 1, and was right about a sample 5.
    other = np.array([1, 5]), np.array([[0.0, 0, 1, 1, 0.9], [0, 0, 1, 1, 0.75]])
    monkeypatch.setattr("metrics.grounding.gather", lambda own: [own, other])
    assert metric.compute()["accuracy"] == pytest.approx(2 / 4)
    assert metric.results()[0].tolist() == [0, 1, 2, 5]
    metric.reset()
    monkeypatch.undo()
    assert np.isnan(metric.compute()["accuracy"])


def test_boxes_stay_inside_their_image():
    batch = {"boxes": torch.tensor([[[0.0, 0, 9, 9], [5, 5, 9, 9]]]), "image_size": torch.tensor([[8.0, 20.0]])}
    outputs = torch.tensor([[1.0, 0.0]]), torch.tensor([[[90.0, -90, 2000, 1], [0, 0, 0, 0]]])
    box = best_boxes(outputs, batch)
    assert box.isfinite().all() and box.tolist() == [[0.0, 0.0, 19.0, 0.0]]


def test_the_convention_decides_at_the_border():
    """In pixels, a box of 2 x 3 is half of one of 2 x 6; between the edges it is 1 x 2 of 1 x 5."""
    batch = {
        # The region (3, 3, 3, 4) is decoded to (3, 3, 4, 5).
        "boxes": torch.tensor([[[3.0, 3.0, 3.0, 4.0]]]),
        "image_size": torch.tensor([[50.0, 50.0]]),
        "label": torch.tensor([[3.0, 3.0, 4.0, 8.0]]),
        "index": torch.tensor([0]),
    }
    for convention, expected in (("pixels", (1.0, 0.5)), ("continuous", (0.0, 0.4))):
        metric = GroundingAccuracy(convention)
        metric.update((torch.zeros(1, 1), torch.zeros(1, 1, 4)), batch)
        assert tuple(metric.compute().values()) == pytest.approx(expected)
