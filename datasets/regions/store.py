"""Region features of many images in one flat file, read by memory map.

regions.bin    for each image the features (n, D), padded to a multiple of 16 bytes, then the boxes float32 (n, 4)
journal.jsonl  one line per stored image; lets an interrupted preparation resume
settings.json  dtype and width of the features
index.npy      id, offset, number of regions, height, width and CRC-32 of each image, sorted by id
meta.json      written last, so that a folder without it is not a finished store
"""

import hashlib
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.regions.files import BadRegions, Regions
from datasets.storage.blobs import META_FILE, BlobReader, BlobWriter, Schema, save_array
from util.arrays import DamagedArray, check_sums, read_array
from util.cli import UserError
from util.files import read_json, write_json

SETTINGS_FILE, INDEX_FILE = "settings.json", "index.npy"
FACTS = {"stamp": str, "count": int, "height": float, "width": float}
REGIONS = Schema("regions.bin", "journal.jsonl", FACTS, "region-store", 1)
DTYPES = ("float16", "float32")
INDEX_DTYPE = np.dtype(
    [("id", "<i8"), ("offset", "<i8"), ("count", "<i4"), ("height", "<f4"), ("width", "<f4"), ("crc", "<u4")]
)
BOX_BYTES = 16


def encode_regions(regions, dtype):
    """Encode `Regions` as the bytes that are stored, with features as ``dtype``.

    Raises:
        BadRegions: a feature is beyond the range of float16.
    """
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(regions.features, dtype=dtype)
    if not np.isfinite(features).all():
        raise BadRegions("has features beyond 65,504, the range of float16 (--float32 keeps them)")
    raw = features.tobytes()
    return raw + bytes(-len(raw) % BOX_BYTES) + np.ascontiguousarray(regions.boxes, dtype=np.float32).tobytes()


class RegionStoreWriter(BlobWriter):
    """Makes a store, or resumes an unfinished one; a context manager.

    Args:
        folder: Folder of the store.
        dtype: ``float16`` or ``float32``.

    Attributes:
        feature_size: Width D of the features, None before the first image.

    Raises:
        UserError: the folder was begun with another dtype, contains other data, is in use, or cannot be written.
    """

    schema = REGIONS

    def __init__(self, folder, dtype="float16"):
        folder = Path(folder)
        self.dtype, self.feature_size = dtype, None
        path = folder / SETTINGS_FILE
        if path.exists():
            settings = read_json(path)
            if not isinstance(settings, dict) or settings.get("dtype") != dtype:
                raise UserError(f"{path} does not have dtype {dtype}: delete {folder}, or choose another folder")
            self.feature_size = settings.get("feature_size")
        elif (folder / META_FILE).exists() or _has_bytes(folder / REGIONS.journal):
            raise UserError(f"{folder} holds other data, or a store without {path.name}; choose another folder")
        super().__init__(folder)

    def stamps(self):
        """dict image id -> stamp (str) of the stored images.

        Raises:
            UserError: the journal contains names that are not image ids.
        """
        try:
            return {int(name): entry["stamp"] for name, entry in self.entries.items()}
        except ValueError:
            path = self.folder / REGIONS.journal
            raise UserError(f"{path} is damaged; delete {self.folder} and pack again") from None

    def add(self, image_id, stamp, blob, count, feature_size, size):
        """Append one image.

        Args:
            image_id: Id of the image.
            stamp: Text that changes with the source, so that a later run can find out whether it is the same.
            blob: Bytes from `encode_regions`.
            count: Number of regions.
            feature_size: Width of the features.
            size: Height and width of the image in pixels.

        Raises:
            BadRegions: the width differs from that of earlier images.
            UserError: the store cannot be written.
        """
        if self.feature_size is None:
            self.feature_size = int(feature_size)
            write_json(self.folder / SETTINGS_FILE, {"dtype": self.dtype, "feature_size": self.feature_size})
        if feature_size != self.feature_size:
            raise BadRegions(f"has features of width {feature_size}, the other images have {self.feature_size}")
        height, width = (float(value) for value in size)
        self.append(str(image_id), blob, stamp=stamp, count=int(count), height=height, width=width)

    def add_regions(self, image_id, stamp, regions):
        """Encode and append the `Regions` of one image; see `add`."""
        size = regions.height, regions.width
        self.add(image_id, stamp, encode_regions(regions, self.dtype), *regions.features.shape, size)

    def finish(self, ids, meta):
        """Write the index of the images ``ids`` (int array) and, last, ``meta.json`` with the dict ``meta`` in it."""
        self.sync()
        (self.folder / META_FILE).unlink(missing_ok=True)
        index = np.zeros(len(ids), dtype=INDEX_DTYPE)
        for row, image_id in enumerate(sorted(np.asarray(ids).tolist())):
            entry = self.entries[str(image_id)]
            values = (entry[key] for key in ("offset", "count", "height", "width", "crc"))
            index[row] = (image_id, *values)
        save_array(self.folder / INDEX_FILE, index)
        facts = {"dtype": self.dtype, "feature_size": self.feature_size}
        facts |= {"images": len(index), "regions": int(index["count"].sum())}
        self.write_meta(meta, facts, [INDEX_FILE])


