"""The annotation of EgoGesture, a public JSON file: reading it, and making it from the official label folder."""

import csv
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

from util.cli import UserError
from util.files import read_json, read_text, write_text
from util.trees import list_files

ANNOTATION_FILE = "egogestureall_but_None.json"
SUBSETS = ("training", "validation", "testing")
OFFICIAL_COUNTS = {"training": 14416, "validation": 4768, "testing": 4977}
COLOUR_FOLDER = re.compile(r"(?P<scene>(?:[^/]+/)*)Color/rgb(?P<number>\d+)")
# The data set is split by person.
SUBJECTS = {
    "training": (
        *(3, 4, 5, 6, 8, 10, 15, 16, 17, 20, 21, 22, 23, 25, 26),
        *(27, 30, 32, 36, 38, 39, 40, 42, 43, 44, 45, 46, 48, 49, 50),
    ),
    "validation": (1, 7, 12, 13, 24, 29, 33, 34, 35, 37),
    "testing": (2, 9, 11, 14, 18, 19, 28, 31, 41, 47),
}
# The 83 gestures in the order of their official numbers 1..83.
GESTURE_NAMES = """
Scroll_hand_towards_right Scroll_hand_towards_left Scroll_hand_downward Scroll_hand_upward Scroll_hand_forward
Scroll_hand_backward Cross_index_fingers Zoom_in_with_fists Zoom_out_with_fists Rotate_fists_clockwise
Rotate_fists_counterclockwise Zoom_in_with_fingers Zoom_out_with_fingers Rotate_fingers_clockwise
Rotate_fingers_counterclockwise Click_with_index_finger Sweep_diagonal Sweep_circle Sweep_cross Sweep_checkmark
Static_fist Measure(distance) Photo_frame Number_0 Number_1 Number_2 Number_3 Number_4 Number_5 Number_6 Number_7
Number_8 Number_9 OK Another_number_3 Pause Shape_C Make_a_phone_call Wave_hand Wave_finger Knock Beckon Palm_to_fist
Fist_to_Palm Trigger_with_thumb Trigger_with_index_finger Hold_fist_in_the_other_hand Grasp Walk Gather_fingers
Snap_fingers Applaud Dual_hands_heart Put_two_fingers_together Take_two_fingers_apart Turn_over Move_fist_upwards
Move_fist_downward Move_fist_toward_left Move_fist_toward_right Bring_hand_close Push_away Thumb_upward Thumb_downward
Thumb_toward_right Thumb_toward_left Thumbs_backward Thumbs_forward Move_hand_upward Move_hand_downward
Move_hand_towards_left Move_hand_towards_right Draw_circle_with_hand_in_horizontal_surface Bent_number_2
Bent_another_number_3 Dual_fingers_heart Scroll_fingers_toward_left Scroll_fingers_toward_right Move_fingers_upward
Move_fingers_downward Move_fingers_left Move_fingers_right Move_fingers_forward
"""
GESTURES = GESTURE_NAMES.split()


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
        """Folder of the ``rgb`` or ``depth`` frames, relative to the data folder, with ``/`` as separator."""
        return self.folder if field == "rgb" else depth_folder(self.folder)


def depth_folder(colour):
    """Path of the depth folder that belongs to a colour folder."""
    match = COLOUR_FOLDER.fullmatch(colour)
    return f"{match['scene']}Depth/depth{match['number']}"


