"""Check MM-IMDB: the official HDF5 file, the originals' tree, or a prepared store."""

import contextlib
import io
from functools import partial

import numpy as np

from datasets.checks import Seen, folder_or_file
from datasets.mmimdb.dataset import (
    IMAGE_SHAPE,
    META_FILE,
    NUM_GENRES,
    OFFICIAL_COUNTS,
    SPLITS,
    StoredMMIMDB,
    open_mmimdb,
    prepare_command,
)
from util.cli import UserError
from util.hashes import short_hash

HDF5 = "multimodal_imdb.hdf5"
SOURCE = "BM-NAS paper; docs/papers.md"
WITHOUT = "films without any genre"


def check(report, data):
    """Check the data in ``data``, a folder or the HDF5 file, and add the findings to a `datasets.checks.Report`."""
    path = folder_or_file(report, data, f"make the store with `{prepare_command(data)}`")
    if path is None:
        return
    if path.is_file() or (not (path / META_FILE).is_file() and (path / HDF5).is_file()):
        _check_hdf5(report, path if path.is_file() else path / HDF5)
        return
    opened = {}
    for split in SPLITS:
        with report.catching(path):
            opened[split] = open_mmimdb(path, split)
    if not opened:
        del report.findings[1:]  # all three splits have the same finding
        return
    first = next(iter(opened.values()))
    official = _is_official(first.description, first.synthetic)
    report.about.append(f"{path}: {first.description}{' (synthetic)' if first.synthetic else ''}")
    for split, films in opened.items():
        _count(report, split, len(films), official)
        report.read(partial(_read_films, films), range(len(films)), what=f"films of {split}", place=path, unit="film")
    _check_form(report, path, first.image_shape, first.num_labels, official)
    tables = {split: _tables(report, films) for split, films in opened.items()}
    for split, table in tables.items():
        if table and isinstance(opened[split], StoredMMIMDB):
            _check_rows(report, path, split, *table[:3])
    _check_tables(report, path, {split: table for split, table in tables.items() if table}, first.label_names)


def _is_official(description, synthetic):
    return not synthetic and description.startswith("MM-IMDB")


def _count(report, split, count, official):
    expected, source = (OFFICIAL_COUNTS[split], SOURCE) if official else (None, "")
    report.count(split, count, expected, source, "prepare the official file again, with its own split")


def _check_form(report, place, shape, genres, official):
    if official and tuple(shape) != IMAGE_SHAPE:
        report.add("warning", place, f"posters are {shape}, the official ones {IMAGE_SHAPE}", f"fetch {HDF5} again")
    if official and genres != NUM_GENRES:
        report.add("warning", place, f"{genres} genres, the task has {NUM_GENRES}", "prepare again")


def _read_films(films, rows):
    """Read posters, plots and genres of some films; returns a `Seen`."""
    seen = Seen()
    for row in rows:
        name = f"{films.split} {row}" if films.ids is None else f"{films.split} {films.ids[row]}"
        try:
            batch = films.read([row])
        except UserError as error:
            seen.fault("error", "unreadable films", name, str(error))
            continue
        seen.values("posters", name, batch["image"].numpy())
        if not isinstance(films, StoredMMIMDB):  # in a store, plots and genres of all films are checked
            _look(seen, name, batch["text"].numpy(), batch["label"].numpy())
    return seen


def _look(seen, name, text, label):
    seen.values("plot vectors", name, text)
    seen.values("genres", name, label, constant=None)
    if not ((label == 0) | (label == 1)).all():
        seen.fault("error", "genres other than 0 and 1", name)
    elif not label.any():
        seen.fault("warning", WITHOUT, name)


def _check_rows(report, place, split, ids, texts, labels):
    """Add findings about plot vectors and genres of all films of a split."""
    seen = Seen()
    for name, text, label in zip(ids.tolist(), texts, labels, strict=True):
        _look(seen, f"{split} {name}", text, label)
    report.take(place, seen, f"plots and genres of {split}: read {len(texts):,} of {len(texts):,}")


