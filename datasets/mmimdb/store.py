"""Write the compact MM-IMDB store, which replaces an older one only when it is complete."""

import contextlib
import hashlib
import os
import shutil
import struct
from pathlib import Path

import numpy as np

from datasets.mmimdb.dataset import IMAGE_DTYPES, META_FILE, SPLITS, STORE_FORMAT, STORE_VERSION, store_file
from util.arrays import sums_of
from util.cli import UserError
from util.files import write_fault, write_json
from util.locks import locked

HEADER_BYTES = 128
LOCK_FILE = ".lock"


@contextlib.contextmanager
def staging_folder(out):
    """Context manager of an empty folder on the file system of ``out``, whose files are moved into ``out`` at the end.

    They are moved only if ``meta.json`` is among them. Files that a killed run left in the folder are moved into place
    if they are complete, and deleted otherwise.

    Raises:
        UserError: ``out`` cannot be written, or another run is writing it.
    """
    out = Path(out).resolve()
    staging = _staging(out)
    busy = f"another run is preparing {out} (in {staging}): wait for it or end it first"
    try:
        _check_writable(out)
        staging.mkdir(parents=True, exist_ok=True)
        with locked(staging / LOCK_FILE, busy=busy):
            try:
                _publish(staging, out)
                for leftover in _contents(staging):
                    leftover.unlink()
                yield staging
                _publish(staging, out)
            finally:
                # A complete store that could not be moved is kept for the next run. (Windows keeps the locked file.)
                if not (staging / META_FILE).is_file():
                    shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {write_fault(error, 'choose another --out')}") from error


def _staging(out):
    """Path of the folder in which the store of ``out`` is prepared, on the same file system, so that renaming works.

    It is inside ``out``, because the user may not be allowed to write elsewhere, or next to ``out`` if that does not
    exist yet.
    """
    beside = out.parent / f".{out.name}.preparing"
    if not out.is_dir():
        return beside
    # A run that was killed while it moved its files left them in the folder next to ``out``.
    left = beside.is_dir() and beside.stat().st_dev == out.stat().st_dev
    return beside if left else out / ".preparing"


def _check_writable(out):
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder")
    if out.exists() and not os.access(out, os.W_OK):
        raise UserError(f"--out {out} is a folder that you cannot write; choose another one")


def _contents(staging):
    return [path for path in staging.iterdir() if not path.name.startswith(LOCK_FILE)]


def _publish(staging, out):
    """Move a complete store into ``out``, ``meta.json`` last; after a kill in between, the next run moves the rest."""
    if not (staging / META_FILE).is_file():
        return
    out.mkdir(parents=True, exist_ok=True)
    # Without meta.json no reader can mistake a mixture of old and new arrays for a store.
    (out / META_FILE).unlink(missing_ok=True)
    for path in sorted(_contents(staging), key=lambda path: path.name == META_FILE):
        os.replace(path, out / path.name)


def smallest_dtype(images):
    """The first of `IMAGE_DTYPES` that represents ``images`` (finite numbers) without loss, else float32."""
    if images.dtype == np.uint8 or not images.size:
        return "uint8"
    if images.dtype.kind == "f" and (images != np.trunc(images)).any():
        return "float32"
    low, high = images.min(), images.max()
    for name in IMAGE_DTYPES[:2]:
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return name
    return "float32"


