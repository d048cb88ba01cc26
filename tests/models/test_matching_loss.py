"""Matching losses against the originals' numbers."""

import numpy as np
import pytest
import torch

from models.mmnas.losses import MatchingLoss
from tests.mmnas_golden import Golden, generator


def fixture_scores():
    g = generator(71)
    own, caption, image = (g.random(16).astype(np.float32) for _ in range(3))
    own[0] = caption[0] = 1
    image[1] = 0
    return torch.from_numpy(np.stack([own, caption, image], axis=1))


def test_losses_as_the_original():
    expected, scores = Golden("itm").spec, fixture_scores()
    assert 16 * MatchingLoss("bce")(scores, {}).item() == pytest.approx(expected["bce_sum"], rel=1e-6)
    assert MatchingLoss("bce")(scores, {}).item() == pytest.approx(expected["bce_mean"], rel=1e-6)
    assert 16 * MatchingLoss("margin")(scores, {}).item() == pytest.approx(expected["margin"], rel=1e-6)


@pytest.mark.parametrize("kind", ["bce", "margin"])
def test_scores_at_their_bounds_have_finite_gradients(kind):
    scores = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]], requires_grad=True)
    loss = MatchingLoss(kind)(scores, {})
    loss.backward()
    assert loss.isfinite() and scores.grad.isfinite().all() and loss > 0
