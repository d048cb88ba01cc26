"""The NTU store that ``prepare_ntu.py`` writes: frames of all videos, and parsed skeletons, read by memory map."""

import hashlib
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.ntu.names import BadSample
from datasets.ntu.skeleton import NUM_JOINTS, Skeleton
from datasets.ntu.video import to_decode
from datasets.storage.blobs import META_FILE, BlobReader, BlobWriter, Schema, save_array
from datasets.storage.frames import FrameStore
from util.arrays import MappedFile, check_sums, sums_of
from util.cli import UserError, quoted

DATASET = "NTU RGB+D 60"
# These files are in the folder of the frames, and share their meta.json.
SKELETONS = Schema("skeletons.bin", "skeletons.jsonl", {"length": int, "persons": int})
SKELETON_NAMES, SKELETON_INDEX = "skeleton_names.npy", "skeleton_index.npy"
PREPARE = "python datasets/prepare_ntu.py --dir nturgb+d_rgb"


class SkeletonWriter(BlobWriter):
    """Writes parsed skeletons next to the frames of a store; resumes an unfinished file.

    For each sample, ``skeletons.bin`` contains the joints of the `Skeleton`, then the counts, padded with zeros to a
    multiple of four bytes.

    Raises:
        UserError: the folder cannot be written, or another run is writing it.
    """

    schema = SKELETONS

    def add(self, name, skeleton):
        """Append the `Skeleton` of the sample ``name``."""
        counts = skeleton.counts.tobytes()
        blob = np.ascontiguousarray(skeleton.joints, dtype=np.float32).tobytes() + counts + bytes(-len(counts) % 4)
        facts = {"length": len(skeleton.counts), "persons": len(skeleton.joints), "dropped": skeleton.dropped}
        self.append(name, blob, **facts)

    def dropped(self):
        """(number of samples with persons that were left out, number of these persons, summed over the frames)."""
        counts = [entry.get("dropped", 0) for entry in self.entries.values()]
        return sum(count > 0 for count in counts), sum(counts)

    def finish(self):
        """Write the index: the names (N,), and int64 (N, 4) of offset, frames, persons and CRC-32.

        Returns:
            The check sums of these files, for ``skeleton_sums`` in the store's meta.json.
        """
        self.sync()
        entries = [entry for _, entry in sorted(self.entries.items())]
        index = [[entry[key] for key in ("offset", "length", "persons", "crc")] for entry in entries]
        save_array(self.folder / SKELETON_NAMES, np.array([entry["name"] for entry in entries], dtype=np.str_))
        save_array(self.folder / SKELETON_INDEX, np.array(index, dtype=np.int64).reshape(-1, 4))
        return sums_of(self.folder, [SKELETON_NAMES, SKELETON_INDEX])


class SkeletonStore(BlobReader):
    """Reads what `SkeletonWriter` wrote; cheap to pickle.

    Raises:
        UserError: a file is missing, truncated, or does not fit the others.
    """

    schema = SKELETONS

    def __init__(self, folder, remedy):
        super().__init__(folder, remedy)
        names, index = (file.array for file in self._files.values())
        size = self._data.size
        if index.shape != (len(names), 4) or (len(index) and (index.min() < 0 or _ends(index).max() > size)):
            raise self._damaged(SKELETON_INDEX, "does not fit the other files")

    @cached_property
    def _files(self):
        return {name: MappedFile(self.folder / name, self.again) for name in (SKELETON_NAMES, SKELETON_INDEX)}

    @property
    def _names(self):
        return self._files[SKELETON_NAMES].array

    @property
    def _index(self):
        return self._files[SKELETON_INDEX].array

    @cached_property
    def rows(self):
        """dict id -> number of its skeleton."""
        return {name: row for row, name in enumerate(self._names.tolist())}

    def read(self, row):
        """The `Skeleton` number ``row``; its arrays are views of the file, not to be written to."""
        offset, frames, persons, _ = self._index[row]
        middle = offset + persons * NUM_JOINTS * 12
        data = self._data
        joints = data[offset:middle].view(np.float32).reshape(persons, NUM_JOINTS, 3)
        return Skeleton(data[middle : middle + frames], joints)

    def crcs(self, rows):
        """CRC-32 of the skeletons ``rows``: int64 (n,)."""
        return self._index[rows, 3]

    def is_intact(self, row):
        """Whether the bytes of the skeleton number ``row`` match its check sum."""
        index = self._index
        return zlib.crc32(self._data[index[row, 0] : _ends(index)[row]]) == index[row, 3]

    def verify(self):
        """Check the bytes of every skeleton; raises UserError that names the first damaged one."""
        index = self._index
        self._check_blobs(self._names, index[:, 0], _ends(index), index[:, 3], what="sample", unit="clip")


