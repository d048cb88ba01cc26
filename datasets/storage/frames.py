"""JPEG frames of many clips in one flat file, read by memory map.

frames.bin     all JPEG files one after another
journal.jsonl  one line per finished clip; lets an interrupted preparation resume
settings.json  how the frames were made
names, starts, lengths, crcs, numbers, offsets, sizes (.npy) and meta.json: the index, written last
"""

import hashlib
import json
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.storage.blobs import META_FILE, BlobReader, BlobWriter, Schema, save_array
from util.arrays import MappedFile, check_sums
from util.cli import UserError
from util.files import read_json, write_json
from util.progress import progress

SETTINGS_FILE = "settings.json"
FRAMES = Schema("frames.bin", "journal.jsonl", {"length": int, "numbers": list, "sizes": list}, "frame-store", 1)
# Arrays of the index -> kind of their dtype. Per clip: names, starts (which has one more element), lengths, crcs; per
# frame: numbers, offsets, sizes.
INDEX = {"names": "U", "starts": "i", "lengths": "i", "crcs": "u", "numbers": "i", "offsets": "i", "sizes": "i"}


class FrameStoreWriter(BlobWriter):
    """Makes a frame store, or resumes an unfinished one; a context manager.

    Args:
        folder: Folder of the store.
        settings: JSON dict of everything that determines the frames; a folder begun with other settings is refused.

    Raises:
        UserError: the folder was begun with other settings, is in use by another run, or cannot be written.
    """

    schema = FRAMES

    def __init__(self, folder, settings=None):
        _keep_settings(Path(folder), settings or {})
        super().__init__(folder)

    def add(self, name, length, numbers, images):
        """Append one clip.

        Args:
            name: Name of the clip.
            length: Number of frames of the whole clip.
            numbers: Frame number in the clip of each image, ascending.
            images: JPEG bytes of each image.

        Raises:
            ValueError: the store already has the clip, or ``numbers`` and ``images`` have different lengths.
            UserError: the store cannot be written.
        """
        if len(numbers) != len(images):
            raise ValueError(f"{len(numbers)} numbers for {len(images)} images")
        sizes = [len(image) for image in images]
        facts = {"length": int(length), "numbers": [int(number) for number in numbers], "sizes": sizes}
        self.append(name, b"".join(bytes(image) for image in images), **facts)

    def finish(self, meta):
        """Write the index and, last, ``meta.json``, which includes the dict ``meta``."""
        self.sync()
        entries = [entry for _, entry in sorted(self.entries.items())]
        counts = [len(entry["sizes"]) for entry in entries]
        sizes = [np.array(entry["sizes"], dtype=np.int64) for entry in entries]
        offsets = [entry["offset"] + np.cumsum(size) - size for entry, size in zip(entries, sizes, strict=True)]
        arrays = {
            "names": np.array([entry["name"] for entry in entries], dtype=np.str_),
            "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "lengths": np.array([entry["length"] for entry in entries], dtype=np.int32),
            "crcs": np.array([entry["crc"] for entry in entries], dtype=np.uint32),
            "numbers": np.array([number for entry in entries for number in entry["numbers"]], dtype=np.int32),
            "offsets": np.concatenate([*offsets, np.zeros(0)]).astype(np.int64),
            "sizes": np.concatenate([*sizes, np.zeros(0)]).astype(np.int32),
        }
        for part, array in arrays.items():
            save_array(self.folder / f"{part}.npy", array)
        facts = {"clips": len(entries), "frames": int(sum(counts))}
        self.write_meta(meta, facts, [f"{part}.npy" for part in INDEX])


def _keep_settings(folder, settings):
    """Write ``settings.json``, or check that the folder was begun with the same settings."""
    path = folder / SETTINGS_FILE
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        if (folder / FRAMES.journal).exists():
            raise UserError(f"{path} is missing, so it is unknown how its frames were made; choose another folder")
        if (folder / META_FILE).exists():
            raise UserError(f"{folder} contains other data ({META_FILE}); choose another folder")
        write_json(path, settings)
        return
    old = read_json(path)
    if old != settings:
        old = old if isinstance(old, dict) else {}
        key = next(key for key in {**old, **settings} if old.get(key) != settings.get(key))
        raise UserError(
            f"{folder} was begun with {key} {old.get(key)}, not {settings.get(key)}:"
            " give the same flags again, or choose another folder"
        )


