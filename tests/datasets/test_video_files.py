"""Videos whose headers, time stamps or ends are wrong, or that phones took sideways: the right frames, or one line."""

import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from datasets.ntu.names import BadSample
from datasets.ntu.scaling import encode_clip, scaled_frames, write_avi
from datasets.ntu.video import avi_length, check_whole, read_avi, time_line
from tests.datasets.ntu_files import level, write_mjpg

SIZE = (64, 48)
QUALITY = {"libx264": {"crf": "10"}, "mpeg4": {"flags": "+qscale", "global_quality": "118"}}


def write(path, images, *, codec="libx264", form=None, stamps=None, fps=30, **options):
    """A video of uint8 (H, W, 3) ``images``, shown at ``stamps`` in milliseconds or one after the other."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        unit = Fraction(1, 1000) if stamps else Fraction(1, fps)
        stream.codec_context.time_base = unit
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (stamps[number] if stamps else number), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey(count, size=SIZE, start=0):
    return [np.full((size[1], size[0], 3), level(start + number), dtype=np.uint8) for number in range(count)]


def numbers(frames, count):
    """Which of the images of `grey` each frame shows."""
    levels = np.array([level(number) for number in range(count)])
    found = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    return [int(np.abs(levels - one).argmin()) for one in found]


def set_frame_count(path, count):
    """Write another number of frames into both headers of an AVI file."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 24, count)
    struct.pack_into("<I", data, data.index(b"strh") + 40, count)
    path.write_bytes(data)


@pytest.mark.parametrize("said", [0, 7, 40, 42])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_header_may_say_another_number_of_frames(tmp_path, said, codec):
    path = write(tmp_path / "a.avi", grey(40), codec=codec, bf="0", **QUALITY[codec])
    set_frame_count(path, said)
    assert avi_length(path) == 40
    chosen, images = read_avi(path, lambda length: np.array([0, length - 1]))
    assert chosen.tolist() == [0, 39]
    assert [round(float(images[number].mean())) for number in (0, 39)] == pytest.approx([0, level(39)], abs=2)
    assert numbers(scaled_frames(path, 32, 30), 40) == list(range(40))


def test_far_more_frames_in_the_header_than_in_the_file(tmp_path):
    path = write(tmp_path / "a.avi", grey(40))
    set_frame_count(path, 100)
    for read in (avi_length, lambda path: scaled_frames(path, 32, 30), lambda path: read_avi(path, range)):
        with pytest.raises(BadSample, match="ends after 40 of 100 frames"):
            read(path)


@pytest.mark.parametrize("form", ["matroska", "mp4"])
def test_a_changing_frame_rate(tmp_path, form):
    """Three frames at 30 per second, one that stays for 0.3 s, two more at 10 per second."""
    stamps = [0, 33, 67, 100, 400, 500]
    path = write(tmp_path / "a.mkv", grey(6), form=form, stamps=stamps)
    shown = numbers(scaled_frames(path, 32, 30), 6)
    expected = [0, 1, 2, *[3] * 9, *[4] * 3, 5]
    assert shown[:16] == expected and set(shown[16:]) <= {5}


def test_frames_that_are_stored_in_another_order(tmp_path):
    """H.264 in AVI has the time stamps of decoding."""
    path = write(tmp_path / "a.avi", grey(30), bf="3", b_strategy="0")
    assert numbers(scaled_frames(path, 32, 30), 30) == list(range(30))
    path = write(tmp_path / "a.h264", grey(30), form="h264", fps=30)
    assert sorted(set(numbers(scaled_frames(path, 32, 30), 30))) == list(range(30))


def test_a_stream_that_begins_anew_in_another_size(tmp_path):
    first = write(tmp_path / "1.ts", grey(20), form="mpegts")
    second = write(tmp_path / "2.ts", grey(20, (96, 64), start=20), form="mpegts")
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert numbers(scaled_frames(path, 32, 30), 40) == list(range(40))


