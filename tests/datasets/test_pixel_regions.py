"""Regions of drawn pictures: objects are found where they are, and their numbers show shape, colour and place."""

import cv2
import numpy as np
import pytest

from datasets.regions.files import read_image
from datasets.regions.pixels import PixelRegions, object_boxes
from datasets.storage.pictures import BadImage
from tests.datasets.drawn_pictures import BACKGROUND, COLOURS, draw, save
from util.cli import UserError


def test_boxes_of_several_objects_the_largest_first():
    boxes = {"teal": (3, 60, 23, 75), "red": (10, 5, 60, 45), "black": (70, 20, 80, 30)}
    picture = draw(boxes)
    expected = [boxes["red"], boxes["teal"], boxes["black"]]
    assert object_boxes(picture).tolist() == [list(box) for box in expected]
    _, found = PixelRegions()(picture)
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 0, 100, 80], *map(list, expected)]


@pytest.mark.parametrize("seed", range(5))
def test_round_objects_in_the_cells_of_a_grid(seed):
    rng = np.random.default_rng(seed)
    picture = draw({}, size=(120, 160))
    expected = set()
    for cell in rng.permutation(12)[: rng.integers(1, 12)].tolist():
        radius = int(rng.integers(4, 17))
        x, y = 40 * (cell % 4) + 20, 40 * (cell // 4) + 20
        colour = list(COLOURS.values())[rng.integers(4)]
        cv2.circle(picture, (x, y), radius, colour, thickness=-1)
        expected.add((x - radius, y - radius, x + radius + 1, y + radius + 1))
    found = object_boxes(picture).tolist()
    assert {tuple(box) for box in found} == expected
    assert len(found) == len(expected)


def test_objects_at_the_border_and_inside_another():
    picture = draw({"red": (0, 0, 20, 20)})
    cv2.circle(picture, (70, 50), 25, COLOURS["teal"], thickness=4)
    cv2.circle(picture, (70, 50), 6, COLOURS["black"], thickness=-1)
    # The ring is 25 + 2 pixels wide on each side of its centre.
    assert object_boxes(picture).tolist() == [[43, 23, 98, 78], [0, 0, 20, 20], [64, 44, 77, 57]]


def test_specks_and_pale_noise_are_no_objects():
    rng = np.random.default_rng(0)
    picture = draw({"red": (20, 20, 50, 50)}, background=(225, 225, 225))
    picture = np.clip(picture + rng.integers(-12, 13, picture.shape), 0, 255).astype(np.uint8)
    picture[5:6, 5:8] = 0
    assert object_boxes(picture).tolist() == [[20, 20, 50, 50]]


def test_a_picture_without_objects_is_one_region():
    x, boxes = PixelRegions()(draw({}))
    assert boxes.tolist() == [[0, 0, 100, 80]]
    assert x.shape == (1, 512)


def test_numbers_are_colours_then_the_place():
    regions = PixelRegions(feature_size=3 * 6 * 6 + 5 + 2)
    x, _ = regions(draw({"teal": (20, 8, 60, 40)}))
    assert regions.crop == 6
    assert x.dtype == np.float32
    assert x.shape == (2, 115)
    assert np.allclose(x[1, :108].reshape(6, 6, 3), np.array(COLOURS["teal"]) / 255)
    # Width 100, height 80: the area is 40 * 32 of 8000 pixels.
    assert np.allclose(x[1, 108:], [0.2, 0.1, 0.6, 0.5, 0.16, 0, 0])
    assert np.allclose(x[0, 108:], [0, 0, 1, 1, 1, 0, 0])
    assert np.allclose(x[0, :3], np.array(BACKGROUND) / 255)


def test_resizing_averages_the_pixels():
    picture = draw({})
    picture[20:44, 30:54] = np.arange(24)[:, None, None] % 2 * 100
    x, _ = PixelRegions(feature_size=4 * 4 * 3 + 5)(picture)
    assert np.allclose(x[1, :48], 50 / 255, atol=1 / 255)


def test_numbers_lie_between_0_and_1_and_no_region_is_all_zeros():
    x, _ = PixelRegions()(np.zeros((40, 40, 3), dtype=np.uint8))
    assert x.min() == 0
    assert x.any(axis=1).all()
    x, _ = PixelRegions()(draw({"black": (1, 1, 5, 5), "yellow": (50, 50, 51, 60)}))
    assert x.min() >= 0
    assert x.max() <= 1
    assert len(x) == 3
    assert x.any(axis=1).all()


def test_most_regions():
    picture = draw({"red": (10, 5, 60, 45), "teal": (3, 60, 23, 75), "black": (70, 20, 80, 30)})
    _, boxes = PixelRegions(boxes=2)(picture)
    assert boxes.tolist() == [[0, 0, 100, 80], [10, 5, 60, 45]]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_tiny_pictures(size):
    x, boxes = PixelRegions()(np.full((*size, 3), 200, dtype=np.uint8))
    assert boxes.tolist() == [[0, 0, size[1], size[0]]]
    assert np.allclose(x[0, :507], 200 / 255)


@pytest.mark.parametrize("wrong", [{"feature_size": 52}, {"feature_size": 20000}, {"boxes": 0}, {"boxes": 101}])
def test_impossible_numbers(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} "):
        PixelRegions(**wrong)


def test_read_image_is_upright_and_on_white(tmp_path):
    from PIL import Image

    picture = draw({"red": (0, 0, 100, 40)})
    exif = Image.Exif()
    # 6: to be turned a quarter to the right.
    exif[0x0112] = 6
    turned = read_image(save(tmp_path / "turned.png", picture, exif=exif))
    assert np.array_equal(turned, np.rot90(picture, -1))

    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    clear[0, 0] = (255, 0, 0, 255)
    shown = read_image(save(tmp_path / "clear.png", clear))
    assert shown[0, 0].tolist() == [255, 0, 0]
    assert (shown[1:] == 255).all()

    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert np.array_equal(read_image(save(tmp_path / "grey.png", grey)), np.repeat(grey[..., None], 3, axis=2))


def test_read_image_says_why_it_cannot(tmp_path):
    with pytest.raises(BadImage, match="does not exist"):
        read_image(tmp_path / "none.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(BadImage, match="is not a readable image"):
        read_image(tmp_path / "empty.png")
    path = save(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadImage, match="is not a readable image"):
        read_image(path)
