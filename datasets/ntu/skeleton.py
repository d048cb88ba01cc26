"""NTU skeletons: parsing the official text files, and the arrays that a network sees."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from datasets.ntu.names import BadSample
from util.files import NotText, decode_text

NUM_JOINTS = 25
MAX_PERSONS = 2
ORIGIN_JOINT = 1
ABSENT_PERSON = ("minus_origin", "zero")
# Ways to choose the two bodies that are kept of a clip with more than two.
BODIES = ("first", "motion")


class Skeleton(NamedTuple):
    """The persons present in one clip of T frames, stored without padding for absent ones.

    counts: uint8 (T,), persons per frame, at most two.
    joints: float32 (sum of counts, 25, 3), frame by frame: x, y, z in metres.
    dropped: Number of persons that were left out, summed over the frames.
    """

    counts: np.ndarray
    joints: np.ndarray
    dropped: int = 0


def read_skeleton(path, bodies="first"):
    """Parse an official ``.skeleton`` file.

    NaN becomes 0. Lines after the announced number of frames are ignored.

    Args:
        path: The file.
        bodies: ``first`` keeps the first two persons of every frame, whoever they are, as in the original.
            ``motion`` keeps the two that move most, see `chosen_by_motion`, because furniture is sometimes tracked as
            a person.

    Returns:
        A `Skeleton`.

    Raises:
        BadSample: the file cannot be read, has no frames, or is not in the official form.
    """
    try:
        with open(path, "rb") as file:
            text = decode_text(file.read())
    except OSError as error:
        raise BadSample(f"cannot be read: {error.strerror or error}") from None
    except NotText as reason:
        raise BadSample(f"is not a text file ({reason})") from None
    if not text.isascii():
        raise BadSample("is not a text file of numbers")
    return parse_skeleton(text, bodies)


def parse_skeleton(text, bodies="first"):
    """Parse the text of an official file; arguments, result and errors are those of `read_skeleton`."""
    lines = text.splitlines()
    reader = _Reader(lines)
    total = reader.count("frames")
    if not total:
        raise BadSample("has 0 frames")
    frames = []
    for number in range(total):
        reader.where = f"frame {number + 1} of {total}"
        frames.append([_person(reader) for _ in range(reader.count("persons"))])
    # Numbers of bodies that are left out are parsed only if the motion of bodies has to be compared.
    kept = chosen_by_motion(frames) if bodies == "motion" else [frame[:MAX_PERSONS] for frame in frames]
    counts = np.array([len(frame) for frame in kept], dtype=np.uint8)
    rows = [row for frame in kept for _, block in frame for row in block]
    joints = _numbers(rows)
    joints[np.isnan(joints)] = 0
    return Skeleton(counts, joints, sum(map(len, frames)) - int(counts.sum()))


def _person(reader):
    """Read one person of a frame: (tracking id, lines of its joints)."""
    tracked = reader.line().split(None, 1)
    joints = reader.count("joints")
    if joints != NUM_JOINTS:
        raise BadSample(f"has {joints} joints, not {NUM_JOINTS}, in {reader.where}")
    return tracked[0] if tracked else "", reader.block(NUM_JOINTS)


def chosen_by_motion(frames):
    """Keep at most two persons of each frame: those that move most in the clip.

    All persons with the same tracking id are one body. Its motion is the sum of the squared distances of its joints
    from their mean positions, over all frames and joints. Bodies are assigned to two slots in the order of decreasing
    motion: each body takes the first slot that is free in all of its frames, so a person whose id changes in the middle
    keeps the slot. A body for which both slots are taken is left out.

    Args:
        frames: For each frame the list of (tracking id, lines of joints).

    Returns:
        A list of the same form, in which the person of the first slot comes before that of the second.
    """
    if max(map(len, frames)) <= 1:
        return frames
    tracks = {}
    for number, frame in enumerate(frames):
        seen = {}
        for tracked, block in frame:
            # If an id occurs twice in a frame, these are two bodies.
            seen[tracked] = seen.get(tracked, 0) + 1
            tracks.setdefault((tracked, seen[tracked]), {})[number] = (tracked, block)
    places = [{} for _ in range(MAX_PERSONS)]
    for track in sorted(tracks.values(), key=_motion, reverse=True):
        place = next((place for place in places if not place.keys() & track.keys()), None)
        if place is not None:
            place.update(track)
    return [[place[number] for place in places if number in place] for number in range(len(frames))]


def _motion(track):
    joints = _numbers([row for _, block in track.values() for row in block]).astype(np.float64)
    known = ~np.isnan(joints)
    centre = np.where(known, joints, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return float(np.nansum((joints - centre) ** 2))


class _Reader:
    """Reads line by line; every error names the frame in which it occurs."""

    def __init__(self, lines):
        self._lines = lines
        self._at = 0
        self.where = "the first line"

    def block(self, count):
        block = self._lines[self._at : self._at + count]
        if len(block) < count:
            raise BadSample(f"ends in {self.where}")
        self._at += count
        return block

    def line(self):
        return self.block(1)[0]

    def count(self, what):
        text = self.line().strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise BadSample(f"has {text[:20]!r} in place of the number of {what} in {self.where}")
        return int(text)


def _numbers(rows):
    """Parse the first three numbers of each line: float32 (len(rows) / 25, 25, 3), which may contain NaN."""
    try:
        values = np.array([[float(word) for word in row.split(None, 3)[:3]] for row in rows], dtype=np.float32)
        joints = values.reshape(-1, NUM_JOINTS, 3)
    except ValueError:
        raise BadSample("has a joint without three numbers") from None
    if np.isinf(joints).any():
        raise BadSample("has a joint with infinite coordinates")
    return joints


class Pose:
    """A skeleton as a network sees it: two persons, relative to a joint of the first person.

    Args:
        skeleton: A `Skeleton` with T > 0 frames.
        absent: What an absent person becomes: ``minus_origin`` (NOTE: as in the original, where the origin is
            subtracted from zeros) or ``zero``.
    """

    def __init__(self, skeleton, absent="minus_origin"):
        self._skeleton = skeleton
        self._absent = absent

    def __len__(self):
        return len(self._skeleton.counts)

    @cached_property
    def _starts(self):
        counts = self._skeleton.counts.astype(np.int64)
        return np.cumsum(counts) - counts

    def frames(self, numbers):
        """Frames ``numbers`` (int array (n,)) with the origin subtracted: float32 (n, 2, 25, 3)."""
        counts, joints, _ = self._skeleton
        numbers = np.asarray(numbers)
        poses = np.zeros((len(numbers), MAX_PERSONS, NUM_JOINTS, 3), dtype=np.float32)
        for person in range(MAX_PERSONS):
            there = counts[numbers] > person
            poses[there, person] = joints[self._starts[numbers[there]] + person]
        moved = poses - poses[:, :1, ORIGIN_JOINT : ORIGIN_JOINT + 1]
        if self._absent == "zero":
            moved[np.arange(MAX_PERSONS) >= counts[numbers][:, None]] = 0
        return moved

    def resized(self, length, begin=0, end=None):
        """Resample frames ``begin`` to ``end`` (exclusive) to ``length`` frames: float32 (3, length, 25, 2).

        This is linear interpolation over time, as in bilinear image resizing without aligned corners: frames are at the
        centres of their intervals, and the first and last frames are held beyond these centres.
        """
        count = (len(self) if end is None else end) - begin
        # In float32 like the original, so that the weights agree to the last bit.
        scale = np.float32(count) / np.float32(length)
        places = np.maximum(scale * (np.arange(length, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
        lower = np.minimum(places.astype(np.int64), count - 1)
        upper = np.minimum(lower + 1, count - 1)
        weights = (places - lower.astype(np.float32))[:, None, None, None]
        low, high = self.frames(begin + lower), self.frames(begin + upper)
        return np.ascontiguousarray(((1 - weights) * low + weights * high).transpose(3, 0, 2, 1))
