"""NTU skeletons: the official text files, and what a network gets of them."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from datasets.ntu_names import BadSample
from util.text_files import NotText, decode_text

NUM_JOINTS = 25
MAX_PERSONS = 2
ORIGIN_JOINT = 1
ABSENT_PERSON = ("minus_origin", "zero")


class Skeleton(NamedTuple):
    """The persons of one clip that are there, without gaps.

    counts: uint8 (T,), persons per frame, at most two.
    joints: float32 (sum of counts, 25, 3), frame by frame: x, y, z in metres.
    """

    counts: np.ndarray
    joints: np.ndarray


def read_skeleton(path):
    """Parse an official ``.skeleton`` file.

    Persons after the second of a frame are left out; NaN becomes 0; what follows the announced frames
    is ignored.

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
    return parse_skeleton(text)


def parse_skeleton(text):
    """Parse the text of an official file; see `read_skeleton`."""
    lines = text.splitlines()
    reader = _Reader(lines)
    total = reader.count("frames")
    if not total:
        raise BadSample("has 0 frames")
    counts, rows = [], []
    for frame in range(total):
        reader.where = f"frame {frame + 1} of {total}"
        persons = reader.count("persons")
        counts.append(min(persons, MAX_PERSONS))
        for person in range(persons):
            reader.line()
            joints = reader.count("joints")
            if joints != NUM_JOINTS:
                raise BadSample(f"has {joints} joints, not {NUM_JOINTS}, in {reader.where}")
            block = reader.block(NUM_JOINTS)
            if person < MAX_PERSONS:
                rows += block
    return Skeleton(np.array(counts, dtype=np.uint8), _numbers(rows))


class _Reader:
    """Goes through the lines; every fault says in which frame it is."""

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
        if not text.isdigit():
            raise BadSample(f"has {text[:20]!r} in place of the number of {what} in {self.where}")
        return int(text)


def _numbers(rows):
    """First three numbers of each line: float32 (len(rows) / 25, 25, 3)."""
    try:
        values = np.array([[float(word) for word in row.split(None, 3)[:3]] for row in rows], dtype=np.float32)
        joints = values.reshape(-1, NUM_JOINTS, 3)
    except ValueError:
        raise BadSample("has a joint without three numbers") from None
    joints[np.isnan(joints)] = 0
    if not np.isfinite(joints).all():
        raise BadSample("has a joint at an infinite place")
    return joints


class Pose:
    """A skeleton as a network sees it: two persons, relative to a joint of the first.

    Args:
        skeleton: A `Skeleton` with T > 0 frames.
        absent: What a person who is not there becomes: ``minus_origin`` (NOTE: as in the original, where
            the origin is subtracted from zeros) or ``zero``.
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
        counts, joints = self._skeleton
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
        """Frames ``begin`` to ``end`` brought to ``length`` frames: float32 (3, length, 25, 2).

        Linear interpolation over time with the centres of the first and last intervals kept half an
        interval inside (bilinear resizing without aligned corners), edges held.
        """
        count = (len(self) if end is None else end) - begin
        # In float32 like the original, so that the weights agree to the last digit.
        scale = np.float32(count) / np.float32(length)
        places = np.maximum(scale * (np.arange(length, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
        lower = np.minimum(places.astype(np.int64), count - 1)
        upper = np.minimum(lower + 1, count - 1)
        weights = (places - lower.astype(np.float32))[:, None, None, None]
        low, high = self.frames(begin + lower), self.frames(begin + upper)
        return np.ascontiguousarray(((1 - weights) * low + weights * high).transpose(3, 0, 2, 1))
