"""The manifest of a prepared folder (``own.json``), which describes its samples, modalities and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.cli import UserError, quoted
from util.files import read_json

MANIFEST_FILE = "own.json"
FORMAT, VERSION = "own-data", 1
SPLITS = ("train", "dev", "test")
LABEL_KINDS = ("class", "classes", "number")
KINDS = ("picture", "text", "audio", "vector", "sequence", "layers")
# Kinds whose values are one or more arrays, and kinds whose values are encoded files, stored once for all splits.
ARRAY_KINDS = ("vector", "sequence", "layers")
MEDIA_KINDS = ("picture", "audio")


@dataclasses.dataclass(frozen=True)
class OwnLabel:
    """The target.

    Attributes:
        name: Name of the target.
        kind: ``class`` (one class number), ``classes`` (any number of classes) or ``number``.
        classes: Names of the classes, in the order of their numbers; () for a number.
    """

    name: str
    kind: str
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class OwnModality:
    """One input.

    Attributes:
        kind: ``picture``, ``text``, ``audio``, ``vector``, ``sequence`` or ``layers``.
        size: Length of a vector, or of one step of a sequence; the layers' shapes; None for the other kinds.
        missing: dict split -> number of samples without this input.
    """

    kind: str
    size: int | tuple[tuple[int, ...], ...] | None
    missing: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Description of a prepared folder.

    Attributes:
        name, description: What the data are.
        synthetic: Whether the data are synthetic.
        license, citation: As the source of the data states them; None if unknown.
        label: `OwnLabel`.
        modalities: dict name -> `OwnModality`, in order.
        splits: dict split -> number of samples.
    """

    name: str
    description: str
    synthetic: bool
    license: str | None
    citation: str | None
    label: OwnLabel
    modalities: dict[str, OwnModality]
    splits: dict[str, int]


def prepare_command(folder: Path | str) -> str:
    """An example of a command that makes a prepared folder, for messages."""
    return f"python datasets/prepare_own.py --table TABLE --label COLUMN --out {quoted(folder)}"


def read_manifest(datadir: Path | str) -> Manifest:
    """Read the manifest of a prepared folder.

    Raises:
        UserError: the file is missing, has another version, or is incomplete.
    """
    return manifest_of(read_facts(datadir), datadir)


def read_facts(datadir: Path | str) -> dict[str, Any]:
    """Read the dict in ``own.json``: the manifest, and the checksums and hashes that a reader compares.

    Raises:
        UserError: the file is missing, or has another version.
    """
    path = Path(datadir) / MANIFEST_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is missing: {datadir} has no prepared data, or their preparation is not finished; make them with"
            f" `{prepare_command(datadir)}`"
        )
    facts = read_json(path)
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise UserError(
            f"{path} is not the manifest of {FORMAT}, version {VERSION}; make it with `{prepare_command(datadir)}`"
        )
    return facts


def manifest_of(facts: Mapping[str, Any], datadir: Path | str) -> Manifest:
    """Make the `Manifest` from the dict of ``own.json``.

    Raises:
        UserError: a part is missing or wrong.
    """
    try:
        label = facts["label"]
        made = Manifest(
            **{name: facts[name] for name in ("name", "description", "synthetic", "license", "citation")},
            label=OwnLabel(label["name"], label["kind"], tuple(label["classes"])),
            modalities={name: _modality(value) for name, value in facts["modalities"].items()},
            splits={name: int(count) for name, count in facts["splits"].items()},
        )
        good = made.label.kind in LABEL_KINDS and made.modalities and made.splits
        good = good and all(modality.kind in KINDS for modality in made.modalities.values())
        # A class label needs classes, a number must not have any.
        good = good and (made.label.kind == "number") == (len(label["classes"]) == 0)
        good = good and isinstance(label["classes"], list) and all(isinstance(name, str) for name in made.label.classes)
        good = good and all(set(modality.missing) == set(made.splits) for modality in made.modalities.values())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        good = False
    if not good:
        path = Path(datadir) / MANIFEST_FILE
        raise UserError(f"{path} lacks or misstates a part; make it again with `{prepare_command(datadir)}`")
    return made


def _modality(value):
    size = value["size"]
    if value["kind"] == "layers":
        size = tuple(tuple(int(side) for side in shape) for shape in size)
    elif value["kind"] in ("vector", "sequence"):
        size = int(size)
        if size < 1:
            raise ValueError(f"size {size}")
    return OwnModality(value["kind"], size, {split: int(count) for split, count in value["missing"].items()})
