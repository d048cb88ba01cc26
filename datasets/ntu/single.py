"""Read a single video and a single skeleton, outside of any data set, as a test sample of NTU RGB+D 60."""

import hashlib
from pathlib import Path

from datasets.ntu.dataset import FIELDS, NTU
from datasets.ntu.names import BadSample
from datasets.ntu.scaling import encode_clip
from datasets.ntu.skeleton import read_skeleton
from datasets.ntu.video import read_avi, to_decode
from util.cli import UserError

# The defaults of `prepare_ntu.py`.
FPS, QUALITY = 30, 95
_NAME = "S001C001P003R001A001"  # any id of the test split: its numbers do not affect the inputs


class Single:
    """A source of one sample, with those methods of `datasets.ntu.tree.TreeSource` that reading needs.

    Args:
        video, skeleton: Files; None for one that is not needed.
        size: Side in pixels to which a raw video is scaled; 0 if the video is already scaled.
    """

    names, unpaired, missing, label_names = [_NAME], [], [], None
    description, synthetic = "one sample", False

    def __init__(self, video, skeleton, size):
        self.folder = Path(video or skeleton).parent
        self._video, self._skeleton, self._size = video, skeleton, size
        self.frame_shape = self._shape() if video else (0, 0, 3)

    def _shape(self):
        if self._size:
            return self._size, self._size, 3
        try:
            return read_avi(self._video, lambda length: [0])[1][0].shape
        except BadSample as reason:
            raise UserError(f"{self._video} {reason}; name a readable video") from None

    def images(self, row, choose):
        """As `TreeSource.images`."""
        if not self._size:
            return read_avi(self._video, choose)
        import cv2
        import numpy as np

        length, numbers, encoded = encode_clip(self._video, self._size, FPS, QUALITY)
        chosen, kept = choose(length), dict(zip(numbers, encoded, strict=True))
        wanted = {number: np.frombuffer(kept[number], np.uint8) for number in to_decode(chosen)}
        return chosen, {number: cv2.imdecode(data, cv2.IMREAD_COLOR) for number, data in wanted.items()}

    def skeleton(self, row):
        """As `TreeSource.skeleton`."""
        return read_skeleton(self._skeleton)

    def video_path(self, row):
        """Path of the video."""
        return self._video

    def skeleton_path(self, row):
        """Path of the skeleton."""
        return self._skeleton

    def has_frames(self, row):
        """Always true: an unreadable skeleton is reported when it is read."""
        return True

    def fingerprint(self, rows):
        """Hash of the paths of the files."""
        return hashlib.blake2b(f"{self._video} {self._skeleton}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def read_single(video, skeleton, *, size=0, **options):
    """Read the inputs of one sample, without a batch axis.

    Args:
        video: A video file, or None.
        skeleton: An official ``.skeleton`` file, or None.
        size: 0 for a video from the data set's 256x256 tree; 256 for a raw one, which is scaled to this side.
        options: ``frame_sampling``, ``channel_order`` and ``absent_person`` of `datasets.ntu.open_ntu`.

    Returns:
        dict of rgb uint8 (8, H, W, 3) and skeleton float32 (3, 32, 25, 2), for the files that are given.

    Raises:
        UserError: a file is missing or cannot be used.
    """
    for flag, path in (("--video", video), ("--skeleton", skeleton)):
        if path and not Path(path).is_file():
            raise UserError(f"{flag} {path} does not exist; name a file")
    settings = {"augment": False, "seed": 0, "views": 0, "num_frames": 8, **options}
    data = NTU(Single(video, skeleton, size), "test", settings, keep_missing=True)
    given = [field for field, path in zip(FIELDS, (video, skeleton), strict=True) if path]
    batch = data.read([0], only=given)
    return {field: batch[field][0] for field in given}
