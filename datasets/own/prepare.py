"""Convert a table to a prepared folder: check every row, store pictures and recordings, split, and write."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.own.inputs import Input, check_names
from datasets.own.labels import Labels
from datasets.own.manifest import MANIFEST_FILE, SPLITS, read_facts
from datasets.own.readers import ArrayReader, MediaReader, TableReader, reader_of, shown
from datasets.own.splitting import complete_splits, draw_splits, split_number
from datasets.own.tables import BadRow, Table
from datasets.own.writing import SplitWriter, write_manifest
from util.cli import UserError
from util.files import write_fault, write_text
from util.locks import locked
from util.progress import progress

FAULTS_FILE, LOCK_FILE = "unreadable.txt", ".own.lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to prepare, and how.

    Attributes:
        table: The rows.
        inputs: The modalities.
        label, label_kind, label_separator: See `datasets.own.labels.Labels`.
        id_column, group_column, split_column: Columns, or None.
        shares, seed: Shares of train, dev and test in drawn splits, and the seed of the draw.
        facts: ``name``, ``description``, ``synthetic``, ``license`` and ``citation`` of the data.
        request: Everything that the result depends on, as JSON values; a second run compares it to see whether the
            folder is up to date.
        picture_size, audio_rate: ``setting`` of `datasets.own.media.MediaWriter`.
        skip_invalid: Leave out rows that cannot be used.
        workers: Number of processes that decode pictures and recordings.
    """

    table: Table
    inputs: Sequence[Input]
    label: str
    label_kind: str = "auto"
    label_separator: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    request: dict[str, Any] = dataclasses.field(default_factory=dict)
    picture_size: int = 256
    audio_rate: int = 16_000
    skip_invalid: bool = False
    workers: int = 1


