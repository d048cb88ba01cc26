"""Packing region features into a store, resumable, and converting those of other projects to ``.npz`` files."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from datasets.regions import grid, tsv
from datasets.regions.files import (
    ENDING,
    MAX_REGIONS,
    BadRegions,
    describe,
    extraction_of,
    list_region_files,
    read_regions,
    stored_shape,
    write_regions,
)
from datasets.regions.store import META_FILE, RegionStore, RegionStoreWriter, encode_regions
from datasets.regions.tsv import fill_from_tsv
from datasets.storage.workers import map_tasks
from util.cli import UserError
from util.files import read_json, write_text
from util.processors import usable_processors
from util.progress import progress

INVALID_FILE = "invalid.txt"
LISTED = 20
DIED = "makes its process die (perhaps out of memory)"
GIVE = (
    "give the folder of the features, or of folders of them: .npz files, .pth files of grid features, or .tsv files of"
    " bottom-up attention or LXMERT"
)


class Task(NamedTuple):
    """One file to pack: image id, path, dtype of the store, and the stamp of the file (size and time)."""

    id: int
    path: str
    dtype: str
    stamp: str


class Packed(NamedTuple):
    """A packed image (arguments of `RegionStoreWriter.add`), or the reason why there is none."""

    reason: str = ""
    blob: bytes = b""
    count: int = 0
    feature_size: int = 0
    size: tuple = (0.0, 0.0)


def pack_file(task):
    """Read and encode the file of a `Task`; returns a `Packed`."""
    try:
        if task.path.lower().endswith(grid.ENDING):
            regions = grid.read_grid(task.path, MAX_REGIONS)
        else:
            regions = read_regions(task.path)
        blob = encode_regions(regions, task.dtype)
    except BadRegions as reason:
        return Packed(str(reason))
    return Packed("", blob, len(regions.boxes), regions.features.shape[1], (regions.height, regions.width))


def pack_regions(tree, out, *, remedy, dtype="float16", workers=None, skip_invalid=False):
    """Write or complete the store of all region features in ``tree``.

    Args:
        tree: Folder of ``.npz`` or ``.pth`` files, or of folders of them; or a TSV file, or a folder of such.
        out: Folder of the store.
        remedy: Command that makes the store, for messages.
        dtype: ``float16`` or ``float32``.
        workers: Number of processes; None for one per processor.
        skip_invalid: Leave out faulty files instead of ending with an error.

    Returns:
        The finished `RegionStore`.

    Raises:
        UserError: there are no files, some are faulty (all of them are listed in ``invalid.txt``), files that are
            in the store have changed since, or the store cannot be written.
    """
    tree, out = Path(tree), Path(out)
    ending = form_of(tree)
    files = tsv.tsv_files(tree) if ending == tsv.ENDING else []
    tasks, invalid = ([], {}) if files else _tasks(tree, ending, dtype)
    facts = [f"{path.name} {_stamp(path)}" for path in files] or [f"{task.id} {task.stamp}" for task in tasks]
    request = {"files": _digest(facts), "dtype": dtype, "skip_invalid": skip_invalid}
    if (out / META_FILE).is_file() and request == _request_of(out):
        print(f"already up to date: {out}")
        return RegionStore(out, remedy)
    with RegionStoreWriter(out, dtype) as writer:
        if files:
            ids = fill_from_tsv(writer, files, invalid)
        else:
            ids = _fill(writer, tasks, invalid, workers or usable_processors())
        check_invalid(out, invalid, skip_invalid)
        if not ids:
            raise UserError(f"{tree} has no usable file (see {out / INVALID_FILE})")
        writer.finish(ids, _about(tree, ending) | {"request": request, "skipped": dict(sorted(invalid.items()))})
    print(f"wrote {out}")
    return RegionStore(out, remedy)


def form_of(tree, flag="--features"):
    """How the features in ``tree``, which came with ``flag``, are stored: the ending ``.npz``, ``.pth`` or ``.tsv``.

    Raises:
        UserError: ``tree`` does not exist, or has no features.
    """
    if not tree.exists():
        raise UserError(f"{flag} {tree} does not exist; {GIVE}")
    for ending in (ENDING, grid.ENDING) if tree.is_dir() else ():
        if len(list_region_files(tree, ending).ids):
            return ending
    if not tsv.tsv_files(tree):
        raise UserError(f"{flag} {tree} has no files like COCO_train2014_000000000009.jpg.npz; {GIVE}")
    return tsv.ENDING


def _about(tree, ending):
    """What ``meta.json`` says of the features."""
    if ending == grid.ENDING:
        return {"description": f"grid features of {tree.name}", "extraction": None, "boxes": grid.BOXES}
    extraction = extraction_of(tree) if ending == ENDING else None
    return {"description": describe(tree, extraction), "extraction": extraction}


def _request_of(out):
    meta = read_json(out / META_FILE)
    return meta.get("request") if isinstance(meta, dict) else None


def _tasks(tree, ending, dtype):
    """A `Task` per file, and a dict of file name -> reason of those that cannot be one."""
    files, tasks = list_region_files(tree, ending), []
    for image_id, name in zip(files.ids.tolist(), files.paths.tolist(), strict=True):
        path = tree / os.fsdecode(name)
        tasks.append(Task(image_id, str(path), dtype, _stamp(path)))
    return tasks, {str(tree / name): "has no image id in its name" for name in files.others}


def _stamp(path):
    # A broken link is reported when the file is read.
    status = path.stat() if path.exists() else path.lstat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(facts):
    return hashlib.blake2b(os.fsencode("\n".join(facts)), digest_size=8).hexdigest()


def _fill(writer, tasks, invalid, workers):
    """Add the files that the store does not have yet; returns all ids. Faults go into the dict ``invalid``."""
    stamps = writer.stamps()
    for task in tasks:
        if stamps.get(task.id, task.stamp) != task.stamp:
            raise UserError(f"{task.path} has changed since it was packed; delete {writer.folder} and pack again")
    left = [task for task in tasks if task.id not in stamps]
    if len(left) < len(tasks):
        print(f"{len(tasks) - len(left):,} images are done already, {len(left):,} to go")
    for task, packed in progress(map_tasks(pack_file, left, workers), "packing", total=len(left), unit="image"):
        if packed is None or packed.reason:
            invalid[task.path] = DIED if packed is None else packed.reason
            continue
        try:
            writer.add(task.id, task.stamp, *packed[1:])
        except BadRegions as reason:
            invalid[task.path] = str(reason)
    stored = writer.stamps()
    return [task.id for task in tasks if task.id in stored]


def check_invalid(out, invalid, skip_invalid):
    """List what is invalid in ``invalid.txt``; raise an error unless ``skip_invalid`` is set."""
    path = out / INVALID_FILE
    path.unlink(missing_ok=True)
    if not invalid:
        return
    write_text(path, "".join(f"{name}\t{reason}\n" for name, reason in sorted(invalid.items())))
    name, reason = min(invalid.items())
    count = f"{len(invalid):,} files are" if len(invalid) > 1 else "1 file is"
    if not skip_invalid:
        raise UserError(
            f"{count} invalid, first {name}: {reason} (all of them: {path}); everything else is packed and kept: fix"
            " them, or add --skip_invalid to leave them out, and run the same command again"
        )
    print(f"note: {count} invalid and left out (all of them: {path}):")
    for name, reason in sorted(invalid.items())[:LISTED]:
        print(f"  {name}: {reason}")


def convert(sources, out, *, skip_invalid=False):
    """Write ``<image id>.npz`` files; complete ones that exist already stay.

    Args:
        sources: Paths of TSV files, or of folders of TSV or ``.pth`` files.
        out: Folder of the ``.npz`` files.
        skip_invalid: Leave out faulty images instead of ending with an error.

    Returns:
        Number of images.

    Raises:
        UserError: a source has no features or is faulty, or ``out`` cannot be written.
    """
    out, invalid, ids = Path(out), {}, set()
    forms = {Path(source): form_of(Path(source), "--from_tsv") for source in sources}
    if ENDING in forms.values():
        source = next(source for source, form in forms.items() if form == ENDING)
        raise UserError(f"--from_tsv {source} holds .npz files already; give them to the prepare script as they are")
    files = [path for source, form in forms.items() if form == tsv.ENDING for path in tsv.tsv_files(source)]
    if files:
        writer = _TreeWriter(out)
        writer.since = max(map(os.path.getmtime, files))
        ids.update(fill_from_tsv(writer, files, invalid))
    for source in (source for source, form in forms.items() if form == grid.ENDING):
        ids.update(_fill_from_grids(source, out, invalid))
    check_invalid(out, invalid, skip_invalid)
    if not ids:
        raise UserError(f"{sources[0]} has no usable features")
    print(f"wrote {out}: {len(ids):,} images")
    return len(ids)


class _TreeWriter:
    """What `fill_from_tsv` adds images to: a folder of files.

    Args:
        folder: The folder.

    Attributes:
        since: Time in seconds; files that are older than their source are written again.
    """

    def __init__(self, folder):
        self.folder, self.since, self._width = folder, 0.0, None

    def stamps(self):
        """Always empty: a file does not record which line it was made from, so every line is decoded again."""
        return {}

    def add_regions(self, image_id, stamp, regions):
        """Write the file of one image, unless it is there."""
        width = regions.features.shape[1]
        self._width = self._width or width
        if width != self._width:
            raise BadRegions(f"has features of width {width}, the other images {self._width}")
        path = self.folder / f"{image_id}{ENDING}"
        if stored_shape(path) != regions.features.shape or os.path.getmtime(path) < self.since:
            write_regions(path, regions.features, regions.boxes, regions.height, regions.width)


def _fill_from_grids(source, out, invalid):
    """Write the files of the ``.pth`` files in a folder; returns their ids."""
    files, ids, writer = list_region_files(source, grid.ENDING), [], _TreeWriter(out)
    invalid |= {str(source / name): "has no image id in its name" for name in files.others}
    pairs = zip(files.ids.tolist(), files.paths.tolist(), strict=True)
    for image_id, name in progress(pairs, "converting", total=len(files.ids), unit="image"):
        path = source / os.fsdecode(name)
        try:
            regions = grid.read_grid(path, MAX_REGIONS)
            writer.since = os.path.getmtime(path)
            writer.add_regions(image_id, "", regions)
            ids.append(image_id)
        except BadRegions as reason:
            invalid[str(path)] = str(reason)
    return ids
