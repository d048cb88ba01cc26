"""Write the samples of a prepared folder one by one, in constant memory apart from a few numbers per sample.

<split>/label.npy               int64 (N,), uint8 (N, K) or float32 (N,)
<split>/id.bin, id.ends.npy     the samples' ids, in the form of a text modality
<split>/<modality>.missing.npy  bool (N,)
<split>/<modality>.npy          vector: float32 (N, d); picture, audio: int64 (N,), rows of media/<modality>/index.npy
<split>/<modality>.<k>.npy      layer k: float32 (N, ...)
<split>/<modality>.bin          text: UTF-8; sequence: float32 (steps of all samples, d)
<split>/<modality>.ends.npy     int64 (N,): where each sample ends in <modality>.bin, in bytes or steps
own.json                        the manifest, written last
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.own.manifest import ARRAY_KINDS, FORMAT, MANIFEST_FILE, MEDIA_KINDS, VERSION, OwnLabel
from datasets.storage.blobs import save_array
from util.arrays import NpyWriter, sums_of
from util.cli import UserError
from util.files import write_fault, write_json

# Number of rows that are written together.
ROWS = 256


class _Rows:
    """Column of float32 arrays of one shape."""

    def __init__(self, stem, count, shape):
        self._file = NpyWriter(f"{stem}.npy", (count, *shape))
        self._file.__enter__()
        self._empty, self._rows, self._start = np.zeros(shape, np.float32), [], 0
        self.names = [f"{stem.name}.npy"]

    def add(self, value):
        self._rows.append(self._empty if value is None else np.asarray(value, np.float32))
        if len(self._rows) == ROWS:
            self._write()

    def _write(self):
        if self._rows:
            self._file[self._start : self._start + len(self._rows)] = np.stack(self._rows)
            self._start, self._rows = self._start + len(self._rows), []

    def close(self):
        self._write()
        self._file.__exit__()


class _Layers:
    """Column of several arrays per sample."""

    def __init__(self, stem, count, shapes):
        self._layers = [_Rows(stem.with_name(f"{stem.name}.{k}"), count, shape) for k, shape in enumerate(shapes)]
        self.names = [name for layer in self._layers for name in layer.names]

    def add(self, value):
        for k, layer in enumerate(self._layers):
            layer.add(None if value is None else value[k])

    def close(self):
        for layer in self._layers:
            layer.close()


class _Pieces:
    """Column of pieces of different lengths, one after another; ``encode`` converts a value to (bytes, length)."""

    def __init__(self, stem, count, encode):
        self._stem, self._encode = stem, encode
        self._file, self._ends = open(f"{stem}.bin", "wb"), np.zeros(count, np.int64)  # noqa: SIM115
        self._row, self._end = 0, 0
        self.names = [f"{stem.name}.bin", f"{stem.name}.ends.npy"]

    def add(self, value):
        if value is not None:
            piece, length = self._encode(value)
            self._file.write(piece)
            self._end += length
        self._ends[self._row] = self._end
        self._row += 1

    def close(self):
        self._file.close()
        save_array(f"{self._stem}.ends.npy", self._ends)


class _Numbers:
    """Column of one number, or one row of numbers, per sample."""

    def __init__(self, stem, count, dtype, shape=(), empty=-1):
        self._stem, self._values, self._row = stem, np.full((count, *shape), empty, dtype), 0
        self.names = [f"{stem.name}.npy"]

    def add(self, value):
        if value is not None:
            self._values[self._row] = value
        self._row += 1

    def close(self):
        save_array(f"{self._stem}.npy", self._values)


def encode_text(text: str) -> tuple[bytes, int]:
    """(UTF-8 bytes of a text, their number); half a surrogate pair, which JSON can contain, becomes a question mark."""
    data = text.encode("utf-8", "replace")
    return data, len(data)


def _encode_steps(value):
    array = np.ascontiguousarray(value, np.float32)
    return array.tobytes(), len(array)


def _label_column(stem, count, label):
    if label.kind == "class":
        return _Numbers(stem, count, np.int64)
    if label.kind == "classes":
        return _Numbers(stem, count, np.uint8, (len(label.classes),), 0)
    return _Numbers(stem, count, np.float32, empty=0)


def _column(stem, count, kind, size):
    if kind == "vector":
        return _Rows(stem, count, (size,))
    if kind == "layers":
        return _Layers(stem, count, size)
    if kind in MEDIA_KINDS:
        return _Numbers(stem, count, np.int64)
    return _Pieces(stem, count, encode_text if kind == "text" else _encode_steps)


class SplitWriter:
    """Writes the samples of one split; a context manager.

    Args:
        folder: The prepared folder.
        split: Name of the split.
        count: Number of samples that will be added.
        label: `OwnLabel`.
        modalities: dict name -> (kind, size), as in `OwnModality`.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path | str, split: str, count: int, label: OwnLabel, modalities: Mapping[str, tuple[str, Any]]
    ) -> None:
        self.folder, self.split, self.count = Path(folder) / split, split, count
        self._label, self._modalities = label, dict(modalities)
        self.missing = dict.fromkeys(modalities, 0)
        self._added = 0

    def __enter__(self) -> SplitWriter:
        with self._faults():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._ids = _Pieces(self.folder / "id", self.count, encode_text)
            self._labels = _label_column(self.folder / "label", self.count, self._label)
            self._columns = {
                name: _column(self.folder / name, self.count, kind, size)
                for name, (kind, size) in self._modalities.items()
            }
            self._absent = {
                name: _Numbers(self.folder / f"{name}.missing", self.count, np.bool_, empty=False)
                for name in self._modalities
            }
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._faults():
            for column in self._every_column():
                column.close()
        if kind is None and self._added != self.count:
            raise ValueError(f"{self._added} samples of {self.split} were added, not {self.count}")

    def _every_column(self):
        return [self._ids, self._labels, *self._columns.values(), *self._absent.values()]

    @contextlib.contextmanager
    def _faults(self):
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {write_fault(error, 'choose another --out')}") from error

    def add(self, sample_id: str, label: Any, values: Mapping[str, Any]) -> None:
        """Append a sample.

        Args:
            sample_id: Id of the sample.
            label: Class number, 0 or 1 for every class, or number.
            values: dict modality -> value: text (str); float32 (d,), (steps, d) or a list of arrays; row in the media
                index; None if it is missing.
        """
        with self._faults():
            self._ids.add(sample_id)
            self._labels.add(label)
            for name, column in self._columns.items():
                value = values[name]
                column.add(value)
                self._absent[name].add(value is None)
                self.missing[name] += value is None
        self._added += 1

    @property
    def files(self) -> list[str]:
        """Names of the files, relative to the prepared folder."""
        return [f"{self.split}/{name}" for column in self._every_column() for name in column.names]


