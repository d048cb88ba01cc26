"""Check a prepared folder of your own data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.checks import Report, Seen, folder_or_file
from datasets.own.dataset import OwnData, open_own
from datasets.own.manifest import Manifest, prepare_command, read_manifest
from util.cli import UserError
from util.hashes import short_hash


def check(report: Report, data: Path | str) -> None:
    """Check the prepared folder ``data``, and add the findings to a `Report`."""
    folder = folder_or_file(report, data, f"make them with `{prepare_command(data)}`")
    manifest = None
    if folder is not None:
        with report.catching(folder):
            manifest = read_manifest(folder)
    if folder is None or manifest is None:
        return
    report.about.append(f"{folder}: {manifest.description}{' (synthetic)' if manifest.synthetic else ''}")
    opened = {}
    for split, count in manifest.splits.items():
        report.count(split, count)
        with report.catching(folder / split):
            samples = open_own(folder, split)
            samples.ids_of(range(len(samples)))
            opened[split] = samples
    again = f"fix the table, and make the folder again with `{prepare_command(folder)} --overwrite`"
    for split, samples in opened.items():
        rows = list(range(len(samples)))
        report.read(partial(_read, samples), rows, what=f"samples of {split}", place=folder / split)
        _check_missing(report, folder / split, manifest, split, again)
        changed = samples.changed_array() if report.full else None
        if changed:
            report.add("error", changed, "has changed since it was written", again)
    _check_labels(report, folder, opened, again)
    report.repeats(folder, {split: _ids(samples) for split, samples in opened.items()}, "samples (by id)", fix=again)
    contents: dict[str, dict[str, str]] = {}
    for split, samples in opened.items():
        with report.catching(folder / split):
            contents[split] = _contents(samples)
    report.repeats(folder, contents, "samples (by all inputs)", "warning", again)


def _ids(samples):
    return {name: name for name in samples.ids}


def _check_missing(report, place, manifest: Manifest, split, fix):
    for name, modality in manifest.modalities.items():
        missing, count = modality.missing[split], manifest.splits[split]
        if count and missing == count:
            report.add("error", place, f"every sample lacks {name}", fix)
        elif missing:
            report.about.append(f"{split}: {missing:,} of {count:,} samples lack {name}")


def _check_labels(report, folder, opened: dict[str, OwnData], fix):
    """Add findings about labels that are not finite or out of range, and about classes that train lacks."""
    if "train" not in opened:
        return
    label = opened["train"].manifest.label
    labels = {split: samples.read(range(len(samples)), only=())["label"].numpy() for split, samples in opened.items()}
    for split, values in labels.items():
        if label.kind == "number" and not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            report.add("error", folder / split, f"{count:,} labels are NaN or infinite", fix)
        elif label.kind == "number" and values.min() == values.max():
            report.add("warning", folder / split, f"every label is {values.min():g}", fix)
        elif label.kind == "class" and (values.min() < 0 or values.max() >= len(label.classes)):
            report.add("error", folder / split, f"labels are not in 0..{len(label.classes) - 1}", fix)
    if label.kind == "number":
        return
    kinds = np.arange(len(label.classes))
    used = {s: np.isin(kinds, v) if label.kind == "class" else (v > 0).any(axis=0) for s, v in labels.items()}
    for split, present in used.items():
        if split == "train":
            lacking, text = kinds[~present], "have no sample in train"
        else:
            lacking, text = kinds[present & ~used["train"]], f"of {split} are not in train"
        if len(lacking):
            report.add("warning", folder, f"{len(lacking)} classes {text}, first {label.classes[lacking[0]]}", fix)


def _contents(samples: OwnData) -> dict[str, str]:
    """dict digest of all inputs of a sample -> its id; of pictures and recordings the stored bytes are hashed."""
    kinds = {name: modality.kind for name, modality in samples.manifest.modalities.items()}
    found = {}
    for row, sample_id in enumerate(samples.ids):
        parts: list[Any] = []
        for name, kind in kinds.items():
            value = samples.encoded(name, row) if kind in ("picture", "audio") else samples.raw(name, [row])[0]
            if isinstance(value, bytes):
                value = np.frombuffer(value, np.uint8)
            parts += value if kind == "layers" and value is not None else [value]
        found[short_hash(*parts)] = sample_id
    return found


def _read(samples: OwnData, rows: tuple[int, ...]) -> Seen:
    """Read the inputs of some samples; returns a `Seen`."""
    seen = Seen()
    for row in rows:
        sample_id = samples.ids_of([row])[0]
        for name, modality in samples.manifest.modalities.items():
            try:
                value = samples.raw(name, [row])[0]
            except UserError as error:
                seen.fault("error", f"unreadable {name}", sample_id, str(error))
                continue
            if value is not None:
                _look(seen, f"{sample_id}, {name}", name, modality.kind, value)
    return seen


def _look(seen: Seen, label: str, name: str, kind: str, value: Any) -> None:
    if kind == "text":
        if not value.strip():
            seen.fault("warning", f"{name} without words", label)
        return
    arrays = value if kind == "layers" else [value[0]] if kind == "audio" else [value]
    # Equal values are fine in other kinds: a vector may be a single number, or a one-hot code of an unknown category.
    same = "warning" if kind in ("picture", "audio") else None
    for array in arrays:
        if not array.size:
            seen.fault("warning", f"{name} without any step", label)
        seen.values(name, label, array, constant=same)
