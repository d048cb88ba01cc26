"""Pictures of every kind that a file can hold, opened alike by everything that reads or draws them."""

import io

import numpy as np
import pytest
from PIL import Image

from datasets.demo.mmimdb_rows import _read_picture
from datasets.ego.frames import decode
from datasets.regions.drawing import COLOUR, draw_box, draw_regions, draw_sheet
from datasets.regions.files import read_image
from datasets.storage.pictures import BadImage, open_grey, open_picture
from util.cli import UserError

WHITE = (255, 255, 255)


def scene(height=6, width=9):
    """Random colours, no two rows or columns alike: uint8 (H, W, 3)."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stored(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    file.seek(0)
    return file


def opened(image, form="PNG", **options):
    found = open_picture(stored(image, form, **options))
    assert found.mode == "RGB"
    return np.array(found)


# EXIF orientation -> what turns the stored picture upright.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_upright(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    found = opened(Image.fromarray(scene()), form, exif=exif, **options)
    assert np.array_equal(found, TURNS[orientation](scene()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("data", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_damaged_exif_data_do_not_damage_the_picture(data):
    picture = np.full((6, 9, 3), 77, dtype=np.uint8)
    assert np.array_equal(opened(Image.fromarray(picture), "JPEG", exif=data, quality=100), picture)


class TestTransparency:
    clear = np.arange(54).reshape(6, 9) % 3 == 0

    def expected(self, picture):
        return np.where(self.clear[..., None], 255, picture)

    def test_of_colours(self):
        picture = np.dstack([scene(), np.where(self.clear, 0, 255).astype(np.uint8)])
        assert np.array_equal(opened(Image.fromarray(picture)), self.expected(scene()))

    def test_in_part(self):
        half = np.dstack([np.zeros((1, 1, 3), np.uint8), np.full((1, 1), 51, np.uint8)])
        assert opened(Image.fromarray(half)).tolist() == [[[204, 204, 204]]]

    def test_of_greys(self):
        grey = scene()[..., 0]
        picture = np.dstack([grey, np.where(self.clear, 0, 255).astype(np.uint8)])
        assert np.array_equal(opened(Image.fromarray(picture)), self.expected(np.dstack([grey] * 3)))

    def test_of_a_palette(self):
        numbers = np.where(self.clear, 0, np.arange(54).reshape(6, 9) % 5 + 1).astype(np.uint8)
        colours = scene(1, 6)[0]
        image = Image.fromarray(numbers, "P")
        image.putpalette(colours.tobytes())
        assert np.array_equal(opened(image, transparency=0), self.expected(colours[numbers]))
        assert np.array_equal(opened(image), colours[numbers])

    @pytest.mark.parametrize("bits", [8, 16])
    def test_of_one_grey(self, bits):
        grey = np.arange(54).reshape(6, 9) * 3
        grey[self.clear] = 200
        values = grey.astype(np.uint8) if bits == 8 else (grey * 257).astype(np.uint16)
        found = opened(Image.fromarray(values), transparency=int(values[0, 0]))
        assert np.array_equal(found, self.expected(np.dstack([grey] * 3)))

    def test_of_grey_reading(self):
        picture = np.dstack([scene()[..., 0], np.where(self.clear, 0, 255).astype(np.uint8)])
        found = np.array(open_grey(stored(Image.fromarray(picture))))
        assert np.array_equal(found, np.where(self.clear, 255, scene()[..., 0]))


class TestDepth:
    """Bits of a pixel; Pillow itself makes everything above 255 white."""

    ramp = np.arange(256).reshape(16, 16)

    def check(self, image, form="PNG", expected=None):
        expected = self.ramp if expected is None else expected
        assert np.array_equal(opened(image, form), np.dstack([expected] * 3))
        assert np.array_equal(np.array(open_grey(stored(image, form))), expected)

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    def test_16(self, form):
        self.check(Image.fromarray((self.ramp * 257).astype(np.uint16)), form)

    def test_16_of_a_dark_picture(self):
        self.check(Image.fromarray(self.ramp.astype(np.uint16)), expected=np.round(self.ramp / 257))

    @pytest.mark.parametrize("factor", [1, 257])
    def test_32(self, factor):
        self.check(Image.fromarray((self.ramp * factor).astype(np.int32)), "TIFF")

    @pytest.mark.parametrize("factor", [1 / 255, 1, 257])
    def test_real_numbers(self, factor):
        self.check(Image.fromarray((self.ramp * factor).astype(np.float32)), "TIFF")

    def test_real_numbers_that_are_none(self):
        values = np.array([[0.0, 1.0, np.nan]], dtype=np.float32)
        assert opened(Image.fromarray(values), "TIFF")[0, :, 0].tolist() == [0, 255, 0]

    def test_1(self):
        self.check(Image.fromarray(self.ramp % 2 == 1), expected=self.ramp % 2 * 255)


def test_print_colours():
    """CMYK: 255 is full ink."""
    cmyk = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    found = opened(Image.fromarray(cmyk, "CMYK"), "TIFF")
    assert found.tolist() == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


def test_the_first_of_several_frames():
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (10, 200)]
    assert (opened(frames[0], "TIFF", save_all=True, append_images=frames[1:]) == 10).all()


@pytest.mark.parametrize(("content", "reason"), [
    (None, "does not exist"),
    (b"", "is not a readable image"),
    (b"GIF89a", "is not a readable image"),
    ("cut", "is not a readable image .*truncated"),
])  # fmt: skip
def test_what_is_no_picture(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    if content == "cut":
        content = stored(Image.fromarray(scene(64, 64)), "JPEG").getvalue()[:-500]
    if content is not None:
        path.write_bytes(content)
    for opener in (open_picture, open_grey):
        with pytest.raises(BadImage, match=reason):
            opener(path)


@pytest.fixture
def odd(tmp_path):
    """Path of a picture that is stored on its side, with a transparent background whose colour is black."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.zeros((500, 400, 4), dtype=np.uint8)
    picture[100:200, 50:350] = (0, 0, 255, 255)
    Image.fromarray(picture).save(tmp_path / "odd.png", exif=exif)
    return tmp_path / "odd.png"


