"""Pack region features into a store, resumably, and convert features of other projects to ``.npz`` files."""

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
from datasets.storage.invalid import INVALID_FILE, report_invalid
from datasets.storage.workers import map_tasks
from util.cli import UserError
from util.files import read_json
from util.processors import usable_processors
from util.progress import progress

DIED = "crashes its process (perhaps out of memory)"
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
    """Write the store of all region features in ``tree``, or resume one that was interrupted.

    Args:
        tree: Folder of ``.npz`` or ``.pth`` files, or of folders of them; or a TSV file, or a folder of TSV files.
        out: Folder of the store.
        remedy: Command that makes the store, for messages.
        dtype: dtype of the stored features, ``float16`` or ``float32``.
        workers: Number of processes; None for one per processor.
        skip_invalid: Leave out faulty files instead of ending with an error.

    Returns:
        The finished `RegionStore`.

    Raises:
        UserError: there are no files, some are faulty (all are listed in ``invalid.txt``), files have changed since
            they were packed, or the store cannot be written.
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
        report_invalid(out, invalid, skip_invalid)
        if not ids:
            raise UserError(f"{tree} has no usable file (see {out / INVALID_FILE})")
        writer.finish(ids, _about(tree, ending) | {"request": request, "skipped": dict(sorted(invalid.items()))})
    print(f"wrote {out}")
    return RegionStore(out, remedy)


def form_of(tree, flag="--features"):
    """Ending of the feature files in ``tree``: ``.npz``, ``.pth`` or ``.tsv``.

    Raises:
        UserError: ``tree`` does not exist, or has no features; the message names it as the value of ``flag``.
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
    """dict of facts about the features for ``meta.json``."""
    if ending == grid.ENDING:
        return {"description": f"grid features of {tree.name}", "extraction": None, "boxes": grid.BOXES}
    extraction = extraction_of(tree) if ending == ENDING else None
    return {"description": describe(tree, extraction), "extraction": extraction}


def _request_of(out):
    meta = read_json(out / META_FILE)
    return meta.get("request") if isinstance(meta, dict) else None


def _tasks(tree, ending, dtype):
    """(list of one `Task` per file, dict file name -> reason of the files that cannot be packed)."""
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
    """Add the files that the store does not have yet, and their faults to ``invalid``; returns the ids in the store."""
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


def convert(sources, out, *, skip_invalid=False):
    """Convert features to ``<image id>.npz`` files; files that already exist and are complete are kept.

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
    report_invalid(out, invalid, skip_invalid)
    if not ids:
        raise UserError(f"{sources[0]} has no usable features")
    print(f"wrote {out}: {len(ids):,} images")
    return len(ids)


class _TreeWriter:
    """Writes one ``.npz`` file per image; `fill_from_tsv` can use it in place of a `RegionStoreWriter`.

    Args:
        folder: The folder of the files.

    Attributes:
        since: Modification time of the source in seconds; older files are written again.
    """

    def __init__(self, folder):
        self.folder, self.since, self._width = folder, 0.0, None

    def stamps(self):
        """Always empty: a file does not record which line it was made from, so every line is decoded again."""
        return {}

    def add_regions(self, image_id, stamp, regions):
        """Write the file of one image, unless a complete and recent one exists."""
        width = regions.features.shape[1]
        self._width = self._width or width
        if width != self._width:
            raise BadRegions(f"has features of width {width}, the other images have {self._width}")
        path = self.folder / f"{image_id}{ENDING}"
        if stored_shape(path) != regions.features.shape or os.path.getmtime(path) < self.since:
            write_regions(path, regions.features, regions.boxes, regions.height, regions.width)


def _fill_from_grids(source, out, invalid):
    """Convert the ``.pth`` files in a folder; returns the list of their image ids."""
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
