"""Boxes against the original's numbers (fixture ``boxes``), torchvision and geometry."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from tests.mmnas_golden import Golden
from util.boxes import STDS, clip_boxes, decode_boxes, encode_boxes, overlaps


@pytest.fixture(scope="module")
def golden():
    return Golden("boxes")


def tensor(golden, name):
    return torch.from_numpy(golden.arrays[name])


def plain_offsets(offsets):
    """Our offsets are divided by standard deviations, those of the fixture are not."""
    return (offsets * offsets.new_tensor(STDS, dtype=torch.float64)).numpy()


def test_overlaps_of_the_original(golden):
    found = overlaps(tensor(golden, "ex"), tensor(golden, "query"))
    np.testing.assert_allclose(found.numpy(), golden.arrays["ov"], rtol=1e-12, atol=1e-15)
    special = torch.tensor(golden.spec["special_boxes"])
    assert overlaps(special, special).dtype == torch.float64
    np.testing.assert_allclose(overlaps(special, special).numpy(), golden.spec["special_overlaps"], rtol=1e-12)


def test_overlaps_of_torchvision_and_of_batches(golden):
    boxes, others = tensor(golden, "ex"), tensor(golden, "query")
    expected = box_iou(boxes, others)
    torch.testing.assert_close(overlaps(boxes, others, "continuous"), expected)
    together = overlaps(boxes.reshape(3, 2, 5, 4), others.expand(3, 2, 7, 4), "continuous")
    torch.testing.assert_close(together, expected.reshape(3, 2, 5, 7))
    with pytest.raises(ValueError, match="pixels, continuous"):
        overlaps(boxes, others, "coco")


def test_offsets_of_the_original(golden):
    boxes, goals = tensor(golden, "ex"), tensor(golden, "gt")
    np.testing.assert_allclose(plain_offsets(encode_boxes(boxes, goals)), golden.arrays["tr"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        plain_offsets(encode_boxes(boxes, goals[0])), golden.arrays["tr1"], rtol=1e-10, atol=1e-12
    )


def test_decoding_of_the_original(golden):
    boxes, goals = tensor(golden, "ex"), tensor(golden, "gt")
    there = decode_boxes(boxes, encode_boxes(boxes, goals))
    np.testing.assert_allclose(there.numpy(), golden.arrays["inv"], rtol=1e-10)
    # As in the original, x2 and y2 are one pixel larger.
    torch.testing.assert_close(there, goals + torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64))
    offsets = tensor(golden, "deltas").double() / torch.tensor(STDS, dtype=torch.float64)
    found = decode_boxes(boxes.float(), offsets)
    np.testing.assert_allclose(found.numpy(), golden.arrays["inv2"], rtol=1e-4, atol=1e-3)
    clipped = clip_boxes(found, torch.tensor([480.0, 640.0]))
    np.testing.assert_allclose(clipped.numpy(), golden.arrays["clip"], rtol=1e-4, atol=1e-3)


def test_clipping_takes_each_image_for_itself():
    boxes = torch.tensor([[[-5.0, 3.0, 700.0, 90.0]], [[-5.0, 3.0, 700.0, 90.0]]])
    found = clip_boxes(boxes, torch.tensor([[[50.0, 640.0]], [[480.0, 20.0]]]))
    assert found.tolist() == [[[0.0, 3.0, 639.0, 49.0]], [[0.0, 3.0, 19.0, 90.0]]]


def test_no_boxes():
    none = torch.zeros(0, 4)
    assert overlaps(none, torch.ones(2, 4)).shape == (0, 2)
    assert decode_boxes(none, none).shape == encode_boxes(none, torch.ones(4)).shape == (0, 4)