def prepare(plan: Plan, out: Path | str, overwrite: bool = False) -> dict[str, Any]:
    """Write the prepared folder ``out``, or resume a preparation that was interrupted.

    Args:
        plan: What to prepare.
        out: The folder.
        overwrite: Replace other prepared data in it.

    Returns:
        The content of ``own.json``, a dict.

    Raises:
        UserError: the table or the folder cannot be used.
    """
    check_names(plan.inputs)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / LOCK_FILE).exists():
        raise UserError(f"--out {out} contains files that this script did not make; name a new folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / LOCK_FILE, busy=f"another run is preparing {out}: wait for it or end it first"):
            finished = None if overwrite else _finished(out, plan)
            if finished:
                print(f"{out} is up to date (--overwrite makes it again, for example if pictures have changed)")
                return finished
            (out / MANIFEST_FILE).unlink(missing_ok=True)
            with contextlib.ExitStack() as files:
                return _Preparation(plan, out, files).run()
    except OSError as error:
        raise UserError(f"cannot write {out}: {write_fault(error, 'choose another --out')}") from error


def _finished(out, plan):
    """The manifest of a finished folder with the same request; None if there is none yet."""
    if not (out / MANIFEST_FILE).exists():
        return None
    facts = read_facts(out)
    if facts.get("request") != plan.request:
        raise UserError(
            f"{out} contains data that were prepared from something else, or with other flags; choose another --out, or"
            " replace them with --overwrite"
        )
    return facts


class _Preparation:
    """One run. It keeps only a few numbers per row in memory, and reads the table several times."""

    def __init__(self, plan, out, files):
        self.plan, self.out, self.table = plan, out, plan.table
        self.readers = {
            one.name: reader_of(one, out, plan.table.root, plan.picture_size, plan.audio_rate) for one in plan.inputs
        }
        self.media = {name: reader for name, reader in self.readers.items() if isinstance(reader, MediaReader)}
        for reader in self.media.values():
            files.enter_context(reader.writer)
        self.labels = Labels(plan.label, plan.label_kind, plan.label_separator)
        self.faults, self.notes = {}, []
        self.ids, self.groups, self.given = array("Q"), array("q"), array("b")
        self.group_numbers, self.width = {}, None
        self._lay_out_columns()

    def _lay_out_columns(self):
        plan = self.plan
        named = {"label": plan.label, "id": plan.id_column, "group": plan.group_column, "split": plan.split_column}
        self.columns = [column for column in named.values() if column is not None]
        self.place_of = {use: self.columns.index(column) for use, column in named.items() if column is not None}
        self.cells_of = {}
        flags = {column: f"--{use}" for use, column in named.items() if column is not None}
        for one in plan.inputs:
            if plan.label in one.all_columns:
                raise UserError(f"{one.flag} {plan.label}: this is the label; name other columns as inputs")
            begin = len(self.columns)
            self.columns += one.all_columns
            self.cells_of[one.name] = slice(begin, len(self.columns))
            flags |= dict.fromkeys(one.all_columns, one.flag)
        self.table.check_columns(flags)

    def run(self):
        self._scan()
        self._store_media()
        self._check_faults()
        self._check_ids()
        self._drop_faulty()
        print(self.labels.decide(self.width))
        split_of = self._divide()
        self._fit(split_of)
        return self._write(split_of)

    def _rows(self, what):
        rows = enumerate(self.table.rows(self.columns))
        return progress(rows, what, total=len(self.labels.codes) or None, unit="row")

    def _scan(self):
        for row, (place, cells) in self._rows("reading"):
            fault = cells if isinstance(cells, BadRow) else self._scan_row(row, place, cells)
            if isinstance(cells, BadRow):
                for reader in self.media.values():
                    reader.of_sample.append(-1)
                for numbers, empty in ((self.ids, 0), (self.groups, -1), (self.given, -1)):
                    numbers.append(empty)
                self.labels.add_none()
            if fault is not None:
                self.faults[row] = f"{place} {fault}"
        self.count = len(self.labels.codes)
        if not self.count:
            raise UserError(f"{self.table.name} has no rows; expected one row per sample")
        for reader in self.readers.values():
            if isinstance(reader, ArrayReader) and len(self.faults) < self.count:
                reader.finish()

    def _scan_row(self, row, place, cells):
        """Check one row; returns its fault (`BadRow`), or None."""
        fault = None
        for name, reader in self.readers.items():
            try:
                reader.scan(cells[self.cells_of[name]])
            except BadRow as reason:
                fault = fault or reason
        self.ids.append(_key(self._id(row, cells)))
        if "group" in self.place_of:
            # A sample without a group is a group of its own.
            name = _text(cells[self.place_of["group"]]) or (row,)
            self.groups.append(self.group_numbers.setdefault(name, len(self.group_numbers)))
        else:
            self.groups.append(-1)
        where = f"{self.table.name} {place}, --split_column {self.plan.split_column}"
        split = cells[self.place_of["split"]] if "split" in self.place_of else None
        self.given.append(split_number(split, where) if "split" in self.place_of else -1)
        label = cells[0]
        try:
            self.labels.add(label)
        except BadRow as reason:
            self.labels.add_none()
            fault = fault or reason
        else:
            if isinstance(label, np.ndarray) and label.ndim:
                self.width = len(label)
        return fault

    def _id(self, row, cells):
        return _text(cells[self.place_of["id"]]) if "id" in self.place_of else str(row + 1)

    def _store_media(self):
        for name, reader in self.media.items():
            for key, reason in reader.writer.store(self._sources(name, reader), len(reader.keys), self.plan.workers):
                reader.bad[key] = reason
            numbers = {number: reader.bad[key] for key, number in reader.keys.items() if key in reader.bad}
            if not numbers:
                continue
            for row, (place, cells) in enumerate(self.table.rows(self.columns)):
                number = reader.of_sample[row]
                if number in numbers and row not in self.faults:
                    source = reader.source(cells[self.cells_of[name]][0])
                    self.faults[row] = f"{place} names {shown(source)}, which {numbers[number]}"

    def _sources(self, name, reader):
        """Yield (key, source) of every distinct file; the table is read again, since it may contain the files."""
        keys, following = list(reader.keys), 0
        for row, (_, cells) in enumerate(self.table.rows(self.columns)):
            if reader.of_sample[row] == following and isinstance(cells, list):
                yield keys[following], reader.source(cells[self.cells_of[name]][0])
                following += 1

    def _check_faults(self):
        path = self.out / FAULTS_FILE
        if not self.faults:
            path.unlink(missing_ok=True)
            return
        lines = [self.faults[row] for row in sorted(self.faults)]
        write_text(path, "\n".join(lines) + "\n")
        if not self.plan.skip_invalid or len(self.faults) == self.count:
            leave = "" if len(self.faults) == self.count else ", or leave them out with --skip_invalid"
            raise UserError(
                f"{self.table.name}: {len(lines):,} of {self.count:,} rows cannot be used; the first: {lines[0]} (all"
                f" are listed in {path}); correct them{leave}"
            )
        print(f"left out: {len(lines):,} of {self.count:,} rows, listed in {path}; the first: {lines[0]}")

    def _check_ids(self):
        if "id" not in self.place_of:
            return
        ids = np.array(self.ids, dtype=np.uint64)
        ids[list(self.faults)] = np.arange(len(self.faults), dtype=np.uint64)  # rows that are left out differ
        _, first, counts = np.unique(ids, return_index=True, return_counts=True)
        if (counts > 1).any():
            wrong = ids[first[counts > 1].min()]
            rows, names = np.flatnonzero(ids == wrong)[:2], []
            for row, (place, cells) in enumerate(self.table.rows(self.columns)):
                if row in rows:
                    names.append((place, self._id(row, cells)))
            raise UserError(
                f"{self.table.name}: {names[0][0]} and {names[1][0]} have the same id {names[0][1]!r} (ids that occur"
                f" more than once: {(counts > 1).sum():,}); give each sample its own, or leave out --id_column"
            )

    def _drop_faulty(self):
        for row in self.faults:
            self.labels.codes[row] = -1

    def _divide(self):
        plan, strata = self.plan, self.labels.strata()
        groups = np.array(self.groups, dtype=np.int64) if "group" in self.place_of else None
        if "split" in self.place_of:
            given = np.where(strata >= 0, np.array(self.given, dtype=np.int8), -1).astype(np.int8)
            split_of, drawn = complete_splits(given, strata, plan.shares, plan.seed, groups)
            how = "as given" + (f"; {' and '.join(drawn)} drawn from train, seed {plan.seed}" if drawn else "")
        else:
            split_of = draw_splits(strata, plan.shares, plan.seed, groups)
            how = f"drawn, seed {plan.seed}, by label" + (f" and {plan.group_column}" if groups is not None else "")
        self.how = how
        self._check_groups(split_of, groups)
        split_of = self._check_classes(split_of)
        for number, split in enumerate(SPLITS):
            if plan.shares[number] and not (split_of == number).any():
                raise UserError(
                    f"the split {split} has no sample: {self.table.name} has too few for --split"
                    f" {','.join(f'{share:g}' for share in plan.shares)}; give a share of 0 to do without this split"
                )
        return split_of

    def _check_groups(self, split_of, groups):
        if groups is None:
            return
        used = split_of >= 0
        pairs = np.unique(np.stack([groups[used], split_of[used]]), axis=1)
        names, counts = np.unique(pairs[0], return_counts=True)
        if (counts > 1).any():
            numbers = {number: name for name, number in self.group_numbers.items()}
            shared = numbers[int(names[counts > 1][0])]
            raise UserError(
                f"--group {self.plan.group_column}: the given splits share groups ({(counts > 1).sum():,}), for example"
                f" {shared!r}; correct the splits, or leave out --group"
            )

    def _check_classes(self, split_of):
        label = self.labels.label
        if label.kind == "number":
            return split_of
        counts = {split: self.labels.counts(split_of == number) for number, split in enumerate(SPLITS)}
        unknown = np.flatnonzero((counts["train"] == 0) & (sum(counts.values()) > 0))
        if not len(unknown):
            return split_of
        first = label.classes[unknown[0]]
        where = ", ".join(f"{split} {counts[split][unknown[0]]:,}" for split in SPLITS[1:] if counts[split][unknown[0]])
        text = f"{len(unknown)} of {len(label.classes)} classes are not in train, for example {first!r} ({where})"
        if label.kind == "classes":
            self.notes.append(f"{text}; a network cannot learn them")
            return split_of
        if not self.plan.skip_invalid:
            raise UserError(f"{text}; give another split, or leave such samples out with --skip_invalid")
        outside = np.isin(self.labels.strata(), unknown)
        self.notes.append(f"{text}: {outside.sum():,} samples were left out")
        return np.where(outside, -1, split_of).astype(np.int8)

    def _fit(self, split_of):
        tables = {name: reader for name, reader in self.readers.items() if isinstance(reader, TableReader)}
        if not tables:
            return
        for row, (_, cells) in self._rows("measuring"):
            if split_of[row] == 0:
                for name, reader in tables.items():
                    reader.fit(cells[self.cells_of[name]])
        for reader in tables.values():
            reader.finish()

    def _write(self, split_of):
        media = {name: reader.index() for name, reader in self.media.items()}
        modalities = {name: (reader.kind, reader.size) for name, reader in self.readers.items()}
        label, values = self.labels.label, self.labels.values()
        counts = [int((split_of == number).sum()) for number in range(len(SPLITS))]
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(SplitWriter(self.out, split, count, label, modalities))
                for split, count in zip(SPLITS, counts, strict=True)
                if count
            ]
            by_number = {SPLITS.index(writer.split): writer for writer in writers}
            for row, (_, cells) in self._rows("writing"):
                writer = by_number.get(int(split_of[row]))
                if writer:
                    inputs = {name: self._value(name, row, cells) for name in self.readers}
                    writer.add(self._id(row, cells), values[self.labels.codes[row]], inputs)
        _remove_stale(self.out, writers)
        return write_manifest(self.out, writers, label, modalities, self._facts(split_of), media)

    def _value(self, name, row, cells):
        return self.media[name].row(row) if name in self.media else self.readers[name].value(cells[self.cells_of[name]])

    def _facts(self, split_of):
        for name, reader in self.media.items():
            numbers = np.array(reader.of_sample, dtype=np.int64)
            used = (split_of >= 0) & (numbers >= 0)
            shared = np.unique(np.unique(np.stack([numbers[used], split_of[used]]), axis=1)[0], return_counts=True)[1]
            if count := int((shared > 1).sum()):
                self.notes.append(f"files of {name} in more than one split: {count:,} (--group keeps them together)")
        tables = {name: reader for name, reader in self.readers.items() if isinstance(reader, TableReader)}
        counts = {split: self.labels.counts(split_of == number) for number, split in enumerate(SPLITS)}
        return self.plan.facts | {
            "request": self.plan.request,
            "split_rule": self.how,
            "classes": {split: None if one is None else one.tolist() for split, one in counts.items()},
            "columns": {one.name: list(one.all_columns) for one in self.plan.inputs},
            "tables": {name: reader.facts | {"filled": reader.filled} for name, reader in tables.items()},
            "left_out": len(self.faults),
            "notes": self.notes,
        }


def _remove_stale(out, writers):
    """Remove the arrays of an earlier preparation with other inputs or splits."""
    kept = {name for writer in writers for name in writer.files}
    for split in SPLITS:
        for path in (out / split).glob("*"):
            if path.suffix in (".npy", ".bin") and f"{split}/{path.name}" not in kept:
                path.unlink()
        with contextlib.suppress(OSError):  # it is missing, or not empty
            (out / split).rmdir()


def _text(cell):
    return "" if cell is None else str(cell).strip()


def _key(text):
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")
