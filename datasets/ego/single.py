"""Read a single clip, outside of any data set, as a test clip of EgoGesture."""

from pathlib import Path

from datasets.ego.annotation import Clip
from datasets.ego.dataset import EgoGesture
from datasets.ego.frames import FIELDS
from util.cli import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")


class Single:
    """The frames of one clip, with those methods of `datasets.ego.frames.FrameFolders` that reading needs.

    Args:
        frames: dict field (``rgb``, ``depth``) -> list of its picture files in order.
    """

    description, synthetic = "one clip", False

    def __init__(self, frames):
        self._frames = frames

    def jpeg(self, clip, field, position):
        """The bytes of one frame."""
        return self._frames[field][position].read_bytes()

    def name(self, clip, field, position):
        """Name of a frame for messages."""
        return str(self._frames[field][position])

    def remedy(self):
        """What a user can do about a frame that cannot be read."""
        return "fetch it again"

    def fingerprint(self, clips):
        """The names of the files."""
        return repr({field: list(map(str, files)) for field, files in self._frames.items()})


def read_single(rgb, depth, *, sample_size, sample_duration):
    """Read the inputs of one clip, without a batch axis.

    Args:
        rgb, depth: Folders of the frames as picture files, which are sorted by name; None for one that is not needed.
        sample_size, sample_duration: See `datasets.ego.open_ego`.

    Returns:
        dict of rgb uint8 (3, T, S, S) and depth uint8 (1, T, S, S), for the folders that are given.

    Raises:
        UserError: a folder is missing or empty, the two have different numbers of frames, or a frame is damaged.
    """
    frames = {field: _listed(field, folder) for field, folder in zip(FIELDS, (rgb, depth), strict=True) if folder}
    counts = {field: len(files) for field, files in frames.items()}
    if len(set(counts.values())) > 1:
        raise UserError(
            f"--rgb has {counts['rgb']} frames, --depth {counts['depth']}; expected the same moments in both"
        )
    length = next(iter(counts.values()))
    clip = Clip("clip", "testing", "", 0, 0, length - 1)
    options = {"size": sample_size, "duration": sample_duration}
    batch = EgoGesture("test", Single(frames), [clip], ["none"], [], options).read([0], only=tuple(frames))
    return {field: batch[field][0] for field in frames}


def _listed(field, folder):
    if not Path(folder).is_dir():
        raise UserError(f"--{field} {folder} is not a folder; expected one with the frames of a clip")
    files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"--{field} {folder} has no pictures ({', '.join(SUFFIXES)}); expected the frames of a clip")
    return files
