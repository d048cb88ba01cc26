"""Retrieval metrics against the original's numbers and a sort of every row."""

import numpy as np
import pytest
import torch

from metrics.retrieval import MEAN_RECALL, TripleAccuracy, retrieval_ranks, retrieval_scores, retrieval_table
from tests.mmnas_golden import Golden
from util.cli import UserError


def listed(scores):
    """Scores in the fixture's order and units: R@1 R@5 R@10 in %, medr, meanr."""
    return [
        [100 * scores[f"{way} R@{k}"] for k in (1, 5, 10)] + [scores[f"{way} medr"], scores[f"{way} meanr"]]
        for way in ("i2t", "t2i")
    ]


def test_random_scores_as_the_original():
    golden = Golden("itm")
    expected, matrix = golden.spec["retrieval_random"], golden.arrays["mat_random"]
    images, captions = retrieval_ranks(matrix)
    assert images.tolist() == expected["i2t_ranks"] and captions.tolist() == expected["t2i_ranks"]
    scores = retrieval_scores(matrix)
    np.testing.assert_allclose(listed(scores), [expected["i2t"], expected["t2i"]], atol=1e-9)
    assert retrieval_table(scores) == expected["log_lines"]
    assert scores[MEAN_RECALL] == pytest.approx((60 + 65 + 65 + 18 + 42 + 68) / 600)


def test_ties_as_the_originals_stable_sort_turned_round():
    # The original's reversed stable sort puts the higher index first; on a reversed matrix, so does ours.
    golden = Golden("itm")
    expected, matrix = golden.spec["retrieval_ties"], golden.arrays["mat_ties"][::-1, ::-1]
    found = listed(retrieval_scores(matrix))
    np.testing.assert_allclose(found, [expected["i2t_stable_sort"], expected["t2i_stable_sort"]], atol=1e-9)


@pytest.mark.parametrize("images", [1, 7, 300])
def test_ranks_by_sorting_every_row(images):
    scores = np.random.default_rng(images).integers(0, 9, (images, 5 * images)).astype(np.float32)
    i2t, t2i = retrieval_ranks(scores)
    for image in range(images):
        order = np.argsort(-scores[image], kind="stable")
        assert i2t[image] == np.flatnonzero(order // 5 == image)[0]
    for caption in range(0, 5 * images, 3):
        order = np.argsort(-scores[:, caption], kind="stable")
        assert t2i[caption] == np.flatnonzero(order == caption // 5)[0]


def test_a_constant_score_and_nan_gain_nothing():
    same = retrieval_scores(np.ones((20, 100)))
    assert same["i2t R@1"] == same["t2i R@1"] == 1 / 20
    broken = np.zeros((4, 20))
    broken[3, 15:] = np.nan
    i2t, t2i = retrieval_ranks(broken)
    assert i2t[3] == 15 and t2i[15:].tolist() == [3] * 5


def test_folds_are_scored_apart():
    scores = np.random.default_rng(0).random((9, 45))
    parts = [retrieval_scores(scores[4 * n : 4 * n + 4, 20 * n : 20 * n + 20]) for n in range(2)]
    found = retrieval_scores(scores, fold_size=4)
    assert found == pytest.approx({name: (parts[0][name] + parts[1][name]) / 2 for name in found})
    with pytest.raises(UserError, match="a fold needs 10 images"):
        retrieval_scores(scores, fold_size=10)


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"\(4, 19\): retrieval needs n images and five captions"):
        retrieval_ranks(np.zeros((4, 19)))


def test_share_of_samples_above_their_negatives():
    metric = TripleAccuracy()
    metric.update(torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.2, 0.6]]), {})
    metric.update(torch.tensor([[0.2, 0.1, 0.1]]), {})
    assert metric.compute() == {"accuracy": 0.5}
