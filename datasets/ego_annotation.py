"""The annotation of EgoGesture, a public JSON file: which frames of which folder show which gesture."""

import re
from typing import NamedTuple

from util.cli import UserError
from util.files import read_json

ANNOTATION_FILE = "egogestureall_but_None.json"
SUBSETS = ("training", "validation", "testing")
OFFICIAL_COUNTS = {"training": 14416, "validation": 4768, "testing": 4977}
COLOUR_FOLDER = re.compile(r"(?P<scene>(?:[^/]+/)*)Color/rgb(?P<number>\d+)")


class Clip(NamedTuple):
    """One gesture: frames ``start`` to ``end`` (inclusive) of a colour folder and of its depth folder.

    ``name`` is the key in the annotation, ``folder`` the colour folder relative to the data folder,
    ``label`` the class number from 0.
    """

    name: str
    subset: str
    folder: str
    label: int
    start: int
    end: int

    @property
    def length(self):
        """Number of frames."""
        return self.end - self.start + 1

    def source(self, field):
        """The relative folder of the ``rgb`` or ``depth`` frames, with ``/`` between its parts."""
        if field == "rgb":
            return self.folder
        match = COLOUR_FOLDER.fullmatch(self.folder)
        return f"{match['scene']}Depth/depth{match['number']}"


class Fault(NamedTuple):
    """A clip that cannot be used, and why."""

    name: str
    reason: str

    def __str__(self):
        return f"{self.name}: {self.reason}"


class Annotation(NamedTuple):
    """``label_names`` in class order, the usable ``clips`` in the order of the file, and the ``faults``."""

    label_names: list
    clips: list
    faults: list

    def subset(self, name):
        """The clips of one subset."""
        return [clip for clip in self.clips if clip.subset == name]


def read_annotation(path):
    """Read the annotation; entries that make no sense become faults, so that the caller can decide.

    Args:
        path: JSON file ``{"labels": [names], "database": {"<colour folder>_<n>": {"subset": ...,
            "annotations": {"label": ..., "start_frame": ..., "end_frame": ...}}}}``.

    Returns:
        An `Annotation`.

    Raises:
        UserError: the file is missing, not JSON, or not of this form.
    """
    content = read_json(path)
    labels = content.get("labels") if isinstance(content, dict) else None
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(labels, list) or not labels or not isinstance(database, dict):
        raise UserError(
            f'{path} is no EgoGesture annotation: expected {{"labels": [names], "database": {{clip: ...}}}}; fetch'
            f" {ANNOTATION_FILE} again, or make it with `python datasets/prepare_ego.py --dir DIR --labels LABELS`"
        )
    label_names = [str(label) for label in labels]
    if len(set(label_names)) < len(label_names):
        twice = next(name for name in label_names if label_names.count(name) > 1)
        raise UserError(f"{path} lists the label {twice!r} twice; every class needs a name of its own")
    numbers = {name: number for number, name in enumerate(label_names)}
    clips, faults = [], []
    for name, entry in database.items():
        clip = _parse(name, entry, numbers)
        (faults if isinstance(clip, Fault) else clips).append(clip)
    return Annotation(label_names, clips, faults)


def _parse(name, entry, numbers):
    """The `Clip` of one entry, or the `Fault` that keeps it from being one."""
    try:
        subset, details = entry["subset"], entry["annotations"]
        label, bounds = str(details["label"]), (details["start_frame"], details["end_frame"])
    except (KeyError, TypeError):
        return Fault(name, 'lacks "subset", or "label", "start_frame", "end_frame" in "annotations"')
    if subset not in SUBSETS:
        return Fault(name, f"unknown subset {subset!r} (expected {', '.join(SUBSETS)})")
    if label not in numbers:
        return Fault(name, f"label {label!r} is not among the {len(numbers)} labels of the file")
    folder = name.split("_")[0]
    if not COLOUR_FOLDER.fullmatch(folder):
        return Fault(name, f"{folder!r} is not of the form SubjectXX/SceneY/Color/rgbK")
    return make_clip(name, subset, folder, numbers[label], bounds)


def make_clip(name, subset, folder, label, bounds):
    """A `Clip` from ``bounds``, its first and last frame as numbers or texts; a `Fault` if they make no sense."""
    try:
        start, end = map(whole, bounds)
    except (TypeError, ValueError, OverflowError):
        return Fault(name, f"frames {bounds[0]!r} to {bounds[1]!r} are not whole numbers")
    if end >= 2**31:
        return Fault(name, f"frames {bounds[0]!r} to {bounds[1]!r} are beyond any video")
    if start < 0 or start > end:
        return Fault(name, f"frames {start} to {end}: the first must not come after the last")
    return Clip(name, subset, folder, label, start, end)


def whole(value):
    """A whole number from a number or text such as "12.0".

    Raises:
        TypeError, ValueError, OverflowError: it is none.
    """
    number = float(value)
    if number != int(number) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def refuse_faults(faults, where, remedy):
    """Raise one `UserError` for a list of `Fault`, if there are any.

    Args:
        faults: The faults.
        where: What holds the faulty clips, e.g. the annotation file.
        remedy: What the user can do.
    """
    if faults:
        clips = "1 clip cannot be used" if len(faults) == 1 else f"{len(faults):,} clips cannot be used, the first"
        raise UserError(f"{where}: {clips}: {faults[0]}; {remedy}")
