"""Read a prepared folder of your own data, with any modalities, by memory map."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.own.manifest import (
    ARRAY_KINDS,
    MANIFEST_FILE,
    MEDIA_KINDS,
    Manifest,
    OwnModality,
    manifest_of,
    prepare_command,
    read_facts,
    read_manifest,
)
from datasets.own.media import MediaReader
from datasets.storage.blobs import state_without_caches
from util.arrays import MappedFile, check_sums
from util.cli import UserError

SMALL_SIZE = 64
# If the arrays and texts of a split have at most this size, they are compared with their checksums whenever the split
# is opened, which takes tens of milliseconds. Larger ones are only compared by check_data.py --full.
CHECKED_BYTES = 32 << 20

__all__ = ["Manifest", "OwnData", "open_own", "read_manifest"]


def open_own(
    datadir: Path | str,
    split: str,
    prepare: Mapping[str, Callable] | None = None,
    small: bool = False,
    only: Iterable[str] | None = None,
) -> OwnData:
    """Open one split of a prepared folder.

    Args:
        datadir: The folder.
        split: ``train``, ``dev`` or ``test``.
        prepare: dict modality -> function from a list of raw values (`OwnData.raw`) to a tensor, or to a dict of
            tensors, with the batch as first axis. The functions must be picklable.
        small: Keep only the first 64 samples.
        only: Modalities that a batch has by default; None for all.

    Raises:
        UserError: the folder is not prepared, damaged, or has no such split.
    """
    return OwnData(datadir, split, prepare, small, only)


class OwnData(Dataset):
    """One split as a map-style dataset; cheap to pickle, since every process opens the files itself.

    Args:
        datadir, split, prepare, small, only: As for `open_own`.

    Attributes:
        manifest: `Manifest` of the folder.
        split: Name of the split.
        description, synthetic: From the manifest.
        num_labels: Number of classes; 1 if the label is a number.
        label_names: List of the class names; empty if the label is a number.
        identity: Hash of the split's content.
        fingerprint: Hash of the split's content and of ``prepare``.
        in_memory: Whether all inputs are arrays, so that data loader workers would not save time.
        quick: Names of the inputs that are read faster than a worker could send them.
    """

    def __init__(
        self,
        datadir: Path | str,
        split: str,
        prepare: Mapping[str, Callable] | None = None,
        small: bool = False,
        only: Iterable[str] | None = None,
    ) -> None:
        self.folder, self.split, self.prepare = Path(datadir), split, dict(prepare or {})
        facts = read_facts(datadir)
        self.manifest = manifest_of(facts, datadir)
        self._wanted = set(self.manifest.modalities if only is None else only)
        if split not in self.manifest.splits:
            raise UserError(f"{datadir} has no split {split!r}, but {', '.join(self.manifest.splits)}; {self._remedy}")
        if unknown := sorted(set(self.prepare) - set(self.manifest.modalities)):
            raise UserError(f"{datadir} has no modality {unknown[0]!r}, but {', '.join(self.manifest.modalities)}")
        if not self.manifest.splits[split]:
            raise UserError(f"the split {split} of {datadir} has no samples; {self._remedy}")
        self._check(facts)
        count = self.manifest.splits[split]
        self._length = min(count, SMALL_SIZE) if small else count
        self.description, self.synthetic = self.manifest.description, self.manifest.synthetic
        label = self.manifest.label
        self.num_labels, self.label_names = (len(label.classes) or 1), list(label.classes)
        content = facts["fingerprints"][split]
        self.identity = content if self._length == count else _hash(content, self._length)
        settings = {name: _settings(value) for name, value in self.prepare.items()}
        self.fingerprint = _hash(self.identity, sorted(settings.items())) if settings else self.identity
        kinds = {name: modality.kind for name, modality in self.manifest.modalities.items()}
        self.quick = tuple(name for name, kind in kinds.items() if kind in ARRAY_KINDS)
        self.in_memory = len(self.quick) == len(kinds)
        # All files are opened here, so that damage is not reported as late as in the first batch.
        _ = self._files
        paths = [self.folder / name for name in self._array_sums]
        if sum(path.stat().st_size for path in paths if path.is_file()) <= CHECKED_BYTES:
            self._refuse(self.changed_array())

    @property
    def _remedy(self):
        return f"make the folder again with `{prepare_command(self.folder)} --overwrite`"

    def _check(self, facts):
        sums, prints = facts.get("sums"), facts.get("fingerprints")
        arrays = facts.get("array_sums", {self.split: {}})  # older folders have none
        parts = [part.get(self.split) if isinstance(part, dict) else None for part in (sums, arrays, prints)]
        if not all(isinstance(part, kind) for part, kind in zip(parts, (dict, dict, str), strict=True)):
            raise UserError(f"{self.folder / MANIFEST_FILE} lacks or misstates a part; {self._remedy}")
        self._array_sums = arrays[self.split]
        self._refuse(self._changed(sums[self.split]))

    def _refuse(self, changed):
        if changed:
            raise UserError(f"{changed} has changed since it was written; {self._remedy}")

    def _changed(self, sums):
        return check_sums(self.folder / self.split, {name.rpartition("/")[2]: value for name, value in sums.items()})

    def changed_array(self) -> Path | None:
        """Read all files of arrays and texts; returns the first that does not match its checksum, or None."""
        return self._changed(self._array_sums)

    @cached_property
    def _files(self):
        """dict name of a file without its suffix -> `MappedFile`; the names of pieces keep ``.bin``."""
        count, names = self.manifest.splits[self.split], self.manifest.modalities
        files = {"label": self._open_label(count), "id.ends": self._open("id.ends.npy", count)}
        for name, modality in names.items():
            absent = files[f"{name}.missing"] = self._open(f"{name}.missing.npy", count)
            if np.count_nonzero(absent.array) != modality.missing[self.split]:
                raise self._misstated(f"how many samples lack {name}")
            if modality.kind == "layers":
                for k, shape in enumerate(modality.size):
                    files[f"{name}.{k}"] = self._open(f"{name}.{k}.npy", count, *shape)
            elif modality.kind in ("text", "sequence"):
                files[f"{name}.ends"] = self._open(f"{name}.ends.npy", count)
            else:
                files[name] = self._open(f"{name}.npy", count, *([modality.size] if modality.kind == "vector" else []))
        return files | self._open_pieces(files)

    def _open_label(self, count):
        label = self.manifest.label
        file = self._open("label.npy", count, *([len(label.classes)] if label.kind == "classes" else []))
        numbers = file.array
        if label.kind != "class":
            good = np.issubdtype(numbers.dtype, np.floating) == (label.kind == "number")
        else:
            good = np.issubdtype(numbers.dtype, np.integer)
            good = good and bool(numbers.min() >= 0) and bool(numbers.max() < len(label.classes))
        if not good:
            raise self._misstated(f"the kind or the classes of the label {label.name}")
        return file

    def _misstated(self, what):
        return UserError(f"{self.folder / MANIFEST_FILE} misstates {what}; {self._remedy}")

    def _open_pieces(self, files):
        made = {}
        for name, width, dtype in self._pieces():
            total = int(files[f"{name}.ends"].array[-1]) * width
            # An empty file cannot be mapped.
            if total:
                made[f"{name}.bin"] = MappedFile(self.folder / self.split / f"{name}.bin", self._remedy, dtype)
                if made[f"{name}.bin"].array.size != total:
                    raise UserError(f"{self.folder / self.split / name}.bin is cut short; {self._remedy}")
        return made

    def _pieces(self):
        """Yield (name, width, dtype) of each file that contains pieces of different lengths."""
        yield "id", 1, np.uint8
        for name, modality in self.manifest.modalities.items():
            if modality.kind == "text":
                yield name, 1, np.uint8
            elif modality.kind == "sequence":
                yield name, modality.size, np.float32

    def _open(self, name, *shape):
        path = self.folder / self.split / name
        file = MappedFile(path, self._remedy)
        if shape and file.array.shape != shape:
            raise UserError(f"{path} has shape {file.array.shape}, but {MANIFEST_FILE} has {shape}; {self._remedy}")
        return file

    @cached_property
    def _media(self):
        """dict modality -> `MediaReader`."""
        kinds = {name: modality.kind for name, modality in self.manifest.modalities.items()}
        return {name: MediaReader(self.folder, name, kind) for name, kind in kinds.items() if kind in MEDIA_KINDS}

    def __len__(self) -> int:
        return self._length

    def _rows(self, indices):
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index out of range for {len(self)} samples")
        return rows

    def _bytes(self, name, row, width=1):
        """The piece of sample ``row`` in the file ``name``.bin, as a flat array."""
        ends = self._files[f"{name}.ends"].array
        begin, end = (int(ends[row - 1]) if row else 0), int(ends[row])
        if begin == end:
            return np.zeros(0, np.float32 if width > 1 else np.uint8)
        return self._files[f"{name}.bin"].array[begin * width : end * width]

    @property
    def ids(self) -> list[str]:
        """The samples' ids, in order."""
        return self.ids_of(range(len(self)))

    def ids_of(self, indices: Sequence[int]) -> list[str]:
        """The ids of some samples.

        Raises:
            UserError: the file that contains them is damaged.
        """
        try:
            return [self._bytes("id", int(row)).tobytes().decode() for row in self._rows(indices)]
        except UnicodeDecodeError:
            raise UserError(f"{self.folder / self.split / 'id.bin'} is damaged; {self._remedy}") from None

    def encoded(self, name: str, index: int) -> bytes | None:
        """The stored file (JPEG, PNG or 16-bit samples) of a picture or recording; None if it is missing."""
        row = int(self._files[name].array[self._rows([index])[0]])
        return None if row < 0 else self._media[name].encoded(row)

    def present(self, name: str) -> np.ndarray:
        """Whether each sample has the modality ``name``: bool (N,)."""
        return ~self._files[f"{name}.missing"].array[: len(self)]

    def raw(self, name: str, indices: Sequence[int]) -> list:
        """Read values of the modality ``name``, before ``prepare``.

        Returns:
            List of values, None for a missing one. picture: uint8 (H, W, 3), RGB. text: str. audio: (float32 (samples,)
            in -1..1, samples per second). vector: float32 (d,). sequence: float32 (steps, d). layers: list of float32
            arrays.
        """
        missing = self._files[f"{name}.missing"].array
        return [None if missing[row] else self._value(name, int(row)) for row in self._rows(indices)]

    def _value(self, name, row):
        modality = self.manifest.modalities[name]
        if modality.kind == "vector":
            return np.array(self._files[name].array[row])
        if modality.kind == "layers":
            return [np.array(self._files[f"{name}.{k}"].array[row]) for k in range(len(modality.size))]
        if modality.kind == "text":
            return self._bytes(name, row).tobytes().decode("utf-8", "replace")
        if modality.kind == "sequence":
            return np.array(self._bytes(name, row, modality.size), dtype=np.float32).reshape(-1, modality.size)
        return self._media[name].read(int(self._files[name].array[row]))

    def read(
        self, indices: Sequence[int], only: Iterable[str] | None = None, without: Iterable[str] = (), epoch: int = 0
    ) -> dict[str, Any]:
        """Read one batch.

        Args:
            indices: Numbers of the samples.
            only: Inputs to read; None for those that the split was opened with.
            without: Inputs to leave out.
            epoch: Ignored, since reading is deterministic.

        Returns:
            dict of the wanted inputs as ``prepare`` returns them; of ``<modality>_present``, bool (B,), for each
            modality that any sample of the folder lacks, even if the input itself is left out; and of ``label``: int64
            (B,) for a class, float32 (B, K) for classes, float32 (B,) for a number.
        """
        rows = self._rows(indices)
        wanted = (self._wanted if only is None else set(only)) - set(without)
        batch: dict[str, Any] = {"label": self._labels(rows)}
        for name, modality in self.manifest.modalities.items():
            if any(modality.missing.values()):
                batch[f"{name}_present"] = torch.from_numpy(~self._files[f"{name}.missing"].array[rows])
            if name in wanted:
                batch[name] = self._input(name, rows)
        return batch

    def _labels(self, rows):
        values = self._files["label"].array[rows]
        return torch.from_numpy(values.astype(np.float32) if self.manifest.label.kind != "class" else values)

    def _input(self, name, rows):
        modality = self.manifest.modalities[name]
        if name in self.prepare:
            return self.prepare[name](self.raw(name, rows))
        # The rows of missing samples are zeros.
        if modality.kind == "vector":
            return torch.from_numpy(self._files[name].array[rows])
        if modality.kind == "layers":
            layers = range(len(modality.size))
            return {str(k): torch.from_numpy(self._files[f"{name}.{k}"].array[rows]) for k in layers}
        if modality.kind == "sequence":
            return pad_sequences(self.raw(name, rows), modality.size)
        raise UserError(f"the modality {name} of {self.folder} ({modality.kind}) needs an encoder that prepares it")

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """One batch with all inputs, for a loader with an identity ``collate_fn``."""
        return self.read(indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample: the batch of `read` with one row."""
        return self.read([index])

    def distinct(self, name: str) -> np.ndarray:
        """Number the distinct inputs ``name``: int64 (N, 1); samples with equal texts or files have the same number."""
        kind = self.manifest.modalities[name].kind
        if kind in MEDIA_KINDS:
            values = self._files[name].array[: len(self)]
        elif kind == "text":
            keys = (_text_key(self._bytes(name, row)) if here else 0 for row, here in enumerate(self.present(name)))
            values = np.fromiter(keys, np.int64, len(self))
        else:
            return np.arange(len(self), dtype=np.int64)[:, None]
        return np.unique(values, return_inverse=True)[1].astype(np.int64)[:, None]

    def __getstate__(self) -> dict[str, Any]:
        return state_without_caches(self)


def tensors_of(modality: OwnModality, values: Sequence[Any]) -> Any:
    """Convert raw values (`OwnData.raw`) to what `OwnData.read` returns without ``prepare``.

    Args:
        modality: `OwnModality` of a vector, sequence or layers.
        values: The raw values, None for a missing one.

    Returns:
        A tensor (B, d), the dict of `pad_sequences`, or a dict "0", "1", ... -> tensor (B, ...) of the layers.
    """
    if modality.kind == "sequence":
        return pad_sequences(values, modality.size)
    shapes = modality.size if modality.kind == "layers" else ((modality.size,),)
    layers = [
        [None if value is None else (value if modality.kind == "layers" else [value])[k] for value in values]
        for k in range(len(shapes))
    ]
    made = {
        str(k): torch.from_numpy(np.stack([np.zeros(shape, np.float32) if one is None else one for one in layer]))
        for k, (layer, shape) in enumerate(zip(layers, shapes, strict=True))
    }
    return made if modality.kind == "layers" else made["0"]


def pad_sequences(values: Sequence[np.ndarray | None], size: int) -> dict[str, torch.Tensor]:
    """Pad sequences (steps, d) to {"values": float32 (B, T, d), zeros after the end, "length": int64 (B,)}; T >= 1."""
    lengths = [0 if value is None else len(value) for value in values]
    padded = np.zeros((len(values), max([1, *lengths]), size), np.float32)
    for row, value in enumerate(values):
        if value is not None:
            padded[row, : len(value)] = value
    return {"values": torch.from_numpy(padded), "length": torch.tensor(lengths, dtype=torch.int64)}


def _settings(prepare):
    """Text that identifies a ``prepare`` function and its attributes, and is the same in every process."""
    text = repr(prepare)
    if " at 0x" not in text:
        return text
    kind = prepare if hasattr(prepare, "__qualname__") else type(prepare)
    return f"{kind.__module__}.{kind.__qualname__} {sorted(getattr(prepare, '__dict__', {}).items())}"


def _hash(*facts):
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()


def _text_key(data):
    return int.from_bytes(hashlib.blake2b(data.tobytes(), digest_size=8).digest(), "little", signed=True)
