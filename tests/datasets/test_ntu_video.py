"""Frames are chosen as in the original, checked against its numbers and against real AVI files."""

import numpy as np
import pytest

from datasets.ntu.names import BadSample
from datasets.ntu.video import (
    Crop,
    avi_length,
    crop_length,
    crop_slots,
    kept_frames,
    pick_slots,
    read_avi,
    slots,
    to_decode,
)
from tests.datasets.ntu_files import level, write_mjpg
from tests.golden import Golden

CASES = Golden("ntu_video_sampling").spec["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["n_frames"]))
def test_slots_as_in_the_original(case):
    filled = slots(case["n_frames"])
    assert filled.tolist() == case["slots"]
    assert filled[pick_slots(8)].tolist() == case["eval_8_frames"]


def test_eight_of_any_number_of_slots_as_in_the_original():
    for count, expected in Golden("ntu_length_normalisation").spec["rgb_indices"].items():
        assert pick_slots(8, 0, int(count)).tolist() == expected
        assert pick_slots(8, 3, 3 + int(count)).tolist() == [3 + number for number in expected]


@pytest.mark.parametrize("length", [1, 2, 5, 23, 24, 25, 60, 299])
def test_corrected_sampling_spans_the_clip_without_gaps(length):
    filled = slots(length, "corrected").tolist()
    assert filled == [int(number * (length - 1) / 23 + 1e-9) for number in range(24)]
    assert (filled[0], filled[-1]) == (0, length - 1)


@pytest.mark.parametrize("length", [1, 3, 24, 50, 123])
def test_kept_frames_serve_both_ways(length):
    kept = set(kept_frames(length).tolist())
    wanted = set(slots(length).tolist()) | set(slots(length, "corrected").tolist())
    assert kept == wanted - {-1}
    assert kept_frames(length).tolist() == sorted(kept)


@pytest.mark.parametrize("case", CASES[:7], ids=lambda case: str(case["n_frames"]))
def test_frames_of_a_real_file(case, tmp_path):
    path = write_mjpg(tmp_path / "clip.avi", case["n_frames"])
    assert avi_length(path) == case["n_frames"]
    chosen, images = read_avi(path, slots)
    assert chosen.tolist() == case["slots"]
    assert sorted(images) == [number for number in case["slots"] if number >= 0]
    for number, image in images.items():
        assert (image.shape, image.dtype) == ((32, 48, 3), np.uint8)
        assert abs(float(image.mean()) - level(number)) < 2


def test_repeats_are_decoded_once():
    assert to_decode(np.array([3, -1, 0, 3, 7, -1])) == [0, 3, 7]


def crop_cases():
    return Golden("ntu_aug_crop").spec["cases"]


def test_crop_as_in_the_original():
    assert len(crop_cases()) > 10
    for case in crop_cases():
        assert list(crop_slots(case["u_ratio"])) == case["rgb_range"]
        kept = crop_length(case["n_ske"], case["u_p"])
        assert case["n_ske"] - kept + 1 == case["randint_high_exclusive"]
        begin = int(case["v_int"] * case["randint_high_exclusive"])
        assert [begin, begin + kept] == case["ske_range"]


def test_crop_draws_in_the_original_order_from_seed_epoch_and_index():
    random = np.random.RandomState([5, 2, 77])
    ratio, share = random.rand(), random.rand()
    kept = min(max(int(np.floor(100 * (0.5 + 0.5 * share))), 64), 100)
    begin = random.randint(0, 100 - kept + 1)
    np.random.seed(0)
    crop = Crop(5, 2, 77)
    assert crop.slots == crop_slots(ratio)
    assert crop.skeleton(100) == (begin, begin + kept)
    others = {Crop(*key).slots + Crop(*key).skeleton(300) for key in ((5, 2, 78), (5, 3, 77), (6, 2, 77), (5, 2, 77))}
    assert len(others) == 4


def test_crop_begins_at_one_of_seven_slots():
    assert {crop_slots(draw)[0] for draw in np.linspace(0, 1, 1000, endpoint=False)} == set(range(7))


def test_unreadable_files(tmp_path):
    path = tmp_path / "clip.avi"
    with pytest.raises(BadSample, match="not a readable video"):
        avi_length(path)
    path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(BadSample, match="not a readable video"):
        read_avi(path, slots)


def test_cut_file_says_how_far_it_goes(tmp_path):
    path = write_mjpg(tmp_path / "clip.avi", 40)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadSample, match="is cut short: it has 7,600 of 15,200 bytes"):
        read_avi(path, slots)