def _ends(index):
    """Where each skeleton of an index ends."""
    offsets, frames, persons, _ = index.T
    return offsets + persons * NUM_JOINTS * 12 + -(-frames // 4) * 4


class StoreSource:
    """Samples of a store that ``prepare_ntu.py --out`` wrote.

    Attributes:
        unpaired: Ids that have only a video or only a skeleton.
        missing: Ids of officially faulty skeletons that could not be read when the store was made.
        frame_shape: ``(H, W, 3)``.
        description, synthetic, label_names: From ``meta.json``.
        by_content: Whether `fingerprint` depends on the content alone, so that it identifies a copy elsewhere as well.
    """

    by_content = True

    def __init__(self, folder):
        self.folder = Path(folder)
        remedy = f"{PREPARE} --skeletons nturgb+d_skeletons --out {quoted(folder)}"
        self._frames, self._skeletons = FrameStore(folder, remedy), SkeletonStore(folder, remedy)
        meta = self._frames.meta
        if meta.get("dataset") != DATASET:
            raise UserError(f"{self.folder / META_FILE} is not a store of {DATASET}; make one with `{remedy}`")
        size, names, missing = meta.get("size"), meta.get("label_names") or [], meta.get("missing_skeletons", [])
        good = {
            "size": type(size) is int and 0 < size < 2**16,
            "description": isinstance(meta.get("description"), str),
            "label_names": isinstance(names, list) and all(isinstance(name, str) for name in names),
            "missing_skeletons": isinstance(missing, list) and all(isinstance(name, str) for name in missing),
        }
        for name, fine in good.items():
            if not fine:
                raise UserError(f"{self.folder / META_FILE} lacks or misstates {name}; make the store with `{remedy}`")
        if changed := check_sums(self.folder, meta.get("skeleton_sums")):
            again = f"delete {folder} and make it again with `{remedy}`"
            raise UserError(f"{changed} has changed since it was written; {again}")
        self.frame_shape = (size, size, 3)
        self.description, self.synthetic = meta["description"], bool(meta.get("synthetic"))
        self.label_names, self.missing = names or None, missing
        self.unpaired = sorted(set(self._frames.names) ^ self._skeletons.rows.keys())

    @cached_property
    def names(self):
        """Sorted ids of the samples that have both a video and a skeleton."""
        return sorted(self._skeletons.rows.keys() & set(self._frames.names))

    def _clip(self, row):
        return self._frames.row(self.names[row])

    def _clips(self, rows):
        clips, names = self._frames.rows, self.names
        return [clips[names[row]] for row in rows]

    def _pose(self, row):
        return self._skeletons.rows[self.names[row]]

    def images(self, row, choose):
        """Decode frames of one video.

        Args:
            row: Number of the sample.
            choose: Function from the number of frames of the clip to an array of frame numbers, -1 for none.

        Returns:
            The array of chosen numbers, and a dict number -> uint8 (H, W, 3) array with channels blue, green, red.

        Raises:
            BadSample: an image is damaged.
        """
        import cv2

        clip, images = self._clip(row), {}
        chosen = choose(self._frames.length(clip))
        wanted = to_decode(chosen)
        positions = np.searchsorted(self._frames.numbers(clip), wanted)
        for number, position in zip(wanted, positions.tolist(), strict=True):
            image = cv2.imdecode(self._frames.jpeg(clip, position), cv2.IMREAD_COLOR)
            if image is None or image.shape != self.frame_shape:
                raise BadSample(f"has a damaged image in sample {self.names[row]}")
            images[number] = image
        return chosen, images

    def video_path(self, row):
        """Path of the file that contains the frames."""
        return self._frames.folder / "frames.bin"

    def skeleton(self, row):
        """The `Skeleton` of the sample."""
        return self._skeletons.read(self._pose(row))

    def skeleton_path(self, row):
        """Path of the file that contains the skeleton."""
        return self.folder / SKELETONS.data

    def verify(self):
        """Check every byte; returns the number of samples, raises UserError that names what is damaged."""
        self._frames.verify()
        self._skeletons.verify()
        return len(self.names)

    def fingerprint(self, rows):
        """Short hex string that changes with the content of the samples ``rows``."""
        crcs = self._skeletons.crcs([self._pose(row) for row in rows])
        frames = self._frames.fingerprint(self._clips(rows))
        return hashlib.blake2b(frames.encode() + crcs.tobytes(), digest_size=8).hexdigest()

    def has_frames(self, row):
        """Always true: a store contains only readable skeletons."""
        return True

    def lacks(self, name):
        """What an id in ``unpaired`` lacks: ``video`` or ``skeleton``."""
        return "video" if name in self._skeletons.rows else "skeleton"

    def damage(self, row):
        """Which part of a sample does not match its check sum: ``video``, ``skeleton``, or an empty text for none."""
        if not self._frames.is_intact(self._clip(row)):
            return "video"
        return "" if self._skeletons.is_intact(self._pose(row)) else "skeleton"

    def contents(self):
        """List of keys in the order of ``names``; samples of equal content have equal keys."""
        crcs = self._skeletons.crcs([self._pose(row) for row in range(len(self.names))]).tolist()
        return list(zip(crcs, self._frames.crcs(self._clips(range(len(self.names)))), strict=True))

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "names"}