def test_every_reader_sees_the_same(odd):
    seen = read_image(odd)
    assert seen.shape == (400, 500, 3) and seen[0, 0].tolist() == [255, 255, 255]
    assert seen[200, 350].tolist() == [0, 0, 255]
    assert np.array_equal(_read_picture(odd, (400, 500)).transpose(1, 2, 0), seen)
    assert np.array_equal(np.array(decode(odd.read_bytes(), "rgb")), seen)
    depth = np.array(decode(odd.read_bytes(), "depth"))
    assert np.array_equal(depth, np.array(Image.fromarray(seen).convert("L")))


@pytest.mark.parametrize("draw", [
    lambda image, out: draw_box(image, (300, 50, 400, 350), "blue", out),
    lambda image, out: draw_regions(image, np.array([[300.0, 50, 400, 350]]), np.array([1.0]), out),
])  # fmt: skip
def test_boxes_are_drawn_over_what_networks_see(odd, tmp_path, draw):
    draw(odd, tmp_path / "out.png")
    found = np.array(Image.open(tmp_path / "out.png"))
    scale = found.shape[1] / 500
    assert found.shape[:2] == (round(400 * scale), round(500 * scale))
    at = lambda x, y: tuple(found[round(y * scale), round(x * scale)].tolist())  # noqa: E731
    assert at(10, 10) == WHITE and at(350, 200) == (0, 0, 255)
    assert at(300, 200) == COLOUR


def test_a_sheet_shows_them_upright(odd, tmp_path):
    draw_sheet([odd], ["a"], tmp_path / "sheet.png")
    blue = (np.array(Image.open(tmp_path / "sheet.png")) == (0, 0, 255)).all(axis=2)
    rows, columns = np.nonzero(blue)
    # The bar lies on its side in the file, and stands upright here.
    assert np.ptp(rows) > 2 * np.ptp(columns)


def test_a_picture_that_cannot_be_drawn_over_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.png does not exist"):
        draw_box(tmp_path / "none.png", (0, 0, 1, 1), "a", tmp_path / "out.png")
