"""The official ``multimodal_imdb.hdf5``: reading it with checks, and finding out which film belongs to which split."""

import json
from pathlib import Path

import h5py
import numpy as np

from datasets.mmimdb.dataset import IMAGE_SHAPE, NUM_GENRES, OFFICIAL_COUNTS, SPLITS, TEXT_DIM
from util.cli import UserError
from util.files import read_json
from util.progress import progress

FIELDS = {"imdb_ids": 1, "images": 4, "features": 2, "genres": 2}
ATTRIBUTES = ("split", "description", "synthetic")
CHUNK_BYTES = 32 * 2**20
MAX_STORAGE_CHUNK_BYTES = 256 * 2**20
MIN_SIDE = 32
SPLIT_NAMES = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
FILES_BESIDE = ("split.json", "mmimdb_split.json")
HOW_TO_GIVE = 'give one with --split split.json: {"train": [ids], "dev": [ids], "test": [ids]}'


class OfficialFile:
    """The fields of one file; use it as a context manager.

    Attributes:
        path: Path of the file.
        count: Number of films N.
        ids: numpy array of str (N,).
        image_shape: ``(3, H, W)``.
        num_labels: Number of genres G.
        label_names: List of G names.
        attributes: dict name -> value as h5py returns it, of those `ATTRIBUTES` that the root of the file has.

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
        except Exception as error:  # h5py reports damage with almost any exception
            self._file.close()
            raise self._damage(error) from None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()

    def _open(self):
        if not self.path.is_file():
            raise UserError(
                f"{self.path} does not exist; get multimodal_imdb.hdf5 of MM-IMDB and give its path with --hdf5,"
                " or make small data with `python datasets/make_demo.py mmimdb --source easy-vqa --out DIR`"
            )
        try:
            # Without locking, because the file is only read, and not every file system supports locks.
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
        if min(images[2:]) < MIN_SIDE:
            least = f"{MIN_SIDE}x{MIN_SIDE}"
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
        # In the authors' file the names are an attribute of the field; our demo files also have them at the root.
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
        """Read the array that an h5py reference of this file points to."""
        try:
            return self._file[reference][...]
        except Exception as error:
            raise self._damage(error) from None

    def read_texts(self):
        """Read the text vectors: (float32 (N, 300), bool mask (N,) of those with NaN or infinite values)."""
        with np.errstate(over="ignore"):
            texts = self._read("features").astype(np.float32)
        return texts, ~np.isfinite(texts).all(axis=1)

    def read_labels(self):
        """Read the genres: (uint8 (N, G), bool mask (N,) of films with values other than 0 and 1)."""
        labels = self._read("genres")
        bad = ~((labels == 0) | (labels == 1)).all(axis=1)
        return (labels == 1).astype(np.uint8), bad

    def read_image(self, row):
        """Read the poster (3, H, W) of one film, as it is in the file."""
        return self._read("images", row)

    def image_chunks(self):
        """Iterate over the images in file order, in bounded memory, with a progress bar.

        Yields:
            (first row, images (n, 3, H, W), bool mask (n,) of those with NaN or infinite values).
        """
        step = self._rows_per_read()
        for start in progress(range(0, self.count, step), "images", unit="chunk"):
            images = self._read("images", slice(start, start + step))
            bad = np.zeros(len(images), dtype=bool)
            if images.dtype.kind == "f":
                # Converted before the check, because values beyond float32 would be infinite for the network.
                with np.errstate(over="ignore"):
                    images = images.astype(np.float32, copy=False)
                bad = ~np.isfinite(images).all(axis=(1, 2, 3))
            yield start, images, bad

    def _rows_per_read(self):
        images = self._file["images"]
        row_bytes = int(np.prod(self.image_shape)) * images.dtype.itemsize
        rows = max(1, CHUNK_BYTES // row_bytes)
        stored = images.chunks[0] if images.chunks else 1
        # Only complete storage chunks are read; otherwise each of them would be decompressed several times.
        if stored * row_bytes <= MAX_STORAGE_CHUNK_BYTES:
            rows = max(stored, rows // stored * stored)
        return rows


def resolve_split(source, split_file=None):
    """Find the split: the given file, the split attribute, a JSON file next to the data, or the official order.

    Args:
        source: An `OfficialFile`.
        split_file: JSON file with lists of ids; a film in neither train nor dev counts as test. None to look for one.

    Returns:
        (dict split -> int64 array of film rows in order, str that says where the split came from).

    Raises:
        UserError: there is no usable split, or 25,959 films are not split 15,552 / 2,608 / 7,799 although no file was
            given explicitly.
    """
    beside = next((path for path in (source.path.parent / name for name in FILES_BESIDE) if path.is_file()), None)
    if split_file is not None:
        order, origin = split_from_json(split_file, source.ids), str(split_file)
    elif "split" in source.attributes:
        order, origin = split_from_attribute(source), f"the split attribute of {source.path.name}"
    elif beside is not None:
        order, origin = split_from_json(beside, source.ids), str(beside)
    elif source.count == sum(OFFICIAL_COUNTS.values()):
        bounds = np.cumsum([0, *OFFICIAL_COUNTS.values()])
        order = {name: np.arange(bounds[number], bounds[number + 1]) for number, name in enumerate(SPLITS)}
        origin = "the official order of the films"
    else:
        raise UserError(f"{source.path} has {source.count:,} films and no split attribute; {HOW_TO_GIVE}")
    _check_counts(source, order, origin, explicit=split_file is not None)
    return order, origin


def _check_counts(source, order, origin, explicit):
    counts = {name: len(order[name]) for name in SPLITS}
    for name, count in counts.items():
        if not count:
            raise UserError(f"the {name} split is empty (split from {origin}); {HOW_TO_GIVE}")
    official = sum(OFFICIAL_COUNTS.values())
    if source.count != official:
        print(f"note: {source.count:,} films, not the official {official:,} films")
    elif counts != OFFICIAL_COUNTS:
        actual, expected = (" / ".join(f"{value:,}" for value in each.values()) for each in (counts, OFFICIAL_COUNTS))
        text = f"the split from {origin} has {actual} films (train / dev / test), the official one {expected}"
        if not explicit:
            raise UserError(f"{text}; if you want this, {HOW_TO_GIVE}")
        print(f"note: {text}")


def split_from_json(path, ids):
    """Rows of each split by the id lists of a JSON file, in the order of the lists; test ends with the unlisted films.

    Args:
        path: JSON file of lists of ids.
        ids: str array (N,), the ids of all films.

    Returns:
        dict split -> int64 array of film rows.

    Raises:
        UserError: the file has another form, or lists a film twice.
    """
    lists = _read_lists(path)
    row_of = {film: row for row, film in enumerate(ids.tolist())}
    home, unknown = {}, []
    rows = {name: [] for name in SPLITS}
    for name in SPLITS:
        for film in lists[name]:
            if film in home:
                where = f"twice in {name}" if home[film] == name else f"both in {home[film]} and in {name}"
                raise UserError(f"{path}: film {film!r} is {where}; every film belongs to one split, once")
            home[film] = name
            if film in row_of:
                rows[name].append(row_of[film])
            else:
                unknown.append(film)
    rows["test"].extend(row for film, row in row_of.items() if film not in home)
    if unknown:
        print(f"note: {len(unknown):,} ids of {path} are not in the data and are ignored, first {unknown[0]!r}")
    return {name: np.array(rows[name], dtype=np.int64) for name in SPLITS}


def _read_lists(path):
    content = read_json(path)
    lists = {name: [] for name in SPLITS}
    seen = set()
    for key, value in content.items() if isinstance(content, dict) else ():
        name = SPLIT_NAMES.get(key)
        if name is not None:
            if name in seen or not isinstance(value, list) or not all(isinstance(film, str) for film in value):
                raise UserError(f"{path}: {key!r} is not one list of id strings; expected lists train, dev, test")
            seen.add(name)
            lists[name] = value
    for name in ("train", "dev"):
        if name not in seen:
            raise UserError(f'{path} has no list {name!r}; expected {{"train": [ids], "dev": [ids], "test": [ids]}}')
    return lists


def split_from_attribute(source):
    """Rows of each split by the attribute ``split``, which has one record per split and field (Fuel library).

    Args:
        source: An `OfficialFile`.

    Returns:
        dict split -> int64 array of film rows.

    Raises:
        UserError: the attribute has another form, names rows that do not exist, or puts a film into two splits.
    """
    records = source.attributes["split"]
    needed = {"split", "source", "start", "stop", "indices", "available"}
    if getattr(records, "dtype", None) is None or not needed <= set(records.dtype.names or ()):
        raise UserError(f"{source.path}: the attribute split is not in Fuel's form; {HOW_TO_GIVE}")
    chosen = {}
    for record in np.atleast_1d(records):
        name = SPLIT_NAMES.get(_text(record["split"]))
        if name is not None and record["available"] and (name not in chosen or _text(record["source"]) == "features"):
            chosen[name] = record
    order = {name: np.array([], dtype=np.int64) for name in SPLITS}
    order |= {name: _rows_of_record(source, record) for name, record in chosen.items()}
    together = np.concatenate([order[name] for name in SPLITS])
    if together.size and (together.min() < 0 or together.max() >= source.count):
        raise UserError(f"{source.path}: the attribute split names rows outside 0..{source.count - 1}; {HOW_TO_GIVE}")
    if len(np.unique(together)) != len(together):
        raise UserError(f"{source.path}: the attribute split puts films into two splits; {HOW_TO_GIVE}")
    if len(together) < source.count:
        print(f"note: {source.count - len(together):,} films are in no split of the attribute and are left out")
    return order


def _text(value):
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _rows_of_record(source, record):
    if isinstance(record["indices"], h5py.Reference) and record["indices"]:
        rows = source.resolve(record["indices"])
        if getattr(rows, "dtype", np.dtype("O")).kind not in "iu" or rows.ndim != 1:
            raise UserError(f"{source.path}: the attribute split does not point at a list of rows; {HOW_TO_GIVE}")
        return rows.astype(np.int64)
    start, stop = int(record["start"]), int(record["stop"])
    if min(start, stop) < 0 or max(start, stop) > source.count:
        raise UserError(f"{source.path}: the attribute split names rows outside 0..{source.count - 1}; {HOW_TO_GIVE}")
    return np.arange(start, stop, dtype=np.int64)
