"""The EgoGesture annotation: the public JSON file, and the same made from the official label files."""

import json

import pytest

from datasets.ego.annotation import (
    GESTURES,
    SUBJECTS,
    Clip,
    Fault,
    annotation_of_labels,
    read_annotation,
    read_class_names,
    refuse_faults,
    write_annotation,
)
from tests.datasets.ego_files import CLIPS, LABELS, content, one_line
from tests.datasets.ego_files import write_annotation as write_json
from util.cli import UserError


def test_clips_in_the_order_of_the_file(tmp_path):
    annotation = read_annotation(write_json(tmp_path))
    assert annotation.label_names == LABELS
    assert annotation.faults == []
    assert [clip.name for clip in annotation.clips] == [clip[0] for clip in CLIPS]
    assert [clip.label for clip in annotation.clips] == [0, 1, 2, 0, 1, 0, 2]
    assert [clip.name for clip in annotation.subset("validation")] == [CLIPS[4][0], CLIPS[5][0]]
    third = annotation.clips[2]
    assert third == Clip(CLIPS[2][0], "training", "Subject03/Scene1/Color/rgb2", 2, 20, 39)
    assert third.length == 20
    assert third.source("rgb") == "Subject03/Scene1/Color/rgb2"
    assert third.source("depth") == "Subject03/Scene1/Depth/depth2"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subset": "dev"}, "unknown subset 'dev' (expected training, validation, testing)"),
        ({"label": "jump"}, "label 'jump' is not among the 3 labels"),
        ({"start_frame": "6"}, "frames 6 to 5: the first must not come after the last"),
        ({"start_frame": "-1"}, "frames -1 to 5"),
        ({"end_frame": "many"}, "frames '1' to 'many' are not whole numbers"),
        ({"end_frame": "nan"}, "are not whole numbers"),
        ({"end_frame": "inf"}, "are not whole numbers"),
        ({"end_frame": None}, "are not whole numbers"),
        ({"annotations": None}, 'lacks "subset", or "label"'),
        (None, 'lacks "subset", or "label"'),
    ],
)
def test_entries_that_make_no_sense_are_faults(tmp_path, change, reason):
    made = content()
    entry = made["database"][CLIPS[0][0]]
    if change is None:
        made["database"][CLIPS[0][0]] = 3
    for key, value in (change or {}).items():
        (entry if key in entry else entry["annotations"])[key] = value
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made))
    annotation = read_annotation(path)
    assert [clip.name for clip in annotation.clips] == [clip[0] for clip in CLIPS[1:]]
    (fault,) = annotation.faults
    assert fault.name == CLIPS[0][0]
    assert reason in fault.reason
    with pytest.raises(UserError) as error:
        refuse_faults(annotation.faults, path, "do this")
    one_line(error, str(path), f"1 clip cannot be used: {CLIPS[0][0]}: ", reason, "; do this")


def test_a_folder_of_another_form_is_a_fault(tmp_path):
    names = ["Subject01/Scene1/rgb1_1", "Subject01/Scene1/Color/color1", "Subject01\\Scene1\\Color\\rgb1", ""]
    path = write_json(tmp_path, [(name, "training", "wave", 1, 2) for name in names])
    annotation = read_annotation(path)
    assert [fault.name for fault in annotation.faults] == names
    assert "'Subject01/Scene1/rgb1' is not of the form SubjectXX/SceneY/Color/rgbK" in annotation.faults[0].reason
    with pytest.raises(UserError) as error:
        refuse_faults(annotation.faults, path, "do this")
    one_line(error, "4 clips cannot be used, the first: ")
    refuse_faults([], path, "do this")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["a.json does not exist"]),
        ("{", ["a.json is not a readable JSON file"]),
        ("[]", ["is not an EgoGesture annotation", "--labels LABELS"]),
        ('{"labels": [], "database": {}}', ["is not an EgoGesture annotation"]),
        ('{"labels": ["a"], "database": []}', ["is not an EgoGesture annotation"]),
        ('{"labels": ["a", "b", "a"], "database": {}}', ["lists the label 'a' twice"]),
    ],
)
def test_files_of_another_form(tmp_path, text, words):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError) as error:
        read_annotation(tmp_path / "a.json")
    one_line(error, *words)


# The official label files


def test_the_official_split_and_names():
    assert {subset: len(subjects) for subset, subjects in SUBJECTS.items()} == {
        "training": 30,
        "validation": 10,
        "testing": 10,
    }
    assert sorted(sum(SUBJECTS.values(), ())) == list(range(1, 51))
    assert len(set(GESTURES)) == 83
    assert (GESTURES[0], GESTURES[21], GESTURES[82]) == (
        "Scroll_hand_towards_right",
        "Measure(distance)",
        "Move_fingers_forward",
    )


