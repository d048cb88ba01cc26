"""The originals' tree of NTU files: one resized AVI and one skeleton text file per sample."""

import hashlib
import re
from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.ntu.names import SKELETON_ENDING, VIDEO_ENDING, BadSample, file_of, list_ids
from datasets.ntu.skeleton import read_skeleton
from datasets.ntu.store import DATASET, PREPARE
from datasets.ntu.video import read_avi
from util.cli import UserError
from util.files import read_json
from util.hashes import file_hash, files_hash

SKELETON_FOLDER = "nturgb+d_skeletons"
VIDEO_FOLDER = "nturgb+d_rgb_256x256_30"
ABOUT_FILE = "about.json"


def read_about(folder):
    """The dict of ``about.json`` in ``folder`` (description, synthetic, label_names), empty if there is none."""
    path = Path(folder) / ABOUT_FILE
    about = read_json(path) if path.is_file() else {}
    if not isinstance(about, dict):
        raise UserError(f"{path} does not contain a JSON object; fix or delete it")
    known = {key: about[key] for key in ("description", "synthetic", "label_names") if key in about}
    names = known.get("label_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: label_names is not a list of names; fix or delete it")
    if not isinstance(known.get("description", ""), str) or not isinstance(known.get("synthetic", False), bool):
        raise UserError(f"{path}: expected text for description, and true or false for synthetic; fix or delete it")
    return known


class TreeSource:
    """Samples of the originals' tree: ``nturgb+d_rgb_256x256_30/<id>_rgb.avi``, ``nturgb+d_skeletons/<id>.skeleton``.

    Videos and skeletons are paired by name. NOTE: the original pairs two sorted lists by position, so that one missing
    file shifts all later pairs.

    The attributes are those of `StoreSource`.

    Args:
        folder: The folder that contains both folders.
        videos: Folder of the videos; None to find it in ``folder``.
    """

    by_content = False

    def __init__(self, folder, videos=None):
        self.folder = Path(folder)
        self._videos = Path(videos) if videos else find_video_folder(self.folder)
        videos, odd_videos = list_ids(self._videos, VIDEO_ENDING)
        skeletons, odd_skeletons = list_ids(self.folder / SKELETON_FOLDER, SKELETON_ENDING)
        self.unpaired = [*sorted(set(videos) ^ set(skeletons)), *odd_videos, *odd_skeletons]
        # Workers get a copy, and an array of bytes takes a tenth of the memory of a list of str.
        self._ids = np.array(sorted(set(videos) & set(skeletons)), dtype="S20")
        about = read_about(self.folder)
        self.description = about.get("description", f"{DATASET} in the originals' tree of files")
        self.synthetic = bool(about.get("synthetic", False))
        self.label_names = about.get("label_names")
        self.missing = []
        if len(self._ids):
            self.frame_shape = self._first_shape()

    def _first_shape(self):
        try:
            return read_avi(self.video_path(0), lambda length: [0])[1][0].shape
        except BadSample as reason:
            raise UserError(f"{self.video_path(0)} {reason}; make it again with `{PREPARE} --skip_invalid`") from None

    @cached_property
    def names(self):
        """Sorted ids of the samples that have both a video and a skeleton."""
        return [name.decode() for name in self._ids]

    def video_path(self, row):
        """Path of the AVI file."""
        return file_of(self._videos, self.names[row], VIDEO_ENDING)

    def skeleton_path(self, row):
        """Path of the skeleton file."""
        return file_of(self.folder / SKELETON_FOLDER, self.names[row], SKELETON_ENDING)

    def images(self, row, choose):
        """Decode frames of one video; arguments, result and errors are those of `StoreSource.images`."""
        chosen, images = read_avi(self.video_path(row), choose)
        for image in images.values():
            if image.shape != self.frame_shape:
                raise BadSample(f"has frames of shape {image.shape}, others have {self.frame_shape}")
        return chosen, images

    def skeleton(self, row):
        """The `Skeleton` of the sample."""
        return read_skeleton(self.skeleton_path(row))

    def has_frames(self, row):
        """Whether the skeleton can be read."""
        try:
            self.skeleton(row)
        except BadSample:
            return False
        return True

    def lacks(self, name):
        """What a name in ``unpaired`` lacks: ``video`` or ``skeleton``; None for files with other names."""
        there = [path.exists() for path in self._paths(name)]
        return None if not any(there) else "skeleton" if there[0] else "video"

    def _paths(self, name):
        return file_of(self._videos, name, VIDEO_ENDING), file_of(self.folder / SKELETON_FOLDER, name, SKELETON_ENDING)

    def damage(self, row):
        """Always empty: the files have no check sums."""
        return ""

    def contents(self):
        """List of keys in the order of ``names``; samples of equal content have equal keys.

        Files are read only if other samples have files of the same sizes.
        """
        sizes = [tuple(path.stat().st_size for path in self._paths(name)) for name in self.names]
        counts = Counter(sizes)
        return [
            tuple(map(file_hash, self._paths(name))) if counts[size] > 1 else size
            for name, size in zip(self.names, sizes, strict=True)
        ]

    def fingerprint(self, rows):
        """Short hex string that changes with the names, sizes and modification times of the files of ``rows``."""
        digest = hashlib.blake2b(digest_size=8)
        for row in rows:
            for path in (self.video_path(row), self.skeleton_path(row)):
                status = path.stat()
                digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def identity(self, rows):
        """Short hex string that changes with the names and content of the files of ``rows``, not with their folder."""
        paths = [path for row in rows for path in (self.video_path(row), self.skeleton_path(row))]
        return files_hash([(path.name, path) for path in paths])

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "names"}


def find_video_folder(folder):
    """Path of the folder of resized videos in the originals' tree, or None.

    Raises:
        UserError: there are several such folders, and none is the standard one.
    """
    folder = Path(folder)
    if (folder / VIDEO_FOLDER).is_dir():
        return folder / VIDEO_FOLDER
    form = re.compile(r"nturgb\+d_rgb_\d+x\d+_\d+")
    folders = sorted(path for path in folder.glob("nturgb+d_rgb_*") if path.is_dir() and form.fullmatch(path.name))
    if len(folders) > 1:
        raise UserError(f"{folders[0]} and {folders[1].name}: keep only one of them, so that it is clear which to use")
    return folders[0] if folders else None
