"""Which frames of an NTU video a network gets, and reading them from an AVI file."""

import contextlib

import numpy as np

from datasets.ntu_names import BadSample
from datasets.video_files import count_frames

NUM_SLOTS = 24
EMPTY = -1
FRAME_SAMPLING = ("original", "corrected")
CROP_STRENGTH = 0.5
SKELETON_CROP_MIN = 64


def slots(length, sampling="original"):
    """Frame numbers of the 24 slots of a clip of ``length`` frames.

    Args:
        length: Number of frames of the clip, at least 1.
        sampling: ``original``: 24 places from 0 to ``length`` are wanted, and each frame that is there
            takes the next free slot. NOTE: as in the original, frame ``length`` does not exist, so the
            last slot is always empty, and clips of less than 24 frames leave more of them empty.
            ``corrected``: 24 places from 0 to ``length - 1``; short clips repeat frames.

    Returns:
        int64 (24,), -1 for an empty slot.
    """
    if sampling == "corrected":
        return np.linspace(0, length - 1, NUM_SLOTS).astype(np.int64)
    wanted = np.unique(np.linspace(0, length, NUM_SLOTS).astype(np.int64))
    wanted = wanted[wanted < length]
    filled = np.full(NUM_SLOTS, EMPTY, dtype=np.int64)
    filled[: len(wanted)] = wanted
    return filled


def kept_frames(length):
    """All frames that any way of sampling can ask for: int64 (n,), ascending."""
    wanted = np.unique(np.concatenate([slots(length, sampling) for sampling in FRAME_SAMPLING]))
    return wanted[wanted != EMPTY]


def pick_slots(num_frames, begin=0, end=NUM_SLOTS):
    """Slots ``begin`` to ``end`` thinned out to ``num_frames``: int64 (num_frames,)."""
    return begin + np.linspace(0, end - begin - 1, num_frames).astype(np.int64)


def crop_slots(draw):
    """Slots (begin, end) that the training crop keeps for the uniform ``draw`` in [0, 1)."""
    ratio = 1 - CROP_STRENGTH * draw
    begin = (NUM_SLOTS - int(NUM_SLOTS * ratio)) // 2
    return begin, NUM_SLOTS - begin


def crop_length(length, draw):
    """Frames that the training crop keeps of a skeleton of ``length`` frames for the uniform ``draw``."""
    share = 1 - CROP_STRENGTH + CROP_STRENGTH * draw
    return min(max(int(np.floor(length * share)), SKELETON_CROP_MIN), length)


class Crop:
    """The training crop of one sample: independent pieces of the video's slots and of the skeleton.

    Args:
        seed, epoch, index: Non-negative numbers that decide the draws, and nothing else does.
        random: A RandomState to seed and use, which saves most of the time; its former crops are void.

    Attributes:
        slots: (begin, end) of the kept slots.
    """

    def __init__(self, seed, epoch, index, random=None):
        # The legacy generator and the order of its draws are the original's.
        self._random = np.random.RandomState() if random is None else random
        self._random.seed([seed, epoch, index])
        self.slots = crop_slots(self._random.random_sample())
        self._draw = self._random.random_sample()

    def skeleton(self, length):
        """(begin, end) of the kept frames of a skeleton of ``length`` frames; to be called once."""
        kept = crop_length(length, self._draw)
        begin = int(self._random.randint(0, length - kept + 1))
        return begin, begin + kept


@contextlib.contextmanager
def _opened(path):
    import cv2

    # OpenCV crashes at a name whose bytes are not UTF-8.
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
    """Number of frames in the file; what its header says only has to be about that.

    Raises:
        BadSample: it is no readable video, has no frames, or ends early.
    """
    return count_frames(path)


def read_avi(path, choose):
    """Decode frames of an AVI file with OpenCV.

    Args:
        path: The file.
        choose: Function that gets the number of frames of the clip and returns frame numbers, -1 for none.

    Returns:
        The chosen numbers, and a dict number -> uint8 (H, W, 3) array with channels blue, green, red.

    Raises:
        BadSample: it is no readable video, or ends before one of the frames.
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
    """The frame numbers in ``chosen`` without repeats and empty slots: ascending list of int."""
    return sorted({int(number) for number in chosen} - {EMPTY})
