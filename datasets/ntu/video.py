"""NTU videos: choosing frames, reading them from AVI files, and detecting damaged video files."""

import contextlib
import itertools
import math
import os
import struct
from fractions import Fraction

import numpy as np

from datasets.ntu.names import BadSample

NUM_SLOTS = 24
EMPTY = -1
FRAME_SAMPLING = ("original", "corrected")
CROP_STRENGTH = 0.5
SKELETON_CROP_MIN = 64
# Share of the frames or seconds in the header that a video must have; some headers state slightly too many.
MIN_SHARE = 0.9
# Frames that a codec may hold back to show them later.
MAX_REORDERED = 16
# Longest time without a new frame, in seconds; a longer gap is a damaged time stamp.
MAX_GAP = 10
# Top-level boxes of MP4 and MOV files.
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"sidx", b"uuid", b"styp", b"meta", b"udta")
# (a, b, c, d) of a display matrix, x' = a x + c y and y' = b x + d y -> the filters that apply it.
_TURNS = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (-1, 0, 0, -1): (("hflip", ""), ("vflip", "")),
    (0, -1, 1, 0): (("transpose", "cclock"),),
    (-1, 0, 0, 1): (("hflip", ""),),
    (1, 0, 0, -1): (("vflip", ""),),
    (0, 1, 1, 0): (("transpose", "cclock_flip"),),
    (0, -1, -1, 0): (("transpose", "clock_flip"),),
}


def slots(length, sampling="original"):
    """Choose the frames for the 24 slots of a clip of ``length`` frames.

    Args:
        length: Number of frames of the clip, at least 1.
        sampling: ``original`` takes 24 evenly spaced numbers from 0 to ``length``; the distinct ones among them that
            exist fill the first slots. NOTE: as in the original, frame ``length`` does not exist, so the last slot is
            always empty, and clips of fewer than 24 frames leave more slots empty. ``corrected`` takes 24 evenly
            spaced numbers from 0 to ``length - 1``; short clips repeat frames.

    Returns:
        int64 (24,) of frame numbers, -1 for an empty slot.
    """
    if sampling == "corrected":
        return np.linspace(0, length - 1, NUM_SLOTS).astype(np.int64)
    wanted = np.unique(np.linspace(0, length, NUM_SLOTS).astype(np.int64))
    wanted = wanted[wanted < length]
    filled = np.full(NUM_SLOTS, EMPTY, dtype=np.int64)
    filled[: len(wanted)] = wanted
    return filled


def kept_frames(length):
    """Numbers of all frames that either way of sampling can choose: int64 (n,), ascending."""
    wanted = np.unique(np.concatenate([slots(length, sampling) for sampling in FRAME_SAMPLING]))
    return wanted[wanted != EMPTY]


def pick_slots(num_frames, begin=0, end=NUM_SLOTS):
    """Choose ``num_frames`` evenly spaced slots from ``begin`` to ``end`` (exclusive): int64 (num_frames,)."""
    return begin + np.linspace(0, end - begin - 1, num_frames).astype(np.int64)


def crop_slots(draw):
    """Range of slots, (begin, end), that the training crop keeps for ``draw``, a uniform random number in [0, 1)."""
    ratio = 1 - CROP_STRENGTH * draw
    begin = (NUM_SLOTS - int(NUM_SLOTS * ratio)) // 2
    return begin, NUM_SLOTS - begin


def crop_length(length, draw):
    """Number of frames of a skeleton of ``length`` frames that the training crop keeps for the random ``draw``."""
    share = 1 - CROP_STRENGTH + CROP_STRENGTH * draw
    return min(max(int(np.floor(length * share)), SKELETON_CROP_MIN), length)


class Crop:
    """The training crop of one sample: independent random ranges of the video's slots and of the skeleton's frames.

    Args:
        seed, epoch, index: Non-negative numbers; they alone determine the random draws.
        random: A RandomState to seed and use, which is faster than making one. Two crops must not use it at the same
            time.

    Attributes:
        slots: Range of the kept slots, (begin, end).
    """

    def __init__(self, seed, epoch, index, random=None):
        # The original uses this legacy generator and this order of draws.
        self._random = np.random.RandomState() if random is None else random
        self._random.seed([seed, epoch, index])
        self.slots = crop_slots(self._random.random_sample())
        self._draw = self._random.random_sample()

    def skeleton(self, length):
        """Range (begin, end) of the kept frames of a skeleton of ``length`` frames; it draws, so call it only once."""
        kept = crop_length(length, self._draw)
        begin = int(self._random.randint(0, length - kept + 1))
        return begin, begin + kept


@contextlib.contextmanager
def _opened(path):
    import cv2

    # OpenCV crashes on a path whose bytes are not UTF-8.
    with open(path, "rb") if not _is_utf8(path) else contextlib.nullcontext() as file:
        video = cv2.VideoCapture(f"/dev/fd/{file.fileno()}" if file else str(path), cv2.CAP_FFMPEG)
        try:
            if not video.isOpened():
                raise BadSample("is not a readable video")
            yield video
        finally:
            video.release()


def _is_utf8(path):
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def avi_length(path):
    """Number of frames in the file, which may differ slightly from the number in its header.

    Raises:
        BadSample: the file is not a readable video, has no frames, or ends early.
    """
    return count_frames(path)


