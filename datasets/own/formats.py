"""Readers of data sets in common forms; each reader returns a dict of arguments of `datasets.own.prepare.Plan`.

mmbt        {train,dev,test}.jsonl next to the pictures, one object with id, text, img and label per line: the form of
            MMBT, of Hateful Memes, and of data sets that were converted to it (MM-IMDB, MVSA, Food-101)
food101     UPMC Food-101: images/{train,test}/<class>/<class>_<n>.jpg and texts_txt/<class>/<class>_<n>.txt
multibench  MultiBench's pickles of MOSI, MOSEI, ...: train / valid / test, each with vision, audio, text, labels, id
mmsa        MMSA's pickles: the same with raw_text and regression_labels, and with lengths if they are not aligned
avmnist     AV-MNIST: image/ and audio/ with {train,test}_data.npy, and {train,test}_labels.npy
cremad      CREMA-D, see `datasets.own.cremad`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.own.cremad import read_cremad
from datasets.own.inputs import Input
from datasets.own.splitting import ALIASES
from datasets.own.tables import SPLIT_COLUMN, Arrays, BadRow, Joined, JSONTable, Table, load_array
from util.cli import UserError
from util.plain_pickle import read_array_pickle
from util.registry import import_class, is_own

PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
AVMNIST_DEV = 5000


def read_mmbt(folder: Path) -> dict[str, Any]:
    """Read JSON lines with pictures; see `read_format`."""
    tables = {}
    for path in sorted(folder.glob("*.jsonl")):
        split = ALIASES.get(path.stem.lower().replace("_seen", ""))
        if split:
            if split in tables:
                raise UserError(f"{folder} has several files for the split {split}: {tables[split].name} and {path}")
            tables[split] = JSONTable(path)
    if "train" not in tables:
        raise UserError(f"{folder} has no train.jsonl; expected {{train,dev,test}}.jsonl next to the pictures")
    notes = []
    for split, table in list(tables.items()):
        if "label" not in table.columns:
            notes.append(f"{table.name} has no labels and was left out")
            del tables[split]
    if "train" not in tables:
        raise UserError(f"{folder / 'train.jsonl'} has no labels (`label`)")
    table = Joined(tables)
    named = {"img": ("image", "picture"), "text": ("text", "text"), "audio": ("audio", "audio")}
    inputs = [Input(*named[one], (one,), "--format mmbt") for one in named if one in table.columns]
    ids = "id" if "id" in table.columns else None
    return {"table": table, "inputs": inputs, "label": "label", "id_column": ids, "notes": notes}


class _Food(Table):
    """The pictures and texts of UPMC Food-101."""

    columns = ("id", "image", "text", "label", SPLIT_COLUMN)

    def __init__(self, folder):
        self.root, self.name, self.columns = folder, str(folder), list(_Food.columns)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`."""
        for split in ("train", "test"):
            for folder in sorted((self.root / "images" / split).iterdir()):
                for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                    if path.suffix.lower() in PICTURES:
                        yield self._row(split, folder.name, path, columns)

    def _row(self, split, name, path, columns):
        text = self.root / "texts_txt" / name / f"{path.stem}.txt"
        values = {"id": f"{split}/{path.stem}", "image": str(path.relative_to(self.root)), "label": name}
        values |= {SPLIT_COLUMN: split, "text": None}
        if "text" in columns and text.is_file():
            values["text"] = text.read_text(encoding="utf-8", errors="replace")
        return str(path), [values[column] for column in columns]


def read_food101(folder: Path) -> dict[str, Any]:
    """Read UPMC Food-101; dev is drawn from train. See `read_format`."""
    for part in ("images/train", "images/test", "texts_txt"):
        if not (folder / part).is_dir():
            raise UserError(f"{folder / part} is missing; expected the folder of UPMC Food-101 (images/, texts_txt/)")
    inputs = [Input("image", "picture", ("image",), "--format food101")]
    inputs.append(Input("text", "text", ("text",), "--format food101"))
    return {"table": _Food(folder), "inputs": inputs, "label": "label", "id_column": "id", "notes": []}