class StoreWriter:
    """Writes the images of a store in one pass over the source, then all other arrays.

    Args:
        folder: Empty folder to write into.
        order: dict split -> int64 array of source rows, in the order of the split.
        count: Number of films in the source.
        image_shape: ``(3, H, W)``.
    """

    def __init__(self, folder, order, count, image_shape):
        self.folder = Path(folder)
        self.order = order
        self.image_shape = tuple(image_shape)
        self.image_dtype = IMAGE_DTYPES[0]
        self._split_of = np.full(count, -1, dtype=np.int8)
        for number, split in enumerate(SPLITS):
            self._split_of[order[split]] = number
        self._image_rows = np.full(count, -1, dtype=np.int32)
        self._digests = np.zeros((count, 16), dtype=np.uint8)
        self._known = {split: {} for split in SPLITS}
        for split in SPLITS:
            store_file(self.folder, split, "images").write_bytes(bytes(HEADER_BYTES))

    def add_images(self, start, images, wanted):
        """Add the images (n, 3, H, W) of the source rows from ``start`` on for which ``wanted`` (n,) is true."""
        wanted = wanted & (self._split_of[start : start + len(images)] >= 0)
        dtype = smallest_dtype(images[wanted])
        if IMAGE_DTYPES.index(dtype) > IMAGE_DTYPES.index(self.image_dtype):
            self._widen(dtype)
        fresh = {split: [] for split in SPLITS}
        for position in np.flatnonzero(wanted):
            row, split = start + position, SPLITS[self._split_of[start + position]]
            digest = hashlib.blake2b(np.ascontiguousarray(images[position]), digest_size=16).digest()
            known = self._known[split]
            if digest not in known:
                known[digest] = len(known)
                fresh[split].append(position)
            self._digests[row] = np.frombuffer(digest, dtype=np.uint8)
            self._image_rows[row] = known[digest]
        for split, positions in fresh.items():
            if positions:
                with open(store_file(self.folder, split, "images"), "ab") as file:
                    file.write(np.ascontiguousarray(images[positions], dtype=self.image_dtype))

    def _widen(self, dtype):
        """Rewrite the images written so far as ``dtype``; if this is needed at all, it is early, so it costs little."""
        for split in SPLITS:
            path, count = store_file(self.folder, split, "images"), len(self._known[split])
            wide = path.with_suffix(".wide")
            with open(path, "rb") as old, open(wide, "wb") as new:
                new.write(old.read(HEADER_BYTES))
                one = int(np.prod(self.image_shape)) * np.dtype(self.image_dtype).itemsize
                for _ in range(count):
                    new.write(np.frombuffer(old.read(one), dtype=self.image_dtype).astype(dtype))
            os.replace(wide, path)
        self.image_dtype = dtype

    def finish(self, texts, labels, ids, meta):
        """Write the texts, labels and ids of all kept films and, last, ``meta.json``.

        Args:
            texts: float (N, 300) of all films of the source.
            labels: (N, G) of 0 and 1.
            ids: str (N,).
            meta: dict of further facts for ``meta.json``.

        Returns:
            dict split -> dict with ``films``, ``images`` (number of distinct ones), ``fingerprint`` and ``sums``.
        """
        splits = {}
        for split in SPLITS:
            rows = self.order[split][self._image_rows[self.order[split]] >= 0]
            arrays = {
                "image_rows": self._image_rows[rows],
                "texts": np.ascontiguousarray(texts[rows], dtype=np.float32),
                "labels": np.ascontiguousarray(labels[rows], dtype=np.uint8),
            }
            fingerprint = hashlib.blake2b(repr((self.image_shape, self.image_dtype)).encode(), digest_size=8)
            for array in (self._digests[rows], arrays["texts"], arrays["labels"]):
                fingerprint.update(array)
            for part, array in (*arrays.items(), ("ids", ids[rows])):
                np.save(store_file(self.folder, split, part), array)
            self._write_header(split)
            small = [store_file(self.folder, split, part).name for part in (*arrays, "ids")]
            splits[split] = {
                "films": len(rows),
                "images": len(self._known[split]),
                "fingerprint": fingerprint.hexdigest(),
                "sums": sums_of(self.folder, small),
            }
        head = {"format": STORE_FORMAT, "version": STORE_VERSION}
        images = {"image_shape": list(self.image_shape), "image_dtype": self.image_dtype}
        write_json(self.folder / META_FILE, head | meta | images | {"splits": splits})
        return splits

    def _write_header(self, split):
        """Fill the gap at the start of the images with the header of the .npy format, version 1.0."""
        shape = (len(self._known[split]), *self.image_shape)
        header = {"descr": np.dtype(self.image_dtype).str, "fortran_order": False, "shape": shape}
        magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER_BYTES - 10)
        with open(store_file(self.folder, split, "images"), "r+b") as file:
            file.write(magic + repr(header).encode().ljust(HEADER_BYTES - 11) + b"\n")
