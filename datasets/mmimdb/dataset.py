"""MM-IMDB: posters, 300-d plot vectors and genres of films, read from a prepared folder by memory map."""

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.storage.blobs import META_FILE, state_without_caches
from util.arrays import DamagedArray, MappedFile, check_sums, read_array
from util.cli import UserError, quoted
from util.files import read_json
from util.hashes import files_hash

SPLITS = ("train", "dev", "test")
OFFICIAL_COUNTS = {"train": 15552, "dev": 2608, "test": 7799}
IMAGE_SHAPE = (3, 256, 160)
TEXT_DIM = 300
NUM_GENRES = 23
SMALL_SIZE = 64

STORE_FORMAT = "mmimdb-store"
STORE_VERSION = 1
IMAGE_DTYPES = ("uint8", "int16", "float32")
STORE_PARTS = ("images", "image_rows", "texts", "labels", "ids")


def store_file(folder, split, part):
    """Path of one array of a prepared store, e.g. ``train_images.npy``."""
    return Path(folder) / f"{split}_{part}.npy"


def prepare_command(folder):
    """The command that makes the prepared store in ``folder``."""
    return f"python datasets/prepare_mmimdb.py --hdf5 multimodal_imdb.hdf5 --out {quoted(folder)}"


def open_mmimdb(datadir, split, small=False):
    """Open one split of MM-IMDB, an `MMIMDB` dataset; see `open_mmimdb_splits`."""
    return open_mmimdb_splits(datadir, [split], small)[split]


def open_mmimdb_splits(datadir, splits, small=False):
    """Open splits of MM-IMDB.

    Args:
        datadir: Folder of a store made by ``prepare_mmimdb.py``, or of the originals' tree with one file per array,
            ``{train,dev,test}/image_%06d.npy, text_%06d.npy, label_%06d.npy``.
        splits: Some of ``train``, ``dev`` and ``test``.
        small: Keep only the first 64 films of each.

    Returns:
        Split -> `MMIMDB` dataset.

    Raises:
        UserError: the split is unknown, or the data are missing, unfinished, damaged or empty.
    """
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"unknown MM-IMDB split {split!r}: choose one of {', '.join(SPLITS)}")
    folder = Path(datadir)
    if (folder / META_FILE).is_file():
        meta = _read_meta(folder)
        return {split: StoredMMIMDB(folder, split, small, meta) for split in splits}
    return {split: _open_tree(folder, split, small) for split in splits}


def _read_meta(folder):
    """The dict of a store's ``meta.json``."""
    meta = read_json(folder / META_FILE)
    if not isinstance(meta, dict) or (meta.get("format"), meta.get("version")) != (STORE_FORMAT, STORE_VERSION):
        raise UserError(
            f"{folder / META_FILE} is not a {STORE_FORMAT} of version {STORE_VERSION};"
            f" make the store with `{prepare_command(folder)}`"
        )
    return meta


def _open_tree(folder, split, small):
    if (folder / split).is_dir():
        return TreeMMIMDB(folder, split, small)
    inner = folder / "dataset"
    hint = f"; {inner} holds a prepared store: pass that folder" if (inner / META_FILE).is_file() else ""
    raise UserError(
        f"no MM-IMDB data in {folder}{hint}; expected {folder / META_FILE} with {split}_images.npy and the like"
        f" (a prepared store), or {folder}/{{train,dev,test}}/image_000000.npy, text_000000.npy, label_000000.npy, ...;"
        f" make the store with `{prepare_command(folder)}`, or try small data:"
        " `python datasets/make_demo.py mmimdb --source easy-vqa --out DIR` (then pass DIR/dataset)"
    )


