"""Relations of boxes and box features: the original's numbers, pairs, and padding after an image's boxes."""

import numpy as np
import pytest
import torch

from models.mmnas.fast_layers import PaddedSide, PairValues, pair_relations
from models.mmnas.regions import box_features, box_relations
from tests.mmnas_golden import Golden

GOLDEN = Golden("relation")


def boxes():
    return torch.from_numpy(GOLDEN.arrays["boxes"])[None]


def padded(counts, length=12):
    mask = torch.arange(length) >= torch.tensor(counts)[:, None]
    return boxes().expand(len(counts), -1, -1)[:, :length].masked_fill(mask[..., None], 0.0), mask


def test_relations():
    GOLDEN.assert_output("rel_img", box_relations(boxes(), torch.tensor([12]))[0])


def test_box_features():
    height, width = GOLDEN.spec["image_h_w"]
    features = box_features(torch.cat([boxes(), torch.zeros(1, 88, 4)], dim=1), torch.tensor([[height, width]]))
    GOLDEN.assert_output("bbox_feat", features[0, :12])
    assert features.shape == (1, 100, 5) and not features[0, 12:].any()
    assert features.sum().item() == pytest.approx(GOLDEN.spec["padded_bbox_feat_100_sum"], rel=1e-5)


def test_zero_beyond_the_own_boxes():
    given, _ = padded([12, 5, 0])
    found = box_relations(given, torch.tensor([12, 5, 0]))
    expected = np.zeros((3, 12, 12, 4), np.float32)
    expected[0], expected[1, :5, :5] = GOLDEN.arrays["rel_img"], GOLDEN.arrays["rel_img"][:5, :5]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("counts", [[7, 5, 1], [12, 12, 12], [3, 0, 12]])
def test_pairs_of_packed_rows(counts):
    given, mask = padded(counts)
    side = PaddedSide(mask, pack=True)
    everything = box_relations(given, torch.tensor(counts))
    pairs = side.pairs()
    if pairs is None:
        values = everything
    else:
        values = pair_relations(given, torch.tensor(counts), pairs)
        assert torch.equal(everything.flatten(0, 2)[pairs], values)
    # A sample that is all padding keeps all of its rows.
    assert values.shape[:-1].numel() == sum((n or 12) ** 2 for n in counts)
    spread = side.pair_bias(PairValues(values, pairs), torch.float32).masked_fill(mask[:, None, None], 0.0)
    torch.testing.assert_close(spread, everything.permute(0, 3, 1, 2))


def test_half_precision_boxes_are_computed_in_single():
    found = box_relations(boxes().half(), torch.tensor([12]))
    assert found.dtype == torch.float32
    assert torch.equal(found, box_relations(boxes().half().float(), torch.tensor([12])))
