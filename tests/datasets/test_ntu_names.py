"""Ids, subjects, actions and the official list of missing skeletons."""

import re

import pytest

from datasets.ntu.names import (
    ACTIONS,
    OFFICIAL_COUNT,
    SUBJECTS,
    BadSample,
    SampleName,
    file_of,
    list_ids,
    missing_skeletons,
    parse_id,
)


def test_id_is_taken_apart_and_put_together():
    name = parse_id("S017C003P020R002A059")
    assert name == SampleName(setup=17, camera=3, subject=20, replication=2, action=59)
    assert name.id == "S017C003P020R002A059"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("S001C001P001R001A061", "NTU RGB+D 120"),
        ("S001C001P001R001A000", "action 0"),
        ("S001C001P041R001A001", "subject 41"),
        ("S001C001P001R001A01", "SsssCcccPpppRrrrAaaa"),
        ("S001C001P001R001A001x", "SsssCcccPpppRrrrAaaa"),
        ("", "SsssCcccPpppRrrrAaaa"),
    ],
)
def test_other_ids_are_refused(text, reason):
    with pytest.raises(BadSample, match=re.escape(reason)):
        parse_id(text)


def test_subjects_of_the_splits():
    assert SUBJECTS["train"] | SUBJECTS["dev"] | SUBJECTS["test"] == set(range(1, 41))
    assert [len(SUBJECTS[split]) for split in ("train", "dev", "train+dev", "train_exp", "test")] == [16, 4, 20, 8, 20]
    assert SUBJECTS["train+dev"] == SUBJECTS["train"] | SUBJECTS["dev"]
    assert SUBJECTS["train_exp"] < SUBJECTS["train"]
    assert SUBJECTS["dev"] == {2, 5, 9, 14}
    assert not SUBJECTS["train+dev"] & SUBJECTS["test"]


def test_actions():
    assert len(ACTIONS) == len(set(ACTIONS)) == 60
    assert (ACTIONS[0], ACTIONS[9], ACTIONS[22], ACTIONS[57]) == (
        *("drink water", "clapping", "hand waving"),
        "handshaking",
    )
    assert (ACTIONS[42], ACTIONS[49], ACTIONS[59]) == (
        *("falling", "punching/slapping other person"),
        "walking apart from each other",
    )


def test_missing_skeletons():
    missing = missing_skeletons()
    assert len(missing) == 302
    assert "S001C002P005R002A008" in missing
    assert all(parse_id(name).id == name for name in missing)
    assert OFFICIAL_COUNT == 56880


def test_listing_a_folder(tmp_path):
    good = ["S001C001P002R001A001", "S001C001P001R001A060"]
    bad = ["S001C001P001R001A061_rgb.avi", "S001C001P001R001A001.avi", "clip_rgb.avi"]
    for name in (*(f"{name}_rgb.avi" for name in good), *bad, "notes.txt", ".hidden_rgb.avi"):
        (tmp_path / name).touch()
    ids, odd = list_ids(tmp_path, "_rgb.avi")
    assert ids == sorted(good)
    assert list(odd) == sorted(bad)
    assert "NTU RGB+D 120" in odd["S001C001P001R001A061_rgb.avi"]
    assert "SsssCcccPpppRrrrAaaa_rgb.avi" in odd["S001C001P001R001A001.avi"]


def test_upper_case_endings(tmp_path):
    names = ["S001C001P001R001A001_rgb.AVI", "S001C001P001R001A002_RGB.AVI", "S001C001P001R001A003_rgb.avi"]
    for name in (*names, "S001C001P001R001A003_rgb.AVI", "S001C001P001R001A004_Rgb.avi"):
        (tmp_path / name).touch()
    ids, odd = list_ids(tmp_path, "_rgb.avi")
    assert [file_of(tmp_path, one, "_rgb.avi").name for one in ids] == names
    assert {name: reason[:14] for name, reason in odd.items()} == {
        "S001C001P001R001A003_rgb.avi": "is there twice",
        "S001C001P001R001A004_Rgb.avi": "is not named S",
    }
    assert file_of(tmp_path, "S001C001P001R001A009", "_rgb.avi").name == "S001C001P001R001A009_rgb.avi"