class MMIMDB(Dataset):
    """One split of MM-IMDB as a map-style dataset; values are returned as they are stored, not normalised.

    Attributes:
        split: Name of the split.
        num_labels: Number of genres G.
        label_names: List of G names.
        image_shape: ``(3, H, W)``.
        ids: numpy array of str (N,), or None if the data have no ids.
        image_rows: numpy int64 (N,), number 0..D-1 of the distinct image of each film.
        fingerprint: Short hex string that changes with the content of the split.
        identity: Short hex string that changes with the content of the split, and is the same for a copy elsewhere.
        description: What the data are.
        synthetic: Whether they are synthetic.
        quick: Names of the inputs that are read faster than a data loader worker could send them.
    """

    ids = None
    quick = ("text",)
    description = "MM-IMDB in the originals' .npy tree"
    synthetic = False

    def __init__(self, folder, split, small):
        self.folder = Path(folder)
        self.split = split
        self.small = small

    def _keep(self, count, fingerprint):
        """Set the length and the fingerprint, which both depend on ``small``."""
        self._length = min(SMALL_SIZE, count) if self.small else count
        self.fingerprint = fingerprint
        if self._length < count:
            self.fingerprint = hashlib.blake2b(f"{fingerprint} {self._length}".encode(), digest_size=8).hexdigest()

    def _read(self, fields, rows):
        """dict field (``image``, ``text``, ``label``) -> its stored array for the films ``rows`` (int64 array)."""
        raise NotImplementedError

    def __len__(self):
        return self._length

    def read(self, indices, only=("image", "text"), without=(), epoch=0):
        """Read one batch, restricted to the inputs that are needed.

        Args:
            indices: Film numbers.
            only: Inputs to read.
            without: Inputs to leave out.
            epoch: Ignored, since there is no augmentation.

        Returns:
            dict of label float32 (B, G), index int64 (B,) and the wanted inputs: image (B, 3, H, W) in the stored dtype
            (uint8, int16 or float32, the smallest that represents the values of the file), text float32 (B, 300).

        Raises:
            UserError: a file is damaged.
            IndexError: an index is out of range.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self._length):
            raise IndexError(f"index out of range for {self._length} films")
        fields = [field for field in ("image", "text") if field in only and field not in without]
        batch = {"index": torch.from_numpy(rows)}
        for field, array in self._read([*fields, "label"], rows).items():
            batch[field] = torch.from_numpy(array if field == "image" else array.astype(np.float32))
        return batch

    def __getitems__(self, indices):
        """One batch with all inputs, for a loader with an identity ``collate_fn``."""
        return self.read(indices)

    def distinct(self, field):
        """Number the distinct inputs of ``field``: int64 (N, 1), since every film has one view."""
        rows = self.image_rows if field == "image" else np.arange(self._length, dtype=np.int64)
        return rows[:, None]

    def __getitem__(self, index):
        """One film: the dict of `read` without the batch axis."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getstate__(self):
        # Each worker opens the arrays itself, so that only a few hundred bytes are pickled.
        return state_without_caches(self)


class StoredMMIMDB(MMIMDB):
    """A split in the compact store that ``prepare_mmimdb.py`` writes; ``meta`` is the dict of its ``meta.json``."""

    def __init__(self, folder, split, small, meta):
        super().__init__(folder, split, small)
        self._take(meta)
        if not self._films:
            raise UserError(f"split {split} of {folder} has no films; {self._remedy()}")
        # All files are opened here, so that damage is not reported as late as in the first batch.
        _ = self.image_rows
        if changed := check_sums(self.folder, meta["splits"][split].get("sums")):
            raise UserError(f"{changed} has changed since it was written; {self._remedy()}")

    def _take(self, meta):
        """Check the facts about this split in meta.json, and set the attributes."""
        splits = meta.get("splits")
        counts = splits.get(self.split) if isinstance(splits, dict) else None
        counts, shape, names = (counts if isinstance(counts, dict) else {}), meta.get("image_shape"), "label_names"
        good = {
            f"splits: {self.split}": all(
                type(counts.get(name)) is int and counts[name] >= 0 for name in ("films", "images")
            ),
            "fingerprint": isinstance(counts.get("fingerprint"), str),
            "image_shape": isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape),
            "image_dtype": meta.get("image_dtype") in IMAGE_DTYPES,
            names: isinstance(meta.get(names), list) and all(isinstance(name, str) for name in meta[names]),
            "description": isinstance(meta.get("description"), str),
        }
        for name, fine in good.items():
            if not fine:
                raise UserError(f"{self.folder / META_FILE} lacks or misstates {name}; {self._remedy()}")
        self.image_shape, self._image_dtype = tuple(shape), meta["image_dtype"]
        self.label_names, self.num_labels = meta[names], len(meta[names])
        self.description, self.synthetic = meta["description"], bool(meta.get("synthetic"))
        self._films, self._distinct = counts["films"], counts["images"]
        self._keep(self._films, counts["fingerprint"])
        self.identity = self.fingerprint

    def _remedy(self):
        return f"redo the store with `{prepare_command(self.folder)} --overwrite`"

    @cached_property
    def _files(self):
        shapes = {
            "images": ((self._distinct, *self.image_shape), self._image_dtype),
            "image_rows": ((self._films,), "int32"),
            "texts": ((self._films, TEXT_DIM), "float32"),
            "labels": ((self._films, self.num_labels), "uint8"),
            "ids": ((self._films,), "U"),
        }
        paths, remedy = {part: store_file(self.folder, self.split, part) for part in STORE_PARTS}, self._remedy()
        files = {part: MappedFile(path, remedy) for part, path in paths.items()}
        arrays = {part: file.array for part, file in files.items()}
        for part, (shape, dtype) in shapes.items():
            array = arrays[part]
            if array.shape != shape or array.dtype.kind != np.dtype(dtype).kind:
                held = f"{array.dtype} {array.shape} where {META_FILE} states {dtype} {shape}"
                raise UserError(f"{paths[part]} holds {held}; {remedy}")
        return files

    @cached_property
    def ids(self):
        return np.array(self._files["ids"].array[: self._length])

    @cached_property
    def image_rows(self):
        rows = self._files["image_rows"].array
        if rows.min() < 0 or rows.max() >= self._distinct:
            path = store_file(self.folder, self.split, "image_rows")
            raise UserError(f"{path} points at images that do not exist; {self._remedy()}")
        # Renumbered, so that the numbers are 0..D-1 even if `small` leaves some images out.
        return np.unique(rows[: self._length], return_inverse=True)[1].astype(np.int64)

    def _read(self, fields, rows):
        arrays = {field: self._files[f"{field}s"].array for field in fields}
        images = self._files["image_rows"].array[rows] if "image" in arrays else None
        return {field: array[images if field == "image" else rows] for field, array in arrays.items()}


