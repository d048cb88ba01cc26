"""Read new samples that are in no prepared folder, with the values that `OwnData.raw` would return for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.own.inputs import Input
from datasets.own.manifest import Manifest
from datasets.own.media import BadFile, decode_audio, decode_picture, encode_audio, encode_picture
from datasets.own.readers import ArrayReader, TableReader, TextReader, as_png, is_missing, shown
from datasets.own.tables import BadRow
from util.cli import UserError


class RawInputs:
    """Converts raw inputs as the preparation of a folder did: with the same sizes, rates and standardisation.

    Args:
        manifest: `Manifest` of the folder.
        facts: Content of its ``own.json``, with ``picture_size`` and ``audio_rate``.
        root: Folder that paths are relative to.

    Raises:
        UserError: ``facts`` are incomplete.
    """

    def __init__(self, manifest: Manifest, facts: Mapping[str, Any], root: Path | str = "") -> None:
        self.modalities, self.root = manifest.modalities, Path(root)
        try:
            self._size, self._rate = int(facts["picture_size"]), int(facts["audio_rate"])
            self.tables = {name: TableReader.restored(name, one) for name, one in facts.get("tables", {}).items()}
            self._columns = {name: list(columns) for name, columns in facts.get("columns", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise UserError("the facts of the data lack or misstate a part; restore the run folder") from None

    def columns(self, name: str) -> list[str]:
        """Columns that a table needs for the input ``name``: those that it was prepared from."""
        return list(self.tables[name].columns) if name in self.tables else self._columns.get(name, [name])

    def value(self, name: str, value: Any) -> Any:
        """Convert one value to what `datasets.own.OwnData.raw` returns; None if it is missing.

        Args:
            name: The modality.
            value: For a picture, a path, the bytes of a file, uint8 (H, W) or (H, W, 3), or a PIL picture. For a
                recording, a path, bytes, or (float32 (samples,) in -1..1, samples per second). For a text, a str. For
                numbers and categories that the preparation standardised, a dict column -> cell. For other vectors,
                sequences and layers, arrays, lists, or the path of a .npy or .npz file. None if it is missing.

        Raises:
            BadRow: the value cannot be used.
        """
        kind = self.modalities[name].kind
        if name in self.tables:
            return self._row(name, value)
        if kind == "text":
            reader = TextReader()
            reader.scan([value])
            return reader.value([value])
        if kind in ("picture", "audio"):
            return self._media(kind, value)
        return self._array(name, value)

    def cells(self, name: str, cells: Sequence[Any]) -> Any:
        """Convert the cells of a table's `columns`, as `value` does."""
        if name in self.tables:
            return self._row(name, dict(zip(self.columns(name), cells, strict=True)))
        return self.value(name, cells[0])

    def _row(self, name, value):
        """Standardised numbers and one-hot categories; empty and absent columns are filled as in the preparation."""
        reader = self.tables[name]
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise BadRow(f"has no columns for {name}; expected values of {', '.join(reader.columns)}")
        if unknown := [column for column in value if column not in reader.columns]:
            raise BadRow(f"has {unknown[0]}, which {name} does not have; it has {', '.join(reader.columns)}")
        cells = [value.get(column) for column in reader.columns]
        reader.scan(cells)
        return reader.value(cells)

    def _media(self, kind, value):
        if isinstance(value, tuple) and kind == "audio":
            return value
        source = self._source(value)
        if source is None:
            return None
        try:
            if kind == "picture":
                return decode_picture(encode_picture(source, self._size))
            return decode_audio(*encode_audio(source, self._rate))
        except BadFile as reason:
            raise BadRow(f"names {shown(source)}, which {reason}") from None

    def _source(self, value):
        if isinstance(value, (bytes, bytearray)):
            return bytes(value)
        if hasattr(value, "convert"):  # a PIL picture
            value = np.asarray(value.convert("RGB"))
        if isinstance(value, np.ndarray):
            return as_png(value)
        return None if is_missing(value) else str(self.root / str(value).strip())

    def _array(self, name, value):
        modality = self.modalities[name]
        if isinstance(value, str) and "," in value:  # numbers on a command line
            value = value.split(",")
        if modality.kind == "layers" and isinstance(value, (list, tuple)):
            value = [np.asarray(part) for part in value]
        reader = ArrayReader(Input(name, "array", (name,), f"--input {name}"), self.root)
        reader.kind, reader.size = modality.kind, modality.size
        if modality.kind == "layers" and isinstance(value, np.ndarray):
            value = [value]
        reader.scan([value])
        return reader.value([value])