def _has_bytes(path):
    return path.exists() and path.stat().st_size > 0


class RegionStore(BlobReader):
    """A finished store; images are numbered in the order of their ids.

    Attributes:
        meta: The dict of ``meta.json``.
        feature_size: Width D of the features.
        dtype: numpy dtype of the features.
        description: Where the features come from.
        extraction: ``meta.json`` of the features' extraction, or None.

    Raises:
        UserError: a file is missing, truncated, or does not fit the others.
    """

    schema = REGIONS

    def __init__(self, folder, remedy):
        super().__init__(folder, remedy)
        self.meta = meta = self._read_meta()
        for name in ("feature_size", "images", "bytes"):
            if type(meta.get(name)) is not int or not 0 < meta[name] < 2**60:
                raise self._damaged(META_FILE, f"lacks or misstates {name}")
        if meta.get("dtype") not in DTYPES:
            raise self._damaged(META_FILE, "lacks or misstates dtype")
        self.feature_size, self._images, self._bytes = (meta[name] for name in ("feature_size", "images", "bytes"))
        self.dtype = np.dtype(meta["dtype"])
        self.description = str(meta.get("description", "region features"))
        self.extraction = meta.get("extraction")
        # Checked when the store is opened, so that damage is not reported as late as in the first batch.
        self._check()

    @cached_property
    def _index(self):
        path = self.folder / INDEX_FILE
        try:
            index = read_array(path, mapped=False)
        except DamagedArray as reason:
            raise self._damaged(path.name, reason) from None
        if index.dtype != INDEX_DTYPE or index.shape != (self._images,):
            raise self._damaged(path.name, f"holds {index.shape} entries of another form, expected {self._images}")
        return index

    def _check(self):
        index, path = self._index, self.folder / REGIONS.data
        ends = index["offset"] + self._sizes(index["count"].astype(np.int64))
        good = (
            len(index)
            and (np.diff(index["id"]) > 0).all()
            and (index["count"] > 0).all()
            and (index["offset"] >= 0).all()
        )
        if not good or ends.max() > self._bytes:
            raise self._damaged(INDEX_FILE, f"does not fit {REGIONS.data}")
        if not path.is_file() or path.stat().st_size < self._bytes:
            raise self._damaged(path.name, f"is missing or has fewer than {self._bytes:,} bytes")
        if changed := check_sums(self.folder, self.meta.get("sums")):
            raise self._damaged(changed.name, "has changed since it was written")

    def _sizes(self, counts):
        return -(-counts * self.feature_size * self.dtype.itemsize // BOX_BYTES) * BOX_BYTES + counts * BOX_BYTES

    @property
    def ids(self):
        """Image ids, ascending: int64 (M,)."""
        return np.ascontiguousarray(self._index["id"])

    def counts(self):
        """Number of regions of every image: int32 (M,)."""
        return self._index["count"]

    def load(self, row):
        """The `Regions` of image number ``row``; its arrays are read-only views of the file."""
        _, offset, count, height, width, _ = self._index[row].item()
        end = offset + count * self.feature_size * self.dtype.itemsize
        boxes = offset + self._sizes(count) - count * BOX_BYTES
        data = self._data
        features = data[offset:end].view(self.dtype).reshape(count, self.feature_size)
        return Regions(features, data[boxes : boxes + count * BOX_BYTES].view(np.float32).reshape(-1, 4), height, width)

    @cached_property
    def fingerprint(self):
        """Short hex string that changes with the ids, sizes and content of all images."""
        digest = hashlib.blake2b(f"{self.dtype} {self.feature_size}".encode(), digest_size=8)
        for field in ("id", "count", "crc"):
            digest.update(np.ascontiguousarray(self._index[field]))
        return digest.hexdigest()

    @property
    def identity(self):
        """As ``fingerprint``, which depends on the content alone already."""
        return self.fingerprint

    def is_intact(self, row):
        """Whether the bytes of image number ``row`` match their check sum."""
        _, offset, count, _, _, crc = self._index[row].item()
        return zlib.crc32(self._data[offset : offset + self._sizes(count)]) == crc

    def verify(self):
        """Check the bytes of every image; raises UserError that names the first damaged one."""
        sizes = self._sizes(self._index["count"].astype(np.int64))
        ids, begins, crcs = (self._index[name] for name in ("id", "offset", "crc"))
        self._check_blobs(ids, begins, begins + sizes, crcs, what="image", unit="image")
