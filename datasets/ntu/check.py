"""Check NTU RGB+D 60: the raw files, the originals' tree, or a prepared store."""

from collections import Counter
from functools import partial

import numpy as np

from datasets.checks import Seen, folder_or_file
from datasets.ntu.dataset import open_source
from datasets.ntu.names import NUM_ACTIONS, OFFICIAL_COUNT, SUBJECTS, BadSample, missing_skeletons, parse_id
from datasets.ntu.store import PREPARE
from datasets.ntu.tree import SKELETON_FOLDER, TreeSource, find_video_folder
from datasets.ntu.video import slots
from datasets.storage.frames import META_FILE
from util.cli import UserError, quoted

RAW_FOLDER = "nturgb+d_rgb"
SPLITS = ("train", "dev", "test")
SOURCE = "all samples; from the makers of the data, as in prepare_ntu.py"
# Distance from the camera in metres beyond which its depth sensor sees nothing.
FAR = 20.0


def check(report, data):
    """Check the data in the folder ``data``, and add the findings to a `datasets.checks.Report`."""
    folder = folder_or_file(
        report, data, f"make them with `{PREPARE} --skeletons {SKELETON_FOLDER} --out {quoted(data)}`"
    )
    source = None
    if folder is not None:
        with report.catching(folder):
            source = _open(report, folder)
    if source is None:
        return
    report.about.append(f"{folder}: {source.description}{' (synthetic)' if source.synthetic else ''}")
    _check_pairs(report, source)
    names = {}
    with report.catching(folder):
        names = {name: parse_id(name) for name in _known(report, source)}
    rows = {name: row for row, name in enumerate(source.names) if name in names and name not in missing_skeletons()}
    _count(report, source, names, list(rows))
    report.read(partial(_read, source), list(rows.values()), what="samples", place=folder, unit="sample")
    with report.catching(folder):
        parts = {split: {} for split in SPLITS}
        for name, content in zip(source.names, source.contents(), strict=True):
            for split in SPLITS if name in names else ():
                if names[name].subject in SUBJECTS[split]:
                    parts[split][content] = name
        report.repeats(folder, parts, "samples (by content)", fix="fetch the copies again: their names differ")


def _open(report, folder):
    raw = folder / RAW_FOLDER
    prepared = (folder / META_FILE).is_file() or find_video_folder(folder)
    if prepared or not raw.is_dir() or not (folder / SKELETON_FOLDER).is_dir():
        return open_source(folder)
    command = (
        f"python datasets/prepare_ntu.py --dir {quoted(raw)} --skeletons {quoted(folder / SKELETON_FOLDER)} --out OUT"
    )
    report.about.append(f"{raw}: raw videos, not prepared yet (`{command}`)")
    return TreeSource(folder, raw)


def _known(report, source):
    """List of the sample names that are ids of the data set; the others become findings."""
    seen, known = Seen(), []
    for name in source.names:
        try:
            parse_id(name)
            known.append(name)
        except BadSample as reason:
            seen.fault("error", "names that are not ids", name, str(reason))
    report.faults(source.folder, seen.faults)
    return known


def _check_pairs(report, source):
    seen = Seen()
    for name in source.unpaired:
        lacking = source.lacks(name)
        if lacking is None:
            seen.fault("warning", "files with other names", name, "is left out: not SsssCcccPpppRrrrAaaa")
        elif not (lacking == "skeleton" and name in missing_skeletons()):
            seen.fault("error", f"samples without a {lacking}", name, f"has no {lacking}")
    report.faults(source.folder, seen.faults, "fetch the missing files, then prepare the data again")


def _count(report, source, names, usable):
    """Record the sizes of the splits, and compare the total with the official one."""
    for split in SPLITS:
        count = sum(names[name].subject in SUBJECTS[split] for name in usable)
        report.count(split, count)
        if not count:
            subjects = ", ".join(map(str, sorted(SUBJECTS[split])))
            report.add("error", split, f"no sample of its subjects ({subjects})", "prepare the complete data")
    faulty = missing_skeletons() & (set(names) | set(source.missing) | set(source.unpaired))
    total = len(usable) + (len(missing_skeletons()) if not source.synthetic else len(faulty))
    official, origin = (None, "") if source.synthetic else (OFFICIAL_COUNT, SOURCE)
    fix = "fetch what is missing; the 302 officially faulty samples count as present"
    report.count("all, with the officially faulty", total, official, origin, fix)
    actions = Counter(names[name].action for name in usable if names[name].subject in SUBJECTS["train"])
    expected = range(1, (max(actions, default=0) if source.synthetic else NUM_ACTIONS) + 1)
    if never := [action for action in expected if not actions[action]]:
        report.add("warning", "train", f"{len(never)} actions have no sample, first A{never[0]:03d}", "fetch them")


def _read(source, rows):
    """Read videos and skeletons of some samples; returns a `Seen`."""
    seen = Seen()
    for row in rows:
        name = source.names[row]
        if damaged := source.damage(row):
            seen.fault("error", f"damaged {damaged}s", name, f"its {damaged} has changed: make it again")
            continue
        try:
            _look(seen, name, source, row)
        except (BadSample, UserError) as reason:
            seen.fault("error", "unreadable samples", name, str(reason))
    return seen


def _look(seen, name, source, row):
    try:
        _, images = source.images(row, lambda length: slots(length, "corrected"))
    except BadSample as reason:
        raise BadSample(f"its video {reason}") from None
    seen.values("videos", name, np.stack(list(images.values())))
    try:
        skeleton = source.skeleton(row)
    except BadSample as reason:
        raise BadSample(f"its skeleton {reason}") from None
    joints = np.asarray(skeleton.joints)
    if not len(joints):
        seen.fault("warning", "skeletons without a person in any frame", name)
        return
    seen.values("joints", name, joints)
    if np.abs(joints).max(initial=0) > FAR:
        seen.fault("warning", f"joints more than {FAR:g} m away (not in metres?)", name)
    if len(joints) > 1 and (joints == joints[0]).all():
        seen.fault("warning", "skeletons that do not move", name)
