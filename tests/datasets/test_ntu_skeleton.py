"""Skeleton files are read as the original reads them, and brought to 32 frames as torch does it."""

import numpy as np
import pytest
import torch

from datasets.ntu.names import BadSample
from datasets.ntu.skeleton import Pose, Skeleton, parse_skeleton, read_skeleton
from tests.golden import DATA, Golden, normal

FILES = ["S001C001P001R001A001", "S001C002P003R002A060", "S017C003P020R002A059"]
TWO = "S001C002P003R002A060"


def dense(skeleton):
    """The skeleton as (3, T, 25, 2) with zeros for absent persons, filled with plain loops."""
    array, at = np.zeros((3, len(skeleton.counts), 25, 2), dtype=np.float32), 0
    for frame, count in enumerate(skeleton.counts):
        for person in range(count):
            array[:, frame, :, person] = skeleton.joints[at].T
            at += 1
    assert at == len(skeleton.joints)
    return array


def text_of(name):
    return (DATA / f"{name}.skeleton").read_text()


@pytest.mark.parametrize("name", FILES)
def test_files_as_the_original_reads_them(name):
    golden = Golden("skeleton_files")
    skeleton = read_skeleton(DATA / f"{name}.skeleton")
    persons = golden.spec["files"][f"{name}.skeleton"]["persons_per_frame"]
    assert skeleton.counts.tolist() == [min(count, 2) for count in persons]
    assert (skeleton.counts.dtype, skeleton.joints.dtype) == (np.uint8, np.float32)
    assert np.array_equal(dense(skeleton), golden.arrays[f"{name}.skeleton.raw"])
    frames = Pose(skeleton).frames(np.arange(len(persons))).transpose(3, 0, 2, 1)
    assert np.array_equal(frames, golden.arrays[f"{name}.skeleton.origin_subtracted"])


def test_absent_persons_may_stay_zero():
    raw = Golden("skeleton_files").arrays[f"{TWO}.skeleton.raw"]
    skeleton = parse_skeleton(text_of(TWO))
    zero = Pose(skeleton, "zero").frames(np.arange(9)).transpose(3, 0, 2, 1)
    moved = Pose(skeleton).frames(np.arange(9)).transpose(3, 0, 2, 1)
    for frame, count in enumerate([2, 2, 2, 1, 0, 2, 2, 2, 1]):
        assert np.array_equal(zero[:, frame, :, :count], moved[:, frame, :, :count])
        assert not zero[:, frame, :, count:].any()
    assert np.array_equal(moved[:, 3, :, 1], np.repeat(-raw[:, 3, 1, :1], 25, axis=1))
    assert moved[:, 3, :, 1].all()


@pytest.mark.parametrize("length", [2, 20, 32, 33, 64, 75, 103, 300])
def test_length_is_normalised_as_in_the_original(length):
    golden = Golden("ntu_length_normalisation")
    seed = next(case["seed"] for case in golden.spec["cases"] if case["T"] == length)
    raw = normal(seed, (3, length, 25, 2))
    resized = unmoved(raw.numpy()).resized(32)
    golden.assert_output(f"ske.T{length}", torch.from_numpy(resized), rtol=1e-6, atol=1e-6)
    expected = torch.nn.functional.interpolate(
        raw.permute(0, 2, 3, 1).reshape(1, 150, length, 1), (32, 1), mode="bilinear", align_corners=False
    )
    expected = expected.reshape(3, 25, 2, 32).permute(0, 3, 1, 2).numpy()
    np.testing.assert_allclose(resized, expected, rtol=1e-6, atol=1e-6)


def unmoved(array):
    """A pose with the values of ``array`` (3, T, 25, 2), which has random values at the origin's joint too."""

    class Unmoved(Pose):
        def frames(self, numbers):
            return array[:, numbers].transpose(1, 3, 2, 0)

    return Unmoved(Skeleton(np.full(array.shape[1], 2, dtype=np.uint8), None))