def write_samples(
    folder: Path | str,
    splits: Mapping[str, Sequence[tuple[str, Any, Mapping[str, Any]]]],
    label: OwnLabel,
    modalities: Mapping[str, tuple[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write a complete prepared folder from samples in memory, whose inputs are text, vectors, sequences or layers.

    Args:
        folder: The folder.
        splits: dict split -> tuples (id, label, values), see `SplitWriter.add`.
        label: `OwnLabel`.
        modalities: dict name -> (kind, size), as in `OwnModality`.
        facts: ``name``, ``description``, ``synthetic``, ``license`` and ``citation`` of the data.
    """
    writers = []
    for split, samples in splits.items():
        with SplitWriter(folder, split, len(samples), label, modalities) as writer:
            for sample in samples:
                writer.add(*sample)
        writers.append(writer)
    write_manifest(folder, writers, label, modalities, facts)


def write_manifest(
    folder: Path | str,
    writers: Sequence[SplitWriter],
    label: OwnLabel,
    modalities: Mapping[str, tuple[str, Any]],
    facts: Mapping[str, Any],
    media: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write ``own.json``, the last file of a prepared folder.

    Args:
        folder: The folder.
        writers: One `SplitWriter` per split, closed.
        label: `OwnLabel`.
        modalities: dict name -> (kind, size), as in `OwnModality`.
        facts: The other parts of the manifest, and anything else to record.
        media: dict modality -> hash of its stored pictures or recordings.

    Returns:
        The content of the file.
    """
    made = {
        name: {"kind": kind, "size": size, "missing": {writer.split: writer.missing[name] for writer in writers}}
        for name, (kind, size) in modalities.items()
    }
    content = {
        "format": FORMAT,
        "version": VERSION,
        **facts,
        "label": {"name": label.name, "kind": label.kind, "classes": list(label.classes)},
        "modalities": made,
        "splits": {writer.split: writer.count for writer in writers},
        "fingerprints": {writer.split: _fingerprint(Path(folder), writer, media or {}) for writer in writers},
        "sums": {writer.split: sums_of(folder, _small_files(writer)) for writer in writers},
        "array_sums": {writer.split: sums_of(folder, _large_files(writer)) for writer in writers},
    }
    write_json(Path(folder) / MANIFEST_FILE, content)
    return content


def _fingerprint(folder, writer, media):
    """Hash of the content of a split."""
    digest = hashlib.blake2b(repr(sorted(media.items())).encode(), digest_size=8)
    for name in writer.files:
        digest.update(name.encode())
        with open(folder / name, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _small_files(writer):
    """Files that are checked whenever the split is opened: all but the arrays and texts, which may be large."""
    large = {
        name
        for modality, (kind, _) in writer._modalities.items()
        if kind in ARRAY_KINDS
        for name in writer._columns[modality].names
        if not name.endswith(".ends.npy")
    }
    return [name for name in writer.files if name.rpartition("/")[2] not in large and not name.endswith(".bin")]


def _large_files(writer):
    """The other files, which are checked on opening if they are not too large, and by check_data.py."""
    small = set(_small_files(writer))
    return [name for name in writer.files if name not in small]
