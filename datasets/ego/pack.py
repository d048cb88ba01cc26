"""Pack the frames of EgoGesture clips into two frame stores; an interrupted run keeps what it has packed."""

import contextlib
from functools import partial
from pathlib import Path

from datasets.ego.annotation import ANNOTATION_FILE, SUBSETS, Fault, read_annotation
from datasets.ego.frames import (
    FIELDS,
    META_FILE,
    PREPARED_FORMAT,
    PREPARED_VERSION,
    FrameFolders,
    PreparedFrames,
    decode,
)
from datasets.storage.frames import FrameStoreWriter
from datasets.storage.workers import map_tasks
from util.cli import UserError
from util.files import read_json, read_text, write_json, write_text
from util.hashes import file_hash
from util.progress import progress

FAULTS_FILE = "left_out.txt"
KILLED = "the process that read it was killed, perhaps because memory ran out (try --workers 1)"


def load_clip(frames, fields, clip):
    """Read the image files of a clip, and decode each one completely.

    Args:
        frames: A `FrameFolders`.
        fields: Which of ``rgb`` and ``depth``.
        clip: A `Clip`.

    Returns:
        dict field -> list of bytes, as they are on disk; if the clip is faulty, a str that says why.
    """
    images = {}
    for field in fields:
        images[field], size = [], None
        for position in range(clip.length):
            path = frames.path(clip, field, position)
            try:
                data = frames.jpeg(clip, field, position)
                actual = decode(data, field).size
            except (OSError, ValueError) as error:
                reason = (error.strerror or error) if isinstance(error, OSError) else error
                return f"{path} cannot be read ({reason})"
            size = size or actual
            if actual != size:
                return f"{path} has {actual[0]}x{actual[1]} pixels, the clip's first frame has {size[0]}x{size[1]}"
            images[field].append(data)
    return images


def check_clip(frames, clip):
    """Decode the images of a clip; returns what is wrong with them (str), empty if they are fine."""
    images = load_clip(frames, FIELDS, clip)
    return images if isinstance(images, str) else ""


def check_clips(frames, clips, workers, decode_all):
    """Check the frames of all clips.

    Args:
        frames: A `FrameFolders`.
        clips: list of `Clip`.
        workers: Number of processes.
        decode_all: Also decode every frame; otherwise frames only have to exist.

    Returns:
        list of `Fault`, in the order of the clips.
    """
    missing = [frames.fault(clip) for clip in progress(clips, "looking for frames", unit="clip")]
    reasons = {fault.name: fault.reason for fault in missing if fault is not None}
    if decode_all:
        complete = [clip for clip in clips if clip.name not in reasons]
        results = map_tasks(partial(check_clip, frames), complete, workers)
        for clip, reason in progress(results, "decoding frames", total=len(complete), unit="clip"):
            if reason != "":
                reasons[clip.name] = reason or KILLED
    return _in_order(clips, reasons)


def _in_order(clips, reasons):
    return [Fault(clip.name, reasons[clip.name]) for clip in clips if clip.name in reasons]


def finished_store(out, annotation, skip_invalid):
    """Open the prepared folder ``out`` if it is finished and was made from the same annotation, else None.

    A store that lacks some clips is accepted only with ``skip_invalid``; otherwise these clips are to be tried again.

    Raises:
        UserError: the store is damaged.
    """
    path = Path(out) / META_FILE
    meta = read_json(path) if path.is_file() else None
    if not isinstance(meta, dict) or meta.get("annotation_digest") != file_hash(annotation):
        return None
    return PreparedFrames(out) if skip_invalid or not meta.get("skipped") else None


def pack(folder, out, annotation, *, workers=1, skip_invalid=False, faults=()):
    """Copy the frames that the clips need, byte for byte, into ``out``; resumes an earlier run that was interrupted.

    Args:
        folder: The official folder.
        out: Folder for ``rgb``, ``depth``, a copy of the annotation and ``meta.json``.
        annotation: The annotation file.
        workers: Number of processes that read and check.
        skip_invalid: Finish even if clips have to be left out.
        faults: list of `Fault` of clips that were already found to be unusable.

    Returns:
        list of `Fault` of the clips that are left out.

    Raises:
        UserError: some clips cannot be used and ``skip_invalid`` is false (the others are packed nevertheless), no clip
            can be used, ``out`` was begun with another annotation, or it cannot be written.
    """
    folder, out = Path(folder), Path(out)
    frames, known = FrameFolders(folder), read_annotation(annotation)
    faults = [*faults, *known.faults]
    with contextlib.ExitStack() as stack:
        writers = {}
        for field in FIELDS:
            settings = {"data": "EgoGesture", "frames": field, "annotation": file_hash(annotation)}
            writers[field] = stack.enter_context(FrameStoreWriter(out / field, settings))
        total = len(known.clips) + len(faults)
        faults += _add_clips(out, frames, known.clips, writers, workers)
        _report(out, faults, total, skip_invalid)
        about = {"description": frames.description, "synthetic": frames.synthetic}
        for writer in writers.values():
            writer.finish(about)
    write_text(out / ANNOTATION_FILE, read_text(annotation))
    left_out = {fault.name for fault in faults}
    counts = {subset: sum(clip.name not in left_out for clip in known.subset(subset)) for subset in SUBSETS}
    head = {"format": PREPARED_FORMAT, "version": PREPARED_VERSION, **about, "clips": counts}
    source = {"annotation": ANNOTATION_FILE, "annotation_digest": file_hash(annotation)}
    write_json(out / META_FILE, head | source | {"skipped": [list(fault) for fault in faults]})
    return faults


def _add_clips(out, frames, clips, writers, workers):
    """Add the clips that are not stored yet; returns a list of `Fault`."""
    todo = [clip for clip in clips if any(clip.name not in writer.done for writer in writers.values())]
    reasons = dict(check_clips(frames, todo, workers, decode_all=False))
    complete = [clip for clip in todo if clip.name not in reasons]
    results = map_tasks(partial(load_clip, frames, FIELDS), complete, workers)
    with contextlib.closing(results):
        for clip, images in progress(results, "packing frames", total=len(complete), unit="clip"):
            if not isinstance(images, dict):
                reasons[clip.name] = images or KILLED
                continue
            # An earlier run may have finished without this clip.
            (out / META_FILE).unlink(missing_ok=True)
            for field, writer in writers.items():
                # If a run is killed between the two stores, a clip is in only one of them.
                if clip.name not in writer.done:
                    writer.add(clip.name, clip.length, range(clip.start, clip.end + 1), images[field])
    return _in_order(todo, reasons)


def _report(out, faults, total, skip_invalid):
    """Write the clips that are left out to a file; raise UserError about them unless ``skip_invalid`` is set."""
    path = out / FAULTS_FILE
    if not faults:
        path.unlink(missing_ok=True)
        return
    write_text(path, "".join(f"{fault}\n" for fault in faults))
    if len(faults) >= total:
        raise UserError(f"none of the {total:,} clips can be packed, first {faults[0]}; all reasons are in {path}")
    if not skip_invalid:
        raise UserError(
            f"{len(faults):,} of {total:,} clips cannot be packed, first {faults[0]}; all reasons are in {path}; the"
            " others are kept; fix these and run the same command again, or leave them out with --skip_invalid"
        )