def write_labels(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_label_files_become_the_public_form(tmp_path):
    files = {
        "subject03/Scene1/Group10.csv": "1,5,9\n",
        "subject03/Scene1/Group2.csv": "83,100,140\r\n\r\n2,150.0,151.0\r\n",
        # A byte order mark, spaces, another writing of the names, and a class without frames.
        "Subject01/Scene6/group1.csv": b"\xef\xbb\xbf7, 1, 1\n8,,\n9\n10,nan,NaN\n",
        "subject02/Scene2/Group1.csv": "4,3,3,more\n",
        "subject02/Scene2/notes.csv": "nothing",
        "subject02/readme.txt": "nothing",
    }
    clips, faults = annotation_of_labels(write_labels(tmp_path / "labels", files))
    assert faults == []
    assert clips == [
        Clip("Subject01/Scene6/Color/rgb1_1", "validation", "Subject01/Scene6/Color/rgb1", 6, 1, 1),
        Clip("Subject02/Scene2/Color/rgb1_2", "testing", "Subject02/Scene2/Color/rgb1", 3, 3, 3),
        Clip("Subject03/Scene1/Color/rgb2_3", "training", "Subject03/Scene1/Color/rgb2", 82, 100, 140),
        Clip("Subject03/Scene1/Color/rgb2_4", "training", "Subject03/Scene1/Color/rgb2", 1, 150, 151),
        Clip("Subject03/Scene1/Color/rgb10_5", "training", "Subject03/Scene1/Color/rgb10", 0, 5, 9),
    ]
    path = tmp_path / "made" / "a.json"
    write_annotation(path, GESTURES, clips)
    made = json.loads(path.read_text())
    assert list(made["database"]) == [clip.name for clip in clips]
    assert made["labels"] == GESTURES
    assert made["database"]["Subject03/Scene1/Color/rgb2_3"] == {
        "subset": "training",
        "annotations": {"label": "Move_fingers_forward", "start_frame": "100", "end_frame": "140"},
    }
    assert read_annotation(path).clips == clips


def test_faulty_rows(tmp_path):
    rows = "84,1,2\n0,1,2\nx,1,2\n1,5,4\n1,,4\n1,5\n2,7,8\n"
    clips, faults = annotation_of_labels(write_labels(tmp_path, {"subject03/Scene1/Group1.csv": rows}))
    assert [(clip.name, clip.start) for clip in clips] == [("Subject03/Scene1/Color/rgb1_7", 7)]
    path = tmp_path / "subject03" / "Scene1" / "Group1.csv"
    reasons = ["class 84 is not in 1..83", "class 0 is not in 1..83", "the class 'x' is not a whole number"]
    reasons += ["frames 5 to 4: the first must not come after the last", "frames '' to '4' are not whole numbers"]
    reasons += ["frames '5' to '' are not whole numbers"]
    assert faults == [
        Fault(f"Subject03/Scene1/Color/rgb1_{line}", f"line {line} of {path}: {reason}")
        for line, reason in enumerate(reasons, 1)
    ]


def test_label_files_in_other_encodings_are_faults(tmp_path):
    files = {"subject03/Scene1/Group1.csv": "1,2,3\n".encode("utf-16"), "subject03/Scene1/Group2.CSV": "5,6,7\n"}
    clips, faults = annotation_of_labels(write_labels(tmp_path, files))
    assert [(clip.label, clip.start, clip.end) for clip in clips] == [(4, 6, 7)]
    assert len(faults) == 1 and "Group1.csv" in faults[0].reason and "saved as UTF-16" in faults[0].reason


def test_folders_that_are_not_the_labels(tmp_path):
    with pytest.raises(UserError) as error:
        annotation_of_labels(tmp_path)
    one_line(error, f"--labels {tmp_path} contains no subjectXX/SceneY/GroupZ.csv", "labels-final-revised1")
    write_labels(tmp_path, {"subject51/Scene1/Group1.csv": "1,2,3\n"})
    with pytest.raises(UserError) as error:
        annotation_of_labels(tmp_path)
    one_line(error, "Group1.csv: subject 51 is not among the official subjects 1..50")


def test_an_annotation_that_is_there_is_not_replaced(tmp_path):
    clips = [Clip("Subject01/Scene1/Color/rgb1_1", "validation", "Subject01/Scene1/Color/rgb1", 0, 1, 2)]
    path = tmp_path / "a.json"
    write_annotation(path, ["wave"], clips)
    before = path.stat().st_ino
    write_annotation(path, ["wave"], clips)
    assert path.stat().st_ino == before
    with pytest.raises(UserError) as error:
        write_annotation(path, ["knock"], clips)
    one_line(error, f"{path} exists and does not match", "--annotation FILE")
    assert json.loads(path.read_text())["labels"] == ["wave"]


@pytest.mark.parametrize("text", ["", "1 wave\n3 knock\n", "wave\n", "1\n"])
def test_class_names(tmp_path, text):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbf1 wave\r\n\r\n2 knock at a door\r\n")
    assert read_class_names(path) == ["wave", "knock at a door"]
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_class_names(path)
    one_line(error, f"--class_names {path}", "`1 name`, `2 name`")
    path.unlink()
    with pytest.raises(UserError) as error:
        read_class_names(path)
    one_line(error, f"cannot read --class_names {path}")
