"""Reads and checks the official ``multimodal_imdb.hdf5``, one clear line for each thing that can be wrong with it."""

import json
from pathlib import Path

import h5py
import numpy as np

from datasets.mmimdb import IMAGE_SHAPE, NUM_GENRES, TEXT_DIM
from util.cli import UserError
from util.progress import progress

FIELDS = {"imdb_ids": 1, "images": 4, "features": 2, "genres": 2}
ATTRIBUTES = ("split", "description", "synthetic")
CHUNK_BYTES = 32 * 2**20
MAX_STORAGE_CHUNK_BYTES = 256 * 2**20
SMALLEST_SIDE = 32


class OfficialFile:
    """The fields of one file; use it as a context manager.

    Attributes:
        path: Path of the file.
        count: Number of films N.
        ids: numpy array of str (N,).
        image_shape: ``(3, H, W)``.
        num_labels: Number of genres G.
        label_names: List of G names.
        attributes: Those of `ATTRIBUTES` that the root has: dict name -> value as h5py gives it.

    Raises:
        UserError: the file is missing or damaged, or a field is missing or has the wrong form.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._file = self._open()
        try:
            self._check_fields()
            self.attributes = {name: self._file.attrs[name] for name in ATTRIBUTES if name in self._file.attrs}
            self.count = len(self._file["imdb_ids"])
            self.image_shape = self._file["images"].shape[1:]
            self.num_labels = self._file["genres"].shape[1]
            self.ids = self._read_ids()
            self.label_names = self._read_label_names()
        except UserError:
            self._file.close()
            raise
        except Exception as error:  # HDF5 reports damage in almost any way
            self._file.close()
            raise self._damage(error) from None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()

    def _open(self):
        if not self.path.is_file():
            raise UserError(
                f"{self.path} does not exist; get multimodal_imdb.hdf5 of MM-IMDB and give its place with --hdf5,"
                " or make small data with `python datasets/make_demo.py mmimdb --source easy-vqa --out DIR`"
            )
        try:
            # Nobody writes it, and not every file system has locks.
            return h5py.File(self.path, "r", locking=False)
        except Exception as error:
            raise UserError(
                f"{self.path} is not a readable HDF5 file, or is cut short ({self.path.stat().st_size:,} bytes):"
                f" fetch it again ({' '.join(str(error).split())})"
            ) from None

    def _fault(self, text):
        return UserError(f"{self.path}: {text}")

    def _damage(self, error):
        return self._fault(f"the file is damaged: fetch it again ({' '.join(str(error).split())})")

    def _check_fields(self):
        for name, ndim in FIELDS.items():
            field = self._file.get(name)
            if not isinstance(field, h5py.Dataset):
                held = ", ".join(sorted(self._file)) or "nothing"
                raise self._fault(f"field {name} is missing; the file holds {held}")
            if field.ndim != ndim:
                raise self._fault(f"{name} has {field.ndim} axes {field.shape}, expected {ndim}")
            kinds = "SOUiu" if name == "imdb_ids" else "biuf" if name == "genres" else "iuf"
            if field.dtype.kind not in kinds:
                raise self._fault(f"{name} has dtype {field.dtype}, expected {'text' if ndim == 1 else 'numbers'}")
        lengths = {name: len(self._file[name]) for name in FIELDS}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise self._fault(f"the fields have different lengths: {listed}; fetch or build the file again")
        self._check_shapes()

    def _check_shapes(self):
        images, features, genres = (self._file[name].shape for name in ("images", "features", "genres"))
        if images[1] != 3:
            last = "channels last; transpose them to" if images[3] == 3 else "expected"
            raise self._fault(f"images have shape {images}: {last} (films, 3, height, width)")
        if min(images[2:]) < SMALLEST_SIDE:
            least = f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
            raise self._fault(f"images are {images[2]}x{images[3]}; VGG-19 needs at least {least}")
        if features[1] != TEXT_DIM:
            raise self._fault(f"features are {features[1]} wide, expected {TEXT_DIM}")
        if not genres[1]:
            raise self._fault("genres have no columns")
        if images[1:] != IMAGE_SHAPE:
            print(f"note: posters are {images[2]}x{images[3]} instead of the official 256x160")
        if genres[1] != NUM_GENRES:
            print(f"note: {genres[1]} genres instead of the official {NUM_GENRES}")

    def _read(self, name, rows=slice(None)):
        try:
            return self._file[name][rows]
        except MemoryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise self._fault(f"cannot read {name}, the file is damaged: fetch it again ({reason})") from None

    def _read_ids(self):
        raw = self._read("imdb_ids")
        try:
            ids = np.array([value.decode() if isinstance(value, bytes) else str(value) for value in raw], dtype=str)
        except UnicodeDecodeError:
            raise self._fault("imdb_ids are not UTF-8 text") from None
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) != len(ids):
            twice = unique[counts > 1]
            raise self._fault(f"{len(twice)} imdb_ids occur more than once, first {twice[0]!r}")
        return ids

    def _read_label_names(self):
        # The authors put the names at the field, our demo files at the root as well.
        text = self._file["genres"].attrs.get("target_names", self._file.attrs.get("genre_names"))
        if text is None:
            return [f"genre {number}" for number in range(self.num_labels)]
        try:
            names = json.loads(text)
        except (TypeError, ValueError):
            names = None
        if not isinstance(names, list) or len(names) != self.num_labels:
            raise self._fault(f"the attribute with the genre names is not a JSON list of {self.num_labels} names")
        return [str(name) for name in names]

    def resolve(self, reference):
        """The array that an h5py reference of this file points to."""
        try:
            return self._file[reference][...]
        except Exception as error:
            raise self._damage(error) from None

    def read_texts(self):
        """Text vectors float32 (N, 300) and the bool mask (N,) of those with NaN or infinite values."""
        with np.errstate(over="ignore"):
            texts = self._read("features").astype(np.float32)
        return texts, ~np.isfinite(texts).all(axis=1)

    def read_labels(self):
        """Genres uint8 (N, G) and the bool mask (N,) of films with values other than 0 and 1."""
        labels = self._read("genres")
        bad = ~((labels == 0) | (labels == 1)).all(axis=1)
        return (labels == 1).astype(np.uint8), bad

    def image_chunks(self):
        """Go through the images in file order, in bounded memory, with a progress bar.

        Yields:
            First row, images (n, 3, H, W) and the bool mask (n,) of those with NaN or infinite values.
        """
        step = self._rows_per_read()
        for start in progress(range(0, self.count, step), "images", unit="chunk"):
            images = self._read("images", slice(start, start + step))
            bad = np.zeros(len(images), dtype=bool)
            if images.dtype.kind == "f":
                # Narrowed first: what float32 cannot hold would be infinite for the network.
                with np.errstate(over="ignore"):
                    images = images.astype(np.float32, copy=False)
                bad = ~np.isfinite(images).all(axis=(1, 2, 3))
            yield start, images, bad

    def _rows_per_read(self):
        images = self._file["images"]
        row_bytes = int(np.prod(self.image_shape)) * images.dtype.itemsize
        rows = max(1, CHUNK_BYTES // row_bytes)
        stored = images.chunks[0] if images.chunks else 1
        # Whole storage chunks, or each of them would be unpacked several times.
        if stored * row_bytes <= MAX_STORAGE_CHUNK_BYTES:
            rows = max(stored, rows // stored * stored)
        return rows