class FrameStore(BlobReader):
    """A finished frame store; clips are numbered in the sorted order of their names.

    Attributes:
        meta: The dict of ``meta.json``.

    Raises:
        UserError: a file is missing, truncated, or does not fit the others.
    """

    schema = FRAMES

    def __init__(self, folder, remedy):
        super().__init__(folder, remedy)
        self.meta = self._read_meta()
        # Checked when the store is opened, so that damage is not reported as late as in the first batch.
        self._check()

    @cached_property
    def _files(self):
        files = {part: MappedFile(self.folder / f"{part}.npy", self.again) for part in INDEX}
        for part, file in files.items():
            array = file.array
            if array.dtype.kind != INDEX[part] and len(array):
                raise self._damaged(f"{part}.npy", f"holds {array.dtype}")
        return files

    def _index(self, part):
        return self._files[part].array

    def _arrays(self):
        """All arrays of the index by name."""
        return {part: file.array for part, file in self._files.items()}

    def _check(self):
        for name in ("clips", "frames", "bytes"):
            if type(self.meta.get(name)) is not int:
                raise self._damaged(META_FILE, f"lacks or misstates {name}")
        index = self._arrays()
        clips, frames = self.meta["clips"], self.meta["frames"]
        for part, array in index.items():
            expected = frames if part in ("numbers", "offsets", "sizes") else clips
            expected += part == "starts"
            if array.shape != (expected,):
                raise self._damaged(f"{part}.npy", f"has shape {array.shape}, expected ({expected},)")
        ends = index["offsets"] + index["sizes"]
        starts = index["starts"]
        if starts[0] != 0 or starts[-1] != frames or (np.diff(starts) < 0).any():
            raise self._damaged("starts.npy", "does not fit the other arrays")
        if frames and (index["offsets"].min() < 0 or index["sizes"].min() < 0 or ends.max() > self.meta["bytes"]):
            raise self._damaged("offsets.npy", f"points outside {self.schema.data}")
        path = self.folder / self.schema.data
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise self._damaged(path.name, "is missing")
        if size != self.meta["bytes"]:
            raise self._damaged(path.name, f"has {size:,} bytes, expected {self.meta['bytes']:,}")
        if changed := check_sums(self.folder, self.meta.get("sums")):
            raise self._damaged(changed.name, "has changed since it was written")

    @property
    def _bytes(self):
        return self.meta["bytes"]

    @property
    def _data(self):
        # An empty file cannot be mapped.
        return super()._data if self._bytes else np.zeros(0, dtype=np.uint8)

    def __len__(self):
        return len(self._index("names"))

    @cached_property
    def names(self):
        """Names of all clips, sorted."""
        return self._index("names").tolist()

    @cached_property
    def rows(self):
        """dict name of a clip -> its number."""
        return {name: row for row, name in enumerate(self.names)}

    def row(self, name):
        """Number of the clip ``name``; raises KeyError if there is none."""
        return self.rows[name]

    def length(self, clip):
        """Number of frames of the complete clip number ``clip``."""
        return int(self._index("lengths")[clip])

    def crc(self, clip):
        """CRC-32 of the clip's images."""
        return int(self._index("crcs")[clip])

    def crcs(self, clips):
        """CRC-32 of each of several clips: list of int."""
        return self._index("crcs")[np.asarray(clips, dtype=np.int64)].tolist()

    def numbers(self, clip):
        """Numbers of the stored frames of a clip: int array (n,), ascending."""
        starts = self._index("starts")
        return self._index("numbers")[starts[clip] : starts[clip + 1]]

    def jpeg(self, clip, position):
        """Bytes of the image at ``position`` in `numbers`: read-only uint8 array (size,)."""
        row = self._index("starts")[clip] + position
        offset = self._index("offsets")[row]
        return self._data[offset : offset + self._index("sizes")[row]]

    def is_intact(self, clip):
        """Whether the bytes of the images of clip number ``clip`` match their check sum."""
        crc = 0
        for position in range(len(self.numbers(clip))):
            crc = zlib.crc32(self.jpeg(clip, position), crc)
        return crc == self.crc(clip)

    def verify(self):
        """Check the bytes of every clip.

        Raises:
            UserError: clips are damaged; the message has their number and the name of the first.
        """
        clips = progress(range(len(self)), "checking frames", unit="clip")
        bad = [self.names[clip] for clip in clips if not self.is_intact(clip)]
        if bad:
            raise self._damaged(self.schema.data, f"has {len(bad):,} damaged clips, first {bad[0]}")

    def fingerprint(self, clips=None):
        """Short hex string that changes with names, lengths and images of ``clips`` (default: all)."""
        index = self._arrays()
        clips = np.arange(len(index["names"])) if clips is None else np.asarray(clips, dtype=np.int64)
        names = "\n".join(index["names"][clips].tolist())
        digest = hashlib.blake2b(names.encode("utf-8", "surrogatepass"), digest_size=8)
        for part in ("lengths", "crcs"):
            digest.update(np.ascontiguousarray(index[part][clips]))
        return digest.hexdigest()
