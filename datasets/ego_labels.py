"""Turns the official label folder of EgoGesture (one CSV file per video) into the public annotation form."""

import csv
import io
import json
import re
from pathlib import Path

from datasets.ego_annotation import Fault, make_clip, whole
from util.cli import UserError
from util.files import write_text
from util.text_files import read_text
from util.trees import list_files

# The split of the data set is by person.
SUBJECTS = {
    "training": (
        *(3, 4, 5, 6, 8, 10, 15, 16, 17, 20, 21, 22, 23, 25, 26),
        *(27, 30, 32, 36, 38, 39, 40, 42, 43, 44, 45, 46, 48, 49, 50),
    ),
    "validation": (1, 7, 12, 13, 24, 29, 33, 34, 35, 37),
    "testing": (2, 9, 11, 14, 18, 19, 28, 31, 41, 47),
}
# The 83 gestures in the order of their numbers 1..83.
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


def read_class_names(path):
    """Names of the classes 1, 2, ... from a text file with one line ``<number> <name>`` each.

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
        list of `Clip` and list of `Fault`, by subject, scene, group and row.

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
    found = []
    subset_of = {subject: subset for subset, subjects in SUBJECTS.items() for subject in subjects}
    for name in list_files(folder, depth=2) if Path(folder).is_dir() else ():
        place = re.fullmatch(r"subject(\d+)/scene(\d+)/group(\d+)\.csv", name.lower(), re.ASCII)
        if place:
            found.append((*map(int, place.groups()), Path(folder) / name))
    if not found:
        raise UserError(
            f"--labels {folder} holds no subjectXX/SceneY/GroupZ.csv: give EgoGesture's labels-final-revised1"
        )
    for subject, scene, number, path in sorted(found):
        if subject not in subset_of:
            raise UserError(f"{path}: subject {subject} is not among the official subjects 1..{len(subset_of)}")
        yield subset_of[subject], f"Subject{subject:02d}/Scene{scene}", number, path


def _rows(path):
    """Yield line number and cells of each row that names frames; a text instead of the cells says what is wrong."""
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""))
        for row in reader:
            cells = [cell.strip() for cell in row]
            # A class without frames is nothing that can be shown.
            if any(cell and cell.lower() != "nan" for cell in cells[1:3]):
                yield reader.line_num, cells
    except (UserError, csv.Error) as error:
        yield 0, f"cannot be read ({error})"


def _clip(name, subset, folder, cells, label_names):
    """The `Clip` of one row, or the reason why it is none."""
    try:
        label = whole(cells[0])
    except (ValueError, OverflowError):
        return f"the class {cells[0]!r} is not a whole number"
    if not 1 <= label <= len(label_names):
        return f"class {label} is not in 1..{len(label_names)}"
    clip = make_clip(name, subset, folder, label - 1, (cells[1], cells[2] if len(cells) > 2 else ""))
    return clip.reason if isinstance(clip, Fault) else clip


def write_annotation(path, label_names, clips):
    """Write ``clips`` as the public annotation file; a file with other content is never replaced.

    Raises:
        UserError: ``path`` exists and holds something else, or cannot be written.
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
            f"{path} exists and differs from what the label files say; delete it, or give another --annotation FILE"
        )
