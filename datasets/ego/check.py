"""Check EgoGesture: the official folders with an annotation, or a prepared store."""

import re
from functools import partial

import numpy as np

from datasets.checks import Seen, folder_or_file
from datasets.ego.annotation import GESTURES, OFFICIAL_COUNTS, SUBJECTS, SUBSETS, read_annotation
from datasets.ego.dataset import find_data
from datasets.ego.frames import FIELDS, PreparedFrames, decode, pixels, prepare_command

SOURCE = "BM-NAS paper, agrees with the annotation; docs/papers.md"
SUBJECT = re.compile(r"Subject0*(\d+)(?:/|$)")
AGAIN = "make the annotation again from the official label files (datasets/prepare_ego.py --labels)"


def check(report, data, annotation=None):
    """Check the data in a folder, and add the findings to a `datasets.checks.Report`.

    Args:
        report: The `Report`.
        data: The folder.
        annotation: The annotation file; None for the one in ``data``.
    """
    folder, found = folder_or_file(report, data, f"make them with `{prepare_command(data)}`"), None
    if folder is not None:
        with report.catching(folder):
            found = find_data(folder, annotation)
    known = None
    if found is not None:
        with report.catching(found[1]):
            known = read_annotation(found[1])
    if known is None:
        return
    frames, path = found
    report.about.append(f"{folder}: {frames.description}{' (synthetic)' if frames.synthetic else ''}")
    left_out = {fault.name for fault in frames.known_faults()}
    faults = [fault for fault in known.faults if fault.name not in left_out]
    _report_faults(report, path, "clips with a faulty entry", faults, AGAIN)
    for fault in frames.known_faults():
        report.add("note", folder, f"{fault} (left out by the preparation)")
    _count(report, path, frames, known)
    clips = [clip for clip in known.clips if clip.name not in left_out]
    clips = _check_frames(report, folder, frames, clips)
    report.read(partial(_read, frames, report.full), clips, what="clips", place=folder, unit="clip")
    contents = frames.contents(clips)
    if contents is not None:
        parts = {
            subset: {key: clip.name for key, clip in zip(contents, clips, strict=True) if clip.subset == subset}
            for subset in SUBSETS
        }
        report.repeats(folder, parts, "clips (by content)", fix="the data set is split by person: prepare it again")


def _report_faults(report, place, kind, faults, fix):
    report.faults(place, [("error", kind, fault.name, fault.reason) for fault in faults], fix)


def _count(report, path, frames, known):
    for subset in SUBSETS:
        count = len(known.subset(subset))
        official, source = (None, "") if frames.synthetic else (OFFICIAL_COUNTS[subset], SOURCE)
        report.count(subset, count, official, source, AGAIN)
        if not count:
            report.add("error", path, f"{subset} has no clip", AGAIN)
    if not frames.synthetic and len(known.label_names) != len(GESTURES):
        report.add("warning", path, f"{len(known.label_names)} labels, the official number is {len(GESTURES)}", AGAIN)
    used = {clip.label for clip in known.subset("training")}
    if never := [name for number, name in enumerate(known.label_names) if number not in used]:
        report.add("warning", path, f"{len(never)} labels have no training clip, first {never[0]}", AGAIN)
    persons, seen = {subset: {} for subset in SUBSETS}, Seen()
    home = {subject: subset for subset, subjects in SUBJECTS.items() for subject in subjects}
    for clip in known.clips:
        match = SUBJECT.search(clip.folder)
        subject = int(match[1]) if match else None
        if subject is not None:
            persons[clip.subset].setdefault(subject, f"Subject{subject:02d}")
            if home.get(subject) != clip.subset and not frames.synthetic:
                text = f"is in {clip.subset}, officially in {home.get(subject, 'no subset')}"
                seen.fault("warning", "clips that are officially in another subset", clip.name, text)
    report.faults(path, seen.faults, AGAIN)
    report.repeats(path, persons, "persons", fix=AGAIN)


def _check_frames(report, folder, frames, clips):
    """The clips whose frames exist; the others become findings. Without ``full``, only some clips are looked for."""
    fix = f"fetch them, or leave such clips out with `{prepare_command('NEW_DIR')} --skip_invalid`"
    missing = frames.lacks(dict.fromkeys(clip.folder for clip in clips))
    faults = [("error", "missing folders", place, f"has no {gone}") for place, gone in missing.items()]
    report.faults(folder, faults, fix)
    clips = [clip for clip in clips if clip.folder not in missing]
    looked = clips if isinstance(frames, PreparedFrames) else report.some(clips)
    faults = [fault for fault in map(frames.fault, looked) if fault is not None]
    _report_faults(report, folder, "clips with missing frames", faults, fix)
    bad = {fault.name for fault in faults}
    return [clip for clip in clips if clip.name not in bad]


def _read(frames, full, clips):
    """Read the first, middle and last frame of some clips, or with ``full`` all frames; returns a `Seen`."""
    seen = Seen()
    for clip in clips:
        if damaged := frames.damage(clip):
            seen.fault("error", f"damaged {damaged} frames", clip.name, f"{damaged} frames have changed: pack again")
            continue
        wanted = range(clip.length) if full else sorted({0, clip.length // 2, clip.length - 1})
        for field in FIELDS:
            images = _decoded(seen, frames, clip, field, wanted)
            if images and len({image.shape for image in images}) > 1:
                seen.fault("error", f"{field} frames of different sizes", clip.name)
            elif images:
                seen.values(f"{field} frames", f"{clip.name} {field}", np.stack(images))
    return seen


def _decoded(seen, frames, clip, field, positions):
    images = []
    for position in positions:
        try:
            images.append(pixels(decode(frames.jpeg(clip, field, position), field)))
        except (OSError, ValueError) as error:
            reason = (error.strerror or error) if isinstance(error, OSError) else error
            where = frames.name(clip, field, position)
            seen.fault("error", f"unreadable {field} frames", clip.name, f"{where} cannot be read ({reason})")
            return []
    return images
