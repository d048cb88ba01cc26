"""JPEG frames of many clips in one flat file, read by memory map.

frames.bin     all JPEG files one after the other
journal.jsonl  one line per finished clip; what makes an interrupted preparation go on
settings.json  how the frames are made
names, starts, lengths, crcs, numbers, offsets, sizes (.npy) and meta.json: the index, written last
"""

import hashlib
import json
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.storage.blobs import BlobJournal
from util.arrays import MappedFile, check_sums, sums_of
from util.cli import UserError
from util.files import atomic_path, read_json, write_json
from util.progress import progress

STORE_FORMAT = "frame-store"
STORE_VERSION = 1
DATA_FILE, JOURNAL_FILE, SETTINGS_FILE, META_FILE = "frames.bin", "journal.jsonl", "settings.json", "meta.json"
# Per clip: names, starts (one more), lengths, crcs; per frame: numbers, offsets, sizes.
INDEX = {"names": "U", "starts": "i", "lengths": "i", "crcs": "u", "numbers": "i", "offsets": "i", "sizes": "i"}


def save_array(path, array):
    """Write ``array`` as ``.npy``, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


class FrameStoreWriter:
    """Makes a frame store, or goes on with an unfinished one; a context manager.

    Args:
        folder: Folder of the store.
        settings: JSON dict of all that decides how frames look; a folder begun with others is refused.

    Raises:
        UserError: the folder was begun with other settings, is in use by another run, or cannot be written.
    """

    def __init__(self, folder, settings=None):
        self.folder = Path(folder)
        self._keep_settings(settings or {})
        self._journal = BlobJournal(self.folder / DATA_FILE, self.folder / JOURNAL_FILE)

    def _keep_settings(self, settings):
        path = self.folder / SETTINGS_FILE
        settings = json.loads(json.dumps(settings))
        if not path.exists():
            if (self.folder / JOURNAL_FILE).exists():
                raise UserError(f"{path} is missing, so nobody knows how its frames were made; choose another folder")
            if (self.folder / META_FILE).exists():
                raise UserError(f"{self.folder} holds other data ({META_FILE}); choose another folder")
            write_json(path, settings)
            return
        old = read_json(path)
        if old != settings:
            old = old if isinstance(old, dict) else {}
            key = next(key for key in {**old, **settings} if old.get(key) != settings.get(key))
            raise UserError(
                f"{self.folder} was begun with {key} {old.get(key)}, not {settings.get(key)}:"
                " give the same flags as then, or choose another folder"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._journal.close()

    @property
    def done(self):
        """The names of the clips that are in: a view that works like a set."""
        return self._journal.entries.keys()

    def add(self, name, length, numbers, images):
        """Append one clip.

        Args:
            name: Name of the clip.
            length: Number of frames of the whole clip.
            numbers: Number in the clip of each image, ascending.
            images: Encoded JPEG bytes of each.

        Raises:
            ValueError: the clip is in already, or there is not one number per image.
            UserError: the store cannot be written.
        """
        if len(numbers) != len(images):
            raise ValueError(f"{len(numbers)} numbers for {len(images)} images")
        # A store that grows has an old index; a reader must not take it for whole.
        (self.folder / META_FILE).unlink(missing_ok=True)
        sizes = [len(image) for image in images]
        facts = {"length": int(length), "numbers": [int(number) for number in numbers], "sizes": sizes}
        self._journal.append(name, b"".join(bytes(image) for image in images), **facts)

    def finish(self, meta):
        """Write the index, and ``meta.json`` (with the dict ``meta`` in it) last."""
        self._journal.sync()
        entries = [entry for _, entry in sorted(self._journal.entries.items())]
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
        head = {"format": STORE_FORMAT, "version": STORE_VERSION}
        facts = {"clips": len(entries), "frames": int(sum(counts)), "bytes": self._journal.size}
        facts |= {"sums": sums_of(self.folder, [f"{part}.npy" for part in INDEX])}
        write_json(self.folder / META_FILE, meta | head | facts)


class FrameStore:
    """A finished frame store; clips are numbered in the sorted order of their names.

    Cheap to pickle: every process opens its own memory maps.

    Args:
        folder: Folder of the store.
        remedy: Command that makes the store, for messages.

    Attributes:
        meta: The dict of ``meta.json``.
        folder: The folder.

    Raises:
        UserError: a file is missing, cut short or does not fit the others.
    """

    def __init__(self, folder, remedy):
        self.folder, self.remedy = Path(folder), remedy
        path = self.folder / META_FILE
        if not path.is_file():
            raise UserError(f"{path} is missing: the store is not finished; finish it with `{remedy}`")
        self.meta = read_json(path)
        found = self.meta if isinstance(self.meta, dict) else {}
        if (found.get("format"), found.get("version")) != (STORE_FORMAT, STORE_VERSION):
            raise UserError(f"{path} is not a {STORE_FORMAT} of version {STORE_VERSION}; make it with `{remedy}`")
        # Opened here once so that damage shows at once and not in the first batch.
        self._check()

    def _remake(self):
        return f"delete {self.folder} and make it again with `{self.remedy}`"

    def _damaged(self, path, reason):
        return UserError(f"{path} {reason}; {self._remake()}")

    def _load(self, part):
        path = self.folder / f"{part}.npy"
        file = MappedFile(path, self._remake())
        array = file.array
        if array.dtype.kind != INDEX[part] and len(array):
            raise self._damaged(path, f"holds {array.dtype}")
        return file

    @cached_property
    def _files(self):
        return {part: self._load(part) for part in INDEX}

    def _index(self, part):
        return self._files[part].array

    def _check(self):
        for name in ("clips", "frames", "bytes"):
            if type(self.meta.get(name)) is not int:
                raise self._damaged(self.folder / META_FILE, f"lacks or misstates {name}")
        index = {part: self._index(part) for part in INDEX}
        clips, frames = self.meta["clips"], self.meta["frames"]
        for part, array in index.items():
            expected = frames if part in ("numbers", "offsets", "sizes") else clips
            expected += part == "starts"
            if array.shape != (expected,):
                raise self._damaged(self.folder / f"{part}.npy", f"has shape {array.shape}, expected ({expected},)")
        ends = index["offsets"] + index["sizes"]
        starts = index["starts"]
        if starts[0] != 0 or starts[-1] != frames or (np.diff(starts) < 0).any():
            raise self._damaged(self.folder / "starts.npy", "does not fit the other arrays")
        if frames and (index["offsets"].min() < 0 or index["sizes"].min() < 0 or ends.max() > self.meta["bytes"]):
            raise self._damaged(self.folder / "offsets.npy", f"points outside {DATA_FILE}")
        path = self.folder / DATA_FILE
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise self._damaged(path, "is missing")
        if size != self.meta["bytes"]:
            raise self._damaged(path, f"has {size:,} bytes, expected {self.meta['bytes']:,}")
        if changed := check_sums(self.folder, self.meta.get("sums")):
            raise self._damaged(changed, "is not as it was written")

    @cached_property
    def _frames(self):
        file = MappedFile(self.folder / DATA_FILE, self._remake(), np.uint8)
        if file.array.size < self.meta["bytes"]:
            raise self._damaged(self.folder / DATA_FILE, f"has fewer than {self.meta['bytes']:,} bytes")
        return file

    @property
    def _data(self):
        # An empty file cannot be mapped.
        return self._frames.array if self.meta["bytes"] else np.zeros(0, dtype=np.uint8)

    def __len__(self):
        return len(self._index("names"))

    @cached_property
    def names(self):
        """Names of all clips, sorted."""
        return self._index("names").tolist()

    @cached_property
    def _rows(self):
        return {name: row for row, name in enumerate(self.names)}

    def row(self, name):
        """Number of the clip ``name``; KeyError where there is none."""
        return self._rows[name]

    def length(self, clip):
        """Number of frames of the whole clip number ``clip``."""
        return int(self._index("lengths")[clip])

    def crc(self, clip):
        """CRC-32 of the clip's images."""
        return int(self._index("crcs")[clip])

    def numbers(self, clip):
        """Which frames of the clip are kept: int array (n,), ascending."""
        starts = self._index("starts")
        return self._index("numbers")[starts[clip] : starts[clip + 1]]

    def jpeg(self, clip, position):
        """Bytes of the image at ``position`` in `numbers`: uint8 array (size,), not to be written to."""
        row = self._index("starts")[clip] + position
        offset = self._index("offsets")[row]
        return self._data[offset : offset + self._index("sizes")[row]]

    def verify(self):
        """Check the bytes of every clip.

        Raises:
            UserError: naming the damaged clips.
        """
        bad = []
        for clip in progress(range(len(self)), "checking frames", unit="clip"):
            images = (self.jpeg(clip, position) for position in range(len(self.numbers(clip))))
            crc = 0
            for image in images:
                crc = zlib.crc32(image, crc)
            if crc != self.crc(clip):
                bad.append(self.names[clip])
        if bad:
            raise self._damaged(self.folder / DATA_FILE, f"has {len(bad):,} damaged clips, first {bad[0]}")

    def fingerprint(self, clips=None):
        """Short hex string that changes with names, lengths and images of ``clips`` (default: all)."""
        clips = np.arange(len(self)) if clips is None else np.asarray(clips, dtype=np.int64)
        names = "\n".join(self._index("names")[clips].tolist())
        digest = hashlib.blake2b(names.encode("utf-8", "surrogatepass"), digest_size=8)
        for part in ("lengths", "crcs"):
            digest.update(np.ascontiguousarray(self._index(part)[clips]))
        return digest.hexdigest()

    def __getstate__(self):
        cached = {name for name, value in vars(type(self)).items() if isinstance(value, cached_property)}
        return {name: value for name, value in self.__dict__.items() if name not in cached}