def test_the_time_line():
    unit = Fraction(1, 30)
    assert time_line([None] * 4, 30, unit) == [0, 1, 2, 3]
    assert time_line([5, None, 7], None, unit) == [5, 6, 7]
    assert time_line([1, 3, 4, 2, 6, 5], 30, unit) == [1, 2, 3, 4, 5, 6]
    assert time_line([*range(40), *range(3)], 30, unit) == list(range(43))
    assert time_line([0, 300], 30, unit) == [0, 300]
    with pytest.raises(BadSample, match="gap of 3000 seconds"):
        time_line([0, 1, 90_001], 30, unit)


ONE = 1 << 16
# Entries a, b, c, d of the display matrix -> what becomes of the picture, with numpy.
TURNS = {
    (ONE, 0, 0, ONE): lambda image: image,
    (0, ONE, -ONE, 0): lambda image: np.rot90(image, -1),
    (-ONE, 0, 0, -ONE): lambda image: np.rot90(image, 2),
    (0, -ONE, ONE, 0): lambda image: np.rot90(image),
    (-ONE, 0, 0, ONE): lambda image: image[:, ::-1],
    (ONE, 0, 0, -ONE): lambda image: image[::-1],
    (0, ONE, ONE, 0): lambda image: image.transpose(1, 0, 2),
    (0, -ONE, -ONE, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}


def set_matrix(path, entries):
    """Write a, b, c, d of the display matrix of an MP4 file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16
    for place, value in zip((0, 1, 3, 4), entries, strict=True):
        struct.pack_into(">i", data, start + 4 * place, value)
    path.write_bytes(data)


@pytest.mark.parametrize("entries", TURNS)
def test_videos_of_phones_are_turned_upright(tmp_path, entries):
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    path = write(tmp_path / "a.mp4", [image] * 3)
    set_matrix(path, entries)
    found = scaled_frames(path, 32, 30)[1].to_ndarray(format="rgb24")
    expected = np.kron(TURNS[entries](image[::24, ::32]), np.ones((16, 16, 1)))
    assert np.abs(found[4::8, 4::8].astype(int) - expected[4::8, 4::8]).max() < 40


def test_other_angles_are_refused(tmp_path):
    path = write(tmp_path / "a.mp4", grey(3))
    set_matrix(path, (ONE // 2, ONE // 2, -ONE // 2, ONE // 2))
    with pytest.raises(BadSample, match="an angle that is not a multiple of 90 degrees"):
        scaled_frames(path, 32, 30)


@pytest.mark.parametrize("form", ["avi", "mp4", "matroska"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_cut_files(tmp_path, form, share):
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    path = write(tmp_path / "a.avi", images, form=form)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    if form == "matroska" and share > 0.9:
        # Its header tells the length in seconds alone; a few frames at the end may be missing.
        assert len(scaled_frames(path, 32, 30)) >= 36
        return
    for read in (lambda: scaled_frames(path, 32, 30), lambda: write_avi(path, tmp_path / "b.avi", 32, 30, "none")):
        with pytest.raises(BadSample, match=r"is cut short|ends after|not a readable video"):
            read()
        if form == "matroska":
            break
    with pytest.raises(BadSample):
        encode_clip(path, 32, 30, 95)


def test_whole_files_and_others_pass(tmp_path):
    for form in ("avi", "mp4", "mov", "matroska", "mpegts"):
        check_whole(write(tmp_path / f"a.{form}", grey(3), form=form))
    for data in (b"", b"RIFF", b"RIFF\0\0\0\0AVI ", b"RIFF\xff\xff\xff\xffAVI ", b"\0\0\0\x08moov", b"\0\0\0\0mdat123"):
        (tmp_path / "odd.avi").write_bytes(data)
        check_whole(tmp_path / "odd.avi")
    with pytest.raises(BadSample, match="not a readable video"):
        check_whole(tmp_path / "none.avi")


def test_any_name(tmp_path):
    """OpenCV would crash at a name that is not UTF-8."""
    path = tmp_path / os.fsdecode("照片 ".encode("gbk") + b".avi")
    os.replace(write_mjpg(tmp_path / "a.avi", 5), path)
    _, images = read_avi(path, lambda length: np.arange(length))
    assert sorted(images) == [0, 1, 2, 3, 4]
    assert len(scaled_frames(path, 32, 30)) == 5