def read_avi(path, choose):
    """Decode frames of an AVI file with OpenCV.

    Args:
        path: The file.
        choose: Function from the number of frames of the clip to an array of frame numbers, -1 for none.

    Returns:
        The array of chosen numbers, and a dict number -> uint8 (H, W, 3) array with channels blue, green, red.

    Raises:
        BadSample: the file is not a readable video, or ends before one of the frames.
    """
    length = count_frames(path)
    chosen, images, position = choose(length), {}, 0
    with _opened(path) as video:
        for number in to_decode(chosen):
            # Frames in between are decoded but not converted.
            while position < number and video.grab():
                position += 1
            done, image = video.read() if position == number else (False, None)
            if not done:
                raise BadSample(f"cannot be decoded beyond frame {position} of {length}")
            position += 1
            images[number] = image
    return chosen, images


def to_decode(chosen):
    """The distinct frame numbers in ``chosen`` without empty slots: ascending list of int."""
    return sorted({int(number) for number in chosen} - {EMPTY})


def check_whole(path):
    """Compare the size of an AVI, MP4 or MOV file with the size that its structure implies; other files pass.

    Raises:
        BadSample: the file is truncated, or cannot be read.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            needed = _needed_size(file, size)
    except OSError as error:
        raise BadSample(f"is not a readable video ({error.strerror or error})") from None
    if needed > size:
        raise BadSample(f"is cut short: it has {size:,} of {needed:,} bytes")


def _needed_size(file, size):
    head = file.read(12)
    if head[:4] == b"RIFF" and len(head) == 12:
        (length,) = struct.unpack("<I", head[4:8])
        # A recording that was not closed properly has 0 here, or the largest number.
        return 8 + length if 0 < length < 0xFFFFFF00 else 0
    if head[4:8] not in _BOXES:
        return 0
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        length = struct.unpack(">I", head[:4])[0] if len(head) >= 8 else 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length == 0:  # up to the end of the file
            return 0
        # Players ignore what comes after the last box.
        if length < 8 or (len(head) >= 8 and not head[4:8].isalnum()):
            return 0
        position += length
    return position


def count_frames(path):
    """Number of frames of a video, counted without decoding them.

    Raises:
        BadSample: the file is not a readable video, has no frames, or ends early.
    """
    import av

    check_whole(path)
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise BadSample("has no video stream")
            stream = container.streams.video[0]
            count = sum(packet.size > 0 for packet in container.demux(stream))
            promised = stream.frames
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadSample(f"is not a readable video ({getattr(error, 'strerror', None) or error})") from None
    check_count(count, promised)
    return count


def check_count(count, promised):
    """Compare the number of frames of a video with the number in its header (0 if it has none).

    Raises:
        BadSample: there are no frames, or far fewer than the header states.
    """
    if not count:
        raise BadSample("has no frames")
    if count < math.floor(promised * MIN_SHARE):
        raise BadSample(f"ends after {count} of {promised} frames")


def check_duration(stamps, stream, container):
    """Compare the time of the last frame with the duration in the header, if the header has no number of frames.

    Args:
        stamps: Time stamps of the frames in order, in units of the stream's time base.
        stream, container: PyAV's video stream and its container.

    Raises:
        BadSample: the video ends early.
    """
    # Some headers count from time 0, others from the first frame.
    seconds = float((stamps[-1] - min(0, stamps[0])) * stream.time_base)
    promised = float((stream.duration or 0) * stream.time_base)
    # With sound as well, the container's duration is that of the longest stream, which need not be the video.
    if not promised and len(container.streams) == 1 and container.duration:
        promised = container.duration / 1e6
    if not stream.frames and seconds < promised * MIN_SHARE - 1 / float(stream.average_rate or 30):
        raise BadSample(f"ends after {seconds:.1f} of {promised:.1f} seconds")


def upright(frame):
    """Filters that rotate a frame as its file requests, which is common with phones: tuple of (name, arguments).

    Raises:
        BadSample: the angle of the rotation is not a multiple of 90 degrees.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return ()
    numbers = np.frombuffer(bytes(matrix), dtype=np.int32)
    turn = tuple(np.sign(numbers[[0, 1, 3, 4]]).tolist())
    if turn not in _TURNS:
        raise BadSample("is to be rotated by an angle that is not a multiple of 90 degrees")
    return _TURNS[turn]


def time_line(stamps, rate, time_base):
    """Time stamps in the order in which frames are shown.

    Some files have no stamps (all are None). AVI files have them in decoding order. In videos that were concatenated,
    the stamps restart in between.

    Args:
        stamps: Time stamp of each frame in the order in which the decoder returns them, int or None.
        rate: Frames per second, for frames without a stamp; None if it is unknown.
        time_base: Seconds per unit of the stamps.

    Returns:
        Ascending list of int.

    Raises:
        BadSample: there is a gap of more than `MAX_GAP` seconds.
    """
    step = max(1, round(1 / (Fraction(rate or 30) * time_base)))
    parts, top, offset = [[]], None, 0
    for stamp in stamps:
        stamp = (top + step if top is not None else 0) if stamp is None else stamp + offset
        if top is not None and stamp < top - MAX_REORDERED * step:
            offset += top + step - stamp
            stamp = top + step
            parts.append([])
        top = stamp if top is None else max(top, stamp)
        parts[-1].append(stamp)
    ordered = [stamp for part in parts for stamp in sorted(part)]
    gap = max((float((b - a) * time_base) for a, b in itertools.pairwise(ordered)), default=0)
    if gap > MAX_GAP:
        raise BadSample(f"has a gap of {gap:.0f} seconds between two frames: its time stamps are damaged")
    return ordered