class TreeMMIMDB(MMIMDB):
    """A split in the originals' tree with one small file per film and array, as in ``<split>/image_%06d.npy``."""

    def __init__(self, folder, split, small=False):
        super().__init__(folder, split, small)
        self._keep(*self._scan())
        first = {kind: self._load(kind, 0) for kind in ("image", "text", "label")}
        if first["image"].ndim != 3 or first["image"].shape[0] != 3:
            raise UserError(f"{self._path('image', 0)} has shape {first['image'].shape}, expected (3, height, width)")
        if first["text"].shape != (TEXT_DIM,):
            raise UserError(f"{self._path('text', 0)} has shape {first['text'].shape}, expected ({TEXT_DIM},)")
        if first["label"].ndim != 1:
            raise UserError(f"{self._path('label', 0)} has shape {first['label'].shape}, expected (number of genres,)")
        self._shapes = {kind: array.shape for kind, array in first.items()}
        self.image_shape = first["image"].shape
        self.num_labels = len(first["label"])
        self.label_names = [f"genre {number}" for number in range(self.num_labels)]

    def _path(self, kind, number):
        return self.folder / self.split / f"{kind}_{number:06d}.npy"

    def _scan(self):
        """(number of films on disk, fingerprint from the names, sizes and modification times of the files)."""
        numbers = {"image": set(), "text": set(), "label": set()}
        seen = []
        for entry in os.scandir(self.folder / self.split):
            match = re.fullmatch(r"(image|text|label)_(\d{6,})\.npy", entry.name)
            if match:
                numbers[match[1]].add(int(match[2]))
                status = entry.stat()
                seen.append(f"{entry.name} {status.st_size} {status.st_mtime_ns}")
        count = 1 + max((max(present) for present in numbers.values() if present), default=-1)
        if not count:
            raise UserError(
                f"{self.folder / self.split} has no image_000000.npy;"
                f" make the data with `{prepare_command(self.folder)}`"
            )
        for kind, present in numbers.items():
            if len(present) != count:
                first = next(number for number in range(count) if number not in present)
                raise UserError(
                    f"{self._path(kind, first)} is missing (files up to number {count - 1:06d} exist): copy the folder"
                    f" again, or make a store in a new folder with `{prepare_command('NEW_DIR')}`"
                )
        return count, hashlib.blake2b("\n".join(sorted(seen)).encode(), digest_size=8).hexdigest()

    @cached_property
    def identity(self):
        """See the class docstring."""
        kinds = ("image", "text", "label")
        paths = [self._path(kind, number) for kind in kinds for number in range(len(self))]
        return files_hash([(path.name, path) for path in paths])

    @cached_property
    def image_rows(self):
        return np.arange(len(self), dtype=np.int64)

    def _load(self, kind, number):
        path = self._path(kind, number)
        try:
            return read_array(path, mapped=False)
        except DamagedArray as reason:
            raise UserError(f"{path} is not a readable .npy array: it {reason}; copy it again") from None

    def _read(self, fields, rows):
        return {kind: self._stacked(kind, rows) for kind in fields}

    def _stacked(self, kind, rows):
        arrays = [self._load(kind, row) for row in rows]
        for row, array in zip(rows, arrays, strict=True):
            if array.shape != self._shapes[kind]:
                raise UserError(f"{self._path(kind, row)} has shape {array.shape}, others have {self._shapes[kind]}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise UserError(f"{self._path(kind, row)} holds NaN or infinite values; make it again or leave it out")
        return np.stack(arrays)
