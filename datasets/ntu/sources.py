"""The raw NTU files that a preparation starts from, and the faults in them."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from datasets.ntu.names import (
    OFFICIAL_COUNT,
    SKELETON_ENDING,
    VIDEO_ENDING,
    BadSample,
    file_of,
    list_ids,
    missing_skeletons,
)
from datasets.ntu.scaling import encode_clip, write_avi
from datasets.ntu.skeleton import Skeleton, read_skeleton
from datasets.storage.invalid import report_invalid
from util.cli import UserError
from util.files import atomic_path


class Task(NamedTuple):
    """One sample to prepare: its id, its files and the settings (``target`` and ``ffmpeg`` only for AVI files)."""

    id: str
    video: str
    skeleton: str = ""
    target: str = ""
    size: int = 256
    fps: int = 30
    quality: int = 95
    bodies: str = "first"
    ffmpeg: str = ""


class Outcome(NamedTuple):
    """A prepared sample, or the reason why there is none.

    reason: Empty if the sample is good.
    skeleton: The parsed skeleton; None for an AVI file.
    clip: What `encode_clip` returns, or the number of frames of an AVI file.
    """

    reason: str = ""
    skeleton: Skeleton | None = None
    clip: tuple | int | None = None


def prepare_sample(task):
    """Parse the skeleton and scale the video of a `Task`; returns an `Outcome`."""
    try:
        skeleton = read_skeleton(task.skeleton, task.bodies)
    except BadSample as reason:
        return Outcome(f"skeleton {reason}")
    try:
        return Outcome("", skeleton, encode_clip(task.video, task.size, task.fps, task.quality))
    except BadSample as reason:
        return Outcome(f"video {reason}", skeleton)


def prepare_avi(task):
    """Write the scaled AVI file of a `Task`; returns an `Outcome`."""
    try:
        with atomic_path(task.target) as temporary:
            return Outcome(clip=write_avi(task.video, temporary, task.size, task.fps, task.ffmpeg))
    except BadSample as reason:
        return Outcome(f"video {reason}")


class Sources:
    """The files in a folder of videos and, if one is given, in a folder of skeletons.

    Attributes:
        ids: Sorted ids of the samples that can be tried.
        invalid: dict file name or id -> reason; it grows during the preparation.
        missing: Ids without a usable skeleton that are in the official list of missing skeletons.

    Raises:
        UserError: a folder is missing or contains no usable file.
    """

    def __init__(self, videos, skeletons=None):
        self.videos, self.skeletons = Path(videos), skeletons and Path(skeletons)
        clips, self.invalid = self._list("--dir", self.videos, VIDEO_ENDING)
        self.missing = []
        self.ids = clips
        if self.skeletons:
            poses, odd = self._list("--skeletons", self.skeletons, SKELETON_ENDING)
            self.invalid |= odd
            self.ids = sorted(set(clips) & set(poses))
            for name in sorted(set(poses) - set(clips)):
                self.reject(name, f"has no video {name}{VIDEO_ENDING}")
            for name in sorted(set(clips) - set(poses)):
                self.reject(name, f"skeleton is missing: there is no {name}{SKELETON_ENDING}")

    def _list(self, flag, folder, ending):
        if not folder.is_dir():
            raise UserError(f"{flag} {folder} is not a directory; give the one with SsssCcccPpppRrrrAaaa{ending}")
        ids, invalid = list_ids(folder, ending)
        if not ids and not invalid:
            raise UserError(f"{flag} {folder} has no files SsssCcccPpppRrrrAaaa{ending}; is it the right folder?")
        return ids, invalid

    def task(self, name, **how):
        """The `Task` of the sample ``name``."""
        skeleton = str(file_of(self.skeletons, name, SKELETON_ENDING)) if self.skeletons else ""
        return Task(name, str(file_of(self.videos, name, VIDEO_ENDING)), skeleton, **how)

    def reject(self, name, reason):
        """Record that a sample cannot be used; an officially missing skeleton is expected and not a fault."""
        if reason.startswith("skeleton ") and name in missing_skeletons():
            self.missing.append(name)
        else:
            self.invalid[name] = reason

    def accept(self, task, outcome):
        """Whether the `Outcome` is good; otherwise its reason is recorded. None means that the process died."""
        reason = "crashes its process (faulty decoder or out of memory)" if outcome is None else outcome.reason
        if reason:
            self.reject(task.id, reason)
        return not reason

    def digest(self):
        """Short hex string that changes with the names, sizes and modification times of all files."""
        lines = []
        for folder in filter(None, (self.videos, self.skeletons)):
            for path in sorted(folder.iterdir()):
                # A broken link is reported when the file is read.
                status = path.stat() if path.exists() else path.lstat()
                lines.append(os.fsencode(path.name) + f" {status.st_size} {status.st_mtime_ns}".encode())
        return hashlib.blake2b(b"\n".join(lines), digest_size=8).hexdigest()

    def check_invalid(self, folder, skip_invalid):
        """Write the invalid samples and files to ``invalid.txt`` in ``folder``, and print or raise them.

        Raises:
            UserError: something is invalid and ``skip_invalid`` is not set.
        """
        kinds = ("sample or file", "samples or files")
        report_invalid(folder, self.invalid, skip_invalid, kinds=kinds, done="prepared")

    def print_counts(self, kept, synthetic=False):
        """Print the number of ``kept`` samples and, for real data, compare it with the official number."""
        if self.missing:
            print(f"left out {len(self.missing):,} samples that are in the official list of missing skeletons")
        absent = OFFICIAL_COUNT - kept - len(self.missing)
        compared = f"{absent:,} of them are not here" if absent else "all are accounted for"
        official = f" (the official NTU RGB+D 60 has {OFFICIAL_COUNT:,}: {compared})"
        print(f"{kept:,} samples{'' if synthetic else official}")