class Fault(NamedTuple):
    """A clip that cannot be used, and the reason."""

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
    """Read the annotation; invalid entries become faults, so that the caller can decide what to do about them.

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
            f'{path} is not an EgoGesture annotation: expected {{"labels": [names], "database": {{clip: ...}}}}; fetch'
            f" {ANNOTATION_FILE} again, or make it with `python datasets/prepare_ego.py --dir DIR --labels LABELS`"
        )
    label_names = [str(label) for label in labels]
    if len(set(label_names)) < len(label_names):
        twice = next(name for name in label_names if label_names.count(name) > 1)
        raise UserError(f"{path} lists the label {twice!r} twice; class names must be unique")
    numbers = {name: number for number, name in enumerate(label_names)}
    clips, faults = [], []
    for name, entry in database.items():
        clip = _parse(name, entry, numbers)
        (faults if isinstance(clip, Fault) else clips).append(clip)
    return Annotation(label_names, clips, faults)


def _parse(name, entry, numbers):
    """The `Clip` of one entry, or the `Fault` of an invalid one."""
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
    """Make a `Clip`; ``bounds`` are its first and last frame, as numbers or text. A `Fault` if they are invalid."""
    try:
        start, end = map(whole_number, bounds)
    except (TypeError, ValueError, OverflowError):
        return Fault(name, f"frames {bounds[0]!r} to {bounds[1]!r} are not whole numbers")
    if end >= 2**31:
        return Fault(name, f"frames {bounds[0]!r} to {bounds[1]!r} are beyond any video")
    if start < 0 or start > end:
        return Fault(name, f"frames {start} to {end}: the first must not come after the last")
    return Clip(name, subset, folder, label, start, end)


def whole_number(value):
    """Convert a number, or text such as "12.0", to an int.

    Raises:
        TypeError, ValueError, OverflowError: ``value`` is not a whole number.
    """
    number = float(value)
    if number != int(number) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def refuse_faults(faults, where, remedy):
    """Raise one `UserError` for a list of `Fault`, if there are any.

    Args:
        faults: The faults.
        where: What contains the faulty clips, e.g. the annotation file.
        remedy: What the user can do about them.

    Raises:
        UserError: ``faults`` is not empty; the message names the first one and their number.
    """
    if faults:
        clips = "1 clip cannot be used" if len(faults) == 1 else f"{len(faults):,} clips cannot be used, the first"
        raise UserError(f"{where}: {clips}: {faults[0]}; {remedy}")


def read_class_names(path):
    """Read the names of the classes 1, 2, ... from a text file with one line ``<number> <name>`` per class.

    Raises:
        UserError: the file is missing, or the numbers are not 1, 2, 3, ... in this order.
    """
    try:
        lines = [line.split(None, 1) for line in read_text(path).splitlines() if line.strip()]
    except UserError as error:
        raise UserError(f"cannot read --class_names {error}") from None
    if not lines or any(len(line) < 2 or line[0] != str(number) for number, line in enumerate(lines, 1)):
        raise UserError(f"--class_names {path}: expected the lines `1 name`, `2 name`, ... in this order")
    return [name.strip() for _, name in lines]


def annotation_of_labels(folder, label_names=GESTURES):
    """Read the label files ``subjectXX/SceneY/GroupZ.csv`` with the rows "class, first frame, last frame".

    Args:
        folder: The folder ``labels-final-revised1``.
        label_names: Names of the classes; class 1 in the files is the first.

    Returns:
        list of `Clip` and list of `Fault`, both in the order of subject, scene, group and row.

    Raises:
        UserError: there are no such files in ``folder``.
    """
    clips, faults = [], []
    for subset, scene, number, path in _label_files(folder):
        colour = f"{scene}/Color/rgb{number}"
        for line, row in _rows(path):
            name = f"{colour}_{len(clips) + len(faults) + 1}"
            clip = row if isinstance(row, str) else _clip(name, subset, colour, row, label_names)
            reason = clip if isinstance(clip, str) else getattr(clip, "reason", None)
            if reason is None:
                clips.append(clip)
            else:
                faults.append(Fault(name, f"line {line} of {path}: {reason}"))
    return clips, faults


def _label_files(folder):
    """Yield subset, ``SubjectXX/SceneY``, group number and path of every label file, in order."""
    label_files = []
    subset_of = {subject: subset for subset, subjects in SUBJECTS.items() for subject in subjects}
    for name in list_files(folder, depth=2) if Path(folder).is_dir() else ():
        place = re.fullmatch(r"subject(\d+)/scene(\d+)/group(\d+)\.csv", name.lower(), re.ASCII)
        if place:
            label_files.append((*map(int, place.groups()), Path(folder) / name))
    if not label_files:
        raise UserError(
            f"--labels {folder} contains no subjectXX/SceneY/GroupZ.csv: give EgoGesture's labels-final-revised1"
        )
    for subject, scene, number, path in sorted(label_files):
        if subject not in subset_of:
            raise UserError(f"{path}: subject {subject} is not among the official subjects 1..{len(subset_of)}")
        yield subset_of[subject], f"Subject{subject:02d}/Scene{scene}", number, path


def _rows(path):
    """Yield (line number, cells) of each row that names frames; (0, reason) if the file cannot be read."""
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""))
        for row in reader:
            cells = [cell.strip() for cell in row]
            # A row without frames has no clip.
            if any(cell and cell.lower() != "nan" for cell in cells[1:3]):
                yield reader.line_num, cells
    except (UserError, csv.Error) as error:
        yield 0, f"cannot be read ({error})"


def _clip(name, subset, folder, cells, label_names):
    """The `Clip` of one row, or the reason why it is invalid."""
    try:
        label = whole_number(cells[0])
    except (ValueError, OverflowError):
        return f"the class {cells[0]!r} is not a whole number"
    if not 1 <= label <= len(label_names):
        return f"class {label} is not in 1..{len(label_names)}"
    clip = make_clip(name, subset, folder, label - 1, (cells[1], cells[2] if len(cells) > 2 else ""))
    return clip.reason if isinstance(clip, Fault) else clip


def write_annotation(path, label_names, clips):
    """Write ``clips`` as the public annotation file; a file with other content is never replaced.

    Raises:
        UserError: ``path`` exists and has other content, or cannot be written.
    """
    database = {}
    for clip in clips:
        bounds = {"label": label_names[clip.label], "start_frame": str(clip.start), "end_frame": str(clip.end)}
        database[clip.name] = {"subset": clip.subset, "annotations": bounds}
    text = json.dumps({"labels": list(label_names), "database": database}) + "\n"
    path = Path(path)
    if not path.exists():
        write_text(path, text)
    elif path.read_text(encoding="utf-8", errors="replace") != text:
        raise UserError(
            f"{path} exists and does not match the label files; delete it, or give another --annotation FILE"
        )