def _tables(report, films):
    """(ids or None, texts, labels, function row -> poster) of all films; None for a tree that is only read in part."""
    if isinstance(films, StoredMMIMDB):
        stored = films.read(range(len(films)), only=("text",))
        return films.ids, stored["text"].numpy(), stored["label"].numpy(), partial(_poster, films)
    if not report.full:
        return None
    with report.catching(films.folder):
        stored = films.read(range(len(films)), only=("text",))
        return None, stored["text"].numpy(), stored["label"].numpy(), partial(_poster, films)
    return None


def _poster(films, row):
    return films.read([row], only=("image",))["image"].numpy()


def _check_tables(report, place, tables, genres):
    """Add findings about films in two splits, by id and by content, and about genres that train lacks."""
    ids = {split: {name: name for name in table[0].tolist()} for split, table in tables.items() if table[0] is not None}
    report.repeats(place, ids, "films (by id)", fix="prepare the data again with the official split")
    texts = {split: [short_hash(row) for row in table[1]] for split, table in tables.items()}
    known = [set(digests) for digests in texts.values()]
    twice = {digest for digests in known for digest in digests if sum(digest in other for other in known) > 1}
    same = {}
    for split, (names, _, _, poster) in tables.items():
        rows = [row for row, digest in enumerate(texts[split]) if digest in twice]
        named = range(len(texts[split])) if names is None else names
        same[split] = {(texts[split][row], short_hash(poster(row))): named[row] for row in rows}
    report.repeats(place, same, "films (by plot vector and poster)", "warning")
    films = sum((table[2] > 0).sum(axis=0) for table in tables.values())
    counted = [f"{name} {count:,}" for name, count in zip(genres, np.atleast_1d(films).tolist(), strict=False)]
    report.about.append(f"films per genre: {', '.join(counted)}")
    if "train" in tables:
        never = np.flatnonzero(~(tables["train"][2] > 0).any(axis=0)).tolist()
        if never:
            name = genres[never[0]] if never[0] < len(genres) else never[0]
            text = f"{len(never)} genres have no film in train, first {name}"
            report.add("warning", place, text, "prepare the official file again")


def _check_hdf5(report, path):
    """Check the official file, before it is prepared."""
    with contextlib.redirect_stdout(io.StringIO()) as said, report.catching(path):
        from datasets.mmimdb.official import OfficialFile

        with OfficialFile(path) as source:
            about = str(source.attributes.get("description", "MM-IMDB"))
            official = _is_official(about, bool(source.attributes.get("synthetic")))
            report.about.append(f"{path}: {about}; not prepared yet (`{prepare_command(path.parent / 'dataset')}`)")
            _check_fields(report, source, official)
            notes = [line for line in said.getvalue().splitlines() if official and line.startswith("note: ")]
            for line in notes:
                report.add("note", path, line.removeprefix("note: "))


def _check_fields(report, source, official):
    from datasets.mmimdb.official import resolve_split

    order, _ = resolve_split(source)
    for split in SPLITS:
        _count(report, split, len(order[split]), official)
    _check_form(report, source.path, source.image_shape, source.num_labels, official)
    (texts, _), (labels, bad), seen = source.read_texts(), source.read_labels(), Seen()
    for row in np.flatnonzero(bad).tolist():
        seen.fault("error", "genres other than 0 and 1", source.ids[row])
    report.faults(source.path, seen.faults)
    look = partial(_read_posters, source)
    report.read(look, range(source.count), what="posters", place=source.path, unit="poster", alone=True)
    for split, rows in order.items():
        rows = rows[~bad[rows]]
        _check_rows(report, source.path, split, source.ids[rows], texts[rows], labels[rows])
    tables = {
        split: (source.ids[rows], texts[rows], labels[rows], partial(_poster_of, source, rows))
        for split, rows in order.items()
    }
    _check_tables(report, source.path, tables, source.label_names)


def _read_posters(source, rows):
    seen = Seen()
    for row in rows:
        seen.values("posters", source.ids[row], source.read_image(row))
    return seen


def _poster_of(source, rows, row):
    return source.read_image(rows[row])
