"""Packing a tree of ``.npz`` region features into a store, in several processes, resumable."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from datasets.region_files import BadRegions, describe, extraction_of, list_region_files, read_regions
from datasets.region_store import META_FILE, RegionStore, RegionStoreWriter, encode_regions
from datasets.worker_pool import map_tasks
from util.cli import UserError
from util.files import read_json, write_text
from util.processors import usable_processors
from util.progress import progress

INVALID_FILE = "invalid.txt"
LISTED = 20
DIED = "makes its process die (out of memory?)"


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
        regions = read_regions(task.path)
        blob = encode_regions(regions, task.dtype)
    except BadRegions as reason:
        return Packed(str(reason))
    return Packed("", blob, len(regions.boxes), regions.features.shape[1], (regions.height, regions.width))


def pack_regions(tree, out, *, remedy, dtype="float16", workers=None, skip_invalid=False):
    """Write or complete the store of all ``.npz`` files of ``tree``.

    Args:
        tree: Folder of the files, or of folders of them.
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
    tasks, invalid = _tasks(tree, dtype)
    request = {"files": _digest(tasks), "dtype": dtype, "skip_invalid": skip_invalid}
    if (out / META_FILE).is_file() and request == _request_of(out):
        print(f"already up to date: {out}")
        return RegionStore(out, remedy)
    with RegionStoreWriter(out, dtype) as writer:
        _fill(writer, tasks, invalid, workers or usable_processors())
        _check_invalid(out, invalid, skip_invalid)
        stored = writer.stamps()
        ids = [task.id for task in tasks if task.id in stored]
        if not ids:
            raise UserError(f"{tree} has no usable file (see {out / INVALID_FILE})")
        extraction = extraction_of(tree)
        meta = {"description": describe(tree, extraction), "extraction": extraction, "request": request}
        writer.finish(ids, meta | {"skipped": dict(sorted(invalid.items()))})
    print(f"wrote {out}")
    return RegionStore(out, remedy)


def _request_of(out):
    meta = read_json(out / META_FILE)
    return meta.get("request") if isinstance(meta, dict) else None


def _tasks(tree, dtype):
    """A `Task` per file, and a dict of file name -> reason of those that cannot be one."""
    if not tree.is_dir():
        raise UserError(f"--features {tree} is no folder; give the folder of the .npz features, or of folders of them")
    files = list_region_files(tree)
    if not len(files.ids):
        raise UserError(
            f"--features {tree} has no files like COCO_train2014_000000000009.jpg.npz; is it the right folder?"
        )
    tasks = []
    for image_id, name in zip(files.ids.tolist(), files.paths.tolist(), strict=True):
        path = tree / os.fsdecode(name)
        # A link to nowhere is found out when the file is read.
        status = path.stat() if path.exists() else path.lstat()
        tasks.append(Task(image_id, str(path), dtype, f"{status.st_size} {status.st_mtime_ns}"))
    return tasks, {str(tree / name): "has no image id in its name" for name in files.others}


def _digest(tasks):
    lines = "\n".join(f"{task.id} {task.stamp}" for task in tasks)
    return hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()


def _fill(writer, tasks, invalid, workers):
    """Add the files that the store does not have yet; faults go into the dict ``invalid``."""
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


def _check_invalid(out, invalid, skip_invalid):
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
