"""Decides which film of ``multimodal_imdb.hdf5`` belongs to train, dev and test, and in which order."""

import h5py
import numpy as np

from datasets.mmimdb import OFFICIAL_COUNTS, SPLITS
from util.cli import UserError
from util.files import read_json

SPLIT_NAMES = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"}
FILES_BESIDE = ("split.json", "mmimdb_split.json")
HOW_TO_GIVE = 'give one with --split split.json: {"train": [ids], "dev": [ids], "test": [ids]}'


def resolve_split(source, split_file=None):
    """Find the split: the given file, the split attribute, a JSON file beside the data, or the official order.

    Args:
        source: An `OfficialFile`.
        split_file: JSON file with lists of ids; a film in neither train nor dev counts as test.

    Returns:
        Per split the int64 array of film rows in order, and a str that says where the split came from.

    Raises:
        UserError: there is no usable split, or 25,959 films are not split 15,552 / 2,608 / 7,799
            although no file was given explicitly.
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
        found, expected = (" / ".join(f"{value:,}" for value in each.values()) for each in (counts, OFFICIAL_COUNTS))
        text = f"the split from {origin} has {found} films (train / dev / test), the official one {expected}"
        if not explicit:
            raise UserError(f"{text}; if you want this, {HOW_TO_GIVE}")
        print(f"note: {text}")


def split_from_json(path, ids):
    """Rows by the id lists of a JSON file; listed films in the order of the list, then the unlisted as test."""
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
    found = set()
    for key, value in content.items() if isinstance(content, dict) else ():
        name = SPLIT_NAMES.get(key)
        if name is not None:
            if name in found or not isinstance(value, list) or not all(isinstance(film, str) for film in value):
                raise UserError(f"{path}: {key!r} is not one list of id strings; expected lists train, dev, test")
            found.add(name)
            lists[name] = value
    for name in ("train", "dev"):
        if name not in found:
            raise UserError(f'{path} has no list {name!r}; expected {{"train": [ids], "dev": [ids], "test": [ids]}}')
    return lists


def split_from_attribute(source):
    """Rows by the attribute ``split`` in the form of the Fuel library: one record per split and field."""
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
            raise UserError(f"{source.path}: the attribute split points at no list of rows; {HOW_TO_GIVE}")
        return rows.astype(np.int64)
    start, stop = int(record["start"]), int(record["stop"])
    if min(start, stop) < 0 or max(start, stop) > source.count:
        raise UserError(f"{source.path}: the attribute split names rows outside 0..{source.count - 1}; {HOW_TO_GIVE}")
    return np.arange(start, stop, dtype=np.int64)
