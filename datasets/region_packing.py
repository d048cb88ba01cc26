"""Packing region features into a store, resumable: a tree of ``.npz`` or ``.pth`` files, or TSV files."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from datasets import grid_files, region_files, region_tsv
from datasets.extractor_files import MOST_REGIONS
from datasets.region_files import BadRegions, describe, extraction_of, list_region_files, read_regions
from datasets.region_store import META_FILE, RegionStore, RegionStoreWriter, encode_regions
from datasets.region_tsv_packing import fill_from_tsv
from datasets.worker_pool import map_tasks
from util.cli import UserError
from util.files import read_json, write_text
from util.processors import usable_processors
from util.progress import progress

INVALID_FILE = "invalid.txt"
LISTED = 20
DIED = "makes its process die (out of memory?)"
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
        if task.path.lower().endswith(grid_files.ENDING):
            regions = grid_files.read_grid(task.path, MOST_REGIONS)
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
    files = region_tsv.tsv_files(tree) if ending == region_tsv.ENDING else []
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
    for ending in (region_files.ENDING, grid_files.ENDING) if tree.is_dir() else ():
        if len(list_region_files(tree, ending).ids):
            return ending
    if not region_tsv.tsv_files(tree):
        raise UserError(f"{flag} {tree} has no files like COCO_train2014_000000000009.jpg.npz; {GIVE}")
    return region_tsv.ENDING


def _about(tree, ending):
    """What ``meta.json`` says of the features."""
    if ending == grid_files.ENDING:
        return {"description": f"grid features of {tree.name}", "extraction": None, "boxes": grid_files.BOXES}
    extraction = extraction_of(tree) if ending == region_files.ENDING else None
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
    # A link to nowhere is found out when the file is read.
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
        print(f"{len(tasks) - len(left):,} images are there already, {len(left):,} to go")
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
    """List what is invalid in ``invalid.txt``; stop there unless it is to be left out."""
    path = out / INVALID_FILE
    path.unlink(missing_ok=True)
    if not invalid:
        return
    write_text(path, "".join(f"{name}\t{reason}\n" for name, reason in sorted(invalid.items())))
    name, reason = min(invalid.items())
    count = f"{len(invalid):,} files are" if len(invalid) > 1 else "1 file is"
    if not skip_invalid:
        raise UserError(
            f"{count} invalid, first {name}: {reason} (all of them: {path}); everything else is packed and kept: mend"
            " them, or add --skip_invalid to leave them out, and run the same command again"
        )
    print(f"note: {count} invalid and left out (all of them: {path}):")
    for name, reason in sorted(invalid.items())[:LISTED]:
        print(f"  {name}: {reason}")