@pytest.mark.parametrize(("begin", "end"), [(0, 9), (3, 9), (2, 5), (4, 5)])
@pytest.mark.parametrize("absent", ["minus_origin", "zero"])
def test_a_piece_is_resized_like_the_whole_of_it(begin, end, absent):
    pose = Pose(parse_skeleton(text_of(TWO)), absent)
    piece = torch.from_numpy(pose.frames(np.arange(begin, end)))
    expected = torch.nn.functional.interpolate(piece.reshape(1, end - begin, 150).permute(0, 2, 1), 32, mode="linear")
    expected = expected[0].reshape(2, 25, 3, 32).permute(2, 3, 1, 0)
    resized = pose.resized(32, begin, end)
    assert (resized.shape, resized.dtype) == ((3, 32, 25, 2), np.float32)
    np.testing.assert_allclose(resized, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_one_frame_and_no_persons():
    one = "1\n0\n"
    assert not Pose(parse_skeleton(one)).resized(32).any()
    assert parse_skeleton(one).joints.shape == (0, 25, 3)


@pytest.mark.parametrize("name", FILES)
def test_windows_line_ends_and_blank_lines_at_the_end(name):
    plain, other = parse_skeleton(text_of(name)), parse_skeleton(text_of(name).replace("\n", "\r\n") + "\r\n\r\n  \r\n")
    assert np.array_equal(plain.counts, other.counts) and np.array_equal(plain.joints, other.joints)


def test_nan_becomes_zero():
    lines = text_of(FILES[0]).splitlines()
    lines[4] = "nan NaN -nan " + " ".join(lines[4].split()[3:])
    changed, plain = parse_skeleton("\n".join(lines)), parse_skeleton(text_of(FILES[0]))
    assert changed.joints[0, 0].tolist() == [0, 0, 0]
    assert np.array_equal(changed.joints[0, 1:], plain.joints[0, 1:])


def clip(*frames):
    """Text of a file: for each frame a list of (tracking id, place, number of the NaN joint or None)."""
    lines = [str(len(frames))]
    for frame in frames:
        lines.append(str(len(frame)))
        for tracked, place, bad in frame:
            lines += [f"{tracked} 0 1", "25"]
            lines += [f"{'nan' if joint == bad else place} {joint} 2 0" for joint in range(25)]
    return "\n".join(lines)


def places(skeleton):
    """For each frame the places of the persons that are there."""
    ends = np.cumsum(skeleton.counts.astype(int))
    return [skeleton.joints[end - count : end, 1, 0].tolist() for end, count in zip(ends, skeleton.counts, strict=True)]


class TestBodies:
    def test_a_chair_in_front(self):
        """The second of two bodies moves: it comes first."""
        text = clip(*([("chair", 9, None), ("actor", 0.5 * t, None)] for t in range(4)))
        first, motion = parse_skeleton(text), parse_skeleton(text, "motion")
        assert places(first) == [[9, 0.5 * t] for t in range(4)]
        assert places(motion) == [[0.5 * t, 9] for t in range(4)]
        assert first.dropped == motion.dropped == 0

    def test_three_bodies(self):
        """A joint that is not known in one frame (there at 0, far away) is no motion."""
        frames = [[("chair", 9, 3 if t == 2 else None), ("a", t, None), ("b", -0.5 * t, None)] for t in range(5)]
        first, motion = parse_skeleton(clip(*frames)), parse_skeleton(clip(*frames), "motion")
        assert places(first) == [[9, t] for t in range(5)] and places(motion) == [[t, -0.5 * t] for t in range(5)]
        assert first.dropped == motion.dropped == 5
        assert motion.counts.dtype == np.uint8 and motion.joints.dtype == np.float32

    def test_ids_that_change_in_the_middle(self):
        frames = [[("10", t, None)] if t < 3 else [("43", 5, None), ("44", t, None)] for t in range(6)]
        skeleton = parse_skeleton(clip(*frames), "motion")
        assert places(skeleton) == [[0], [1], [2], [3, 5], [4, 5], [5, 5]] and skeleton.dropped == 0

    def test_one_id_twice_and_empty_frames(self):
        frames = [[], [("1", 0, None), ("1", 7, None), ("2", 3, None)], [("1", 1, None), ("1", 9, None)]]
        skeleton = parse_skeleton(clip(*frames), "motion")
        assert places(skeleton) == [[], [7, 0], [9, 1]] and skeleton.dropped == 1

    @pytest.mark.parametrize("name", FILES)
    def test_real_files(self, name):
        first, motion = parse_skeleton(text_of(name)), parse_skeleton(text_of(name), "motion")
        assert first.dropped == motion.dropped == 2 * (name == TWO)
        assert first.counts.tolist() == motion.counts.tolist()


def edited(line, text):
    lines = text_of(FILES[0]).splitlines()
    lines[line] = text
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends in the first line"),
        ("0\n", "has 0 frames"),
        ("x\n", "has 'x' in place of the number of frames in the first line"),
        ("-1\n", "has '-1' in place"),
        ("2\n0\n", "ends in frame 2 of 2"),
        (edited(1, "one"), "has 'one' in place of the number of persons in frame 1 of 7"),
        (edited(3, "24"), "has 24 joints, not 25, in frame 1 of 7"),
        (edited(3, "26"), "has 26 joints, not 25, in frame 1 of 7"),
        (edited(10, "1.0 2.0"), "joint without three numbers"),
        (edited(10, "a b c"), "joint without three numbers"),
        (edited(10, "inf 0 0"), "infinite"),
    ],
)
def test_faulty_text_says_where(text, reason):
    with pytest.raises(BadSample) as error:
        parse_skeleton(text)
    assert reason in str(error.value)


def test_third_person_must_be_whole_too():
    text = text_of(TWO)
    head, tail = text.split("\n25\n", 1)
    assert parse_skeleton(head + "\n25\n" + tail).counts.tolist() == [2, 2, 2, 1, 0, 2, 2, 2, 1]
    blocks = text.split("\n25\n")
    damaged = "\n25\n".join(blocks[:7]) + "\n20\n" + "\n25\n".join(blocks[7:])
    with pytest.raises(BadSample, match="has 20 joints, not 25, in frame 3 of 9"):
        parse_skeleton(damaged)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_file(tmp_path, share):
    path = tmp_path / "cut.skeleton"
    content = (DATA / f"{TWO}.skeleton").read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadSample, match=r"ends in frame|without three numbers|in place of"):
        read_skeleton(path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path, whole = tmp_path / "a.skeleton", (DATA / f"{TWO}.skeleton").read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + whole)
    plain, other = read_skeleton(DATA / f"{TWO}.skeleton"), read_skeleton(path)
    assert np.array_equal(plain.counts, other.counts) and np.array_equal(plain.joints, other.joints)
    path.write_bytes(whole.decode().encode("utf-16"))
    with pytest.raises(BadSample, match=r"not a text file \(it is saved as UTF-16"):
        read_skeleton(path)


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(BadSample, match="cannot be read: No such file"):
        read_skeleton(tmp_path / "none.skeleton")
    (tmp_path / "binary.skeleton").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(BadSample, match="not a text file"):
        read_skeleton(tmp_path / "binary.skeleton")