class _Sequences(Table):
    """The samples of a pickle; ``cut`` removes the padding of its sequences."""

    def __init__(self, path, content, columns, label, cut):
        self.root, self.name, self._content, self._cut = path.parent, str(path), content, cut
        self._label, self.columns = label, [*columns, "id", label, SPLIT_COLUMN]

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`."""
        for split, part in self._content.items():
            for row in range(len(part[self._label])):
                values = {SPLIT_COLUMN: split}
                yield (
                    f"{split} sample {row}",
                    [values.get(name, self._value(part, split, name, row)) for name in columns],
                )

    def _value(self, part, split, name, row):
        if name == SPLIT_COLUMN:
            return split
        value = part[name][row]
        if name == "id":
            return f"{split}/{row}: " + " ".join(str(one) for one in np.ravel(np.asarray(value, dtype=object)))
        if name == self._label:
            return float(np.ravel(value)[0])
        return value if isinstance(value, str) else self._cut(part, name, row, value)


def _cut_leading_zeros(part, name, row, value):
    """Cut every modality at the first word that is not zero, since MultiBench pads at the front."""
    words = np.asarray(part["text"][row])
    start = int(np.abs(words).sum(1).astype(bool).argmax())
    return _finite(np.asarray(value)[start:])


def _cut_to_length(part, name, row, value):
    """Cut a modality to its length if the pickle has lengths, since MMSA then pads at the end."""
    lengths = part.get(f"{name}_lengths")
    value = np.asarray(value)
    return _finite(value[: int(lengths[row])] if lengths is not None else value)


def _finite(value):
    return np.where(np.isneginf(value), 0, value).astype(np.float32)


def read_multibench(path: Path) -> dict[str, Any]:
    """Read a pickle of MultiBench; see `read_format`."""
    return _read_pickle(path, "multibench", "labels", _cut_leading_zeros, ("vision", "audio", "text"))


def read_mmsa(path: Path) -> dict[str, Any]:
    """Read a pickle of MMSA; the raw texts are used instead of their features. See `read_format`."""
    return _read_pickle(path, "mmsa", "regression_labels", _cut_to_length, ("vision", "audio", "raw_text"))


def _read_pickle(path, form, label, cut, wanted):
    content = read_array_pickle(path)
    if not isinstance(content, dict) or "train" not in content:
        raise UserError(f"{path} has no part `train`; expected train, valid and test (--format {form})")
    content = {split: part for split, part in content.items() if split in ALIASES}
    for split, part in content.items():
        if not isinstance(part, dict) or label not in part:
            raise UserError(f"{path}: the part {split} has no {label}; expected what --format {form} describes")
        for name in wanted:
            if name not in part or len(part[name]) != len(part[label]):
                raise UserError(f"{path}: the part {split} lacks {name}, or has another number of samples there")
        if "id" not in part:
            part["id"] = [""] * len(part[label])
    names = {"raw_text": "text"}
    table = _Sequences(path, content, wanted, label, cut)
    forms = {"raw_text": "text"}
    inputs = [Input(names.get(one, one), forms.get(one, "array"), (one,), f"--format {form}") for one in wanted]
    return {"table": table, "inputs": inputs, "label": label, "id_column": "id", "notes": [], "label_kind": "number"}


def read_avmnist(folder: Path) -> dict[str, Any]:
    """Read AV-MNIST: a digit and the spectrogram of a spoken digit, both as grey pictures. See `read_format`."""
    arrays = {}
    for name, shape in (("image", (28, 28)), ("audio", (112, 112))):
        parts = [load_array(folder / name / f"{split}_data.npy") for split in ("train", "test")]
        for split, part in zip(("train", "test"), parts, strict=True):
            if part[0].size != np.prod(shape):
                raise UserError(f"{folder / name / split}_data.npy has shape {part.shape}; expected {shape} per sample")
        arrays[name] = _Stacked(parts, shape)
    labels = [load_array(folder / f"{split}_labels.npy") for split in ("train", "test")]
    count, held = len(labels[0]), min(AVMNIST_DEV, len(labels[0]) // 2)
    arrays["label"] = np.concatenate(labels)
    splits = ["train"] * (count - held) + ["dev"] * held + ["test"] * len(labels[1])
    arrays[SPLIT_COLUMN] = np.array(splits)
    inputs = [Input(name, "picture", (name,), "--format avmnist") for name in ("image", "audio")]
    notes = [] if held == AVMNIST_DEV else [f"dev: the last {held:,} samples of train instead of {AVMNIST_DEV:,}"]
    return {"table": Arrays(arrays), "inputs": inputs, "label": "label", "id_column": None, "notes": notes}


class _Stacked:
    """A sequence of the rows of several arrays, each reshaped to the picture shape ``shape``."""

    def __init__(self, parts, shape):
        self._parts, self._shape = parts, shape

    def __len__(self):
        return sum(map(len, self._parts))

    def __getitem__(self, row):
        for part in self._parts:
            if row < len(part):
                return np.asarray(part[row]).reshape(self._shape)
            row -= len(part)
        raise IndexError(row)


# Name -> (reader, whether it reads a file rather than a folder).
FORMATS = {
    "mmbt": (read_mmbt, False),
    "food101": (read_food101, False),
    "multibench": (read_multibench, True),
    "mmsa": (read_mmsa, True),
    "avmnist": (read_avmnist, False),
    "cremad": (read_cremad, False),
}


def read_format(form: str, place: Path | str) -> dict[str, Any]:
    """Read a data set in a known form.

    Args:
        form: A key of `FORMATS`, or ``module:function`` of your own reader (docs/extend.md).
        place: Folder or file of the data.

    Returns:
        dict of arguments of `datasets.own.prepare.Plan`: table, inputs, label, id_column, and possibly label_kind and
        facts; also possibly notes, a list of messages for the user.

    Raises:
        UserError: the form is unknown, or the data do not have it.
    """
    place = Path(place)
    if form not in FORMATS and not is_own(form):
        raise UserError(f"--format {form}: expected one of {', '.join(FORMATS)}, or module:function of your own")
    if not place.exists():
        raise UserError(f"--data {place} does not exist; name the data for --format {form}")
    if form not in FORMATS:
        return _checked(import_class(form, "reader"), form)(place)
    reader, wants_file = FORMATS[form]
    if place.is_dir() == wants_file:
        raise UserError(f"--data {place}: --format {form} expects a {'pickle' if wants_file else 'folder'}")
    return reader(place)


def _checked(reader, form):
    """Wrap a user's reader, so that an incomplete result raises UserError."""

    def read(place):
        parts = reader(place)
        given = parts if isinstance(parts, dict) else {}
        lacking = [name for name in ("table", "inputs", "label") if name not in given]
        if lacking:
            raise UserError(f"--format {form}: the reader returns no {lacking[0]}; see docs/extend.md")
        return {"id_column": None, **parts}

    return read
