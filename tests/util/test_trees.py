"""All files below a folder are found, including those behind links, and loops of links end."""

import os

import pytest

from util.cli import UserError
from util.trees import list_files


@pytest.fixture
def folder(tmp_path):
    for name in ("real/b/two.txt", "real/one.txt", "in/a/three.txt", "in/.hidden"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_links_to_files_and_folders_are_followed(folder):
    (folder / "in" / "linked").symlink_to(folder / "real", target_is_directory=True)
    (folder / "in" / "again").symlink_to("linked", target_is_directory=True)
    (folder / "in" / "file.txt").symlink_to(folder / "real" / "one.txt")
    (folder / "in" / "nowhere.txt").symlink_to(folder / "none")
    inside = [f"{name}/{file}" for name in ("again", "linked") for file in ("b/two.txt", "one.txt")]
    assert list_files(folder / "in") == sorted([".hidden", "a/three.txt", "file.txt", "nowhere.txt", *inside])
    (folder / "link").symlink_to("in", target_is_directory=True)
    assert list_files(folder / "link") == list_files(folder / "in")
    assert list_files(folder / "in", depth=0) == [".hidden", "file.txt", "nowhere.txt"]
    assert "linked/one.txt" in list_files(folder / "in", depth=1)
    assert "linked/b/two.txt" not in list_files(folder / "in", depth=1)


def test_loops_end(folder):
    (folder / "in" / "a" / "up").symlink_to("..", target_is_directory=True)
    (folder / "in" / "self").symlink_to("self")
    (folder / "in" / "here").symlink_to(".", target_is_directory=True)
    (folder / "real" / "b" / "other").symlink_to(folder / "in", target_is_directory=True)
    (folder / "in" / "real").symlink_to(folder / "real", target_is_directory=True)
    assert list_files(folder / "in") == [".hidden", "a/three.txt", "real/b/two.txt", "real/one.txt", "self"]


def test_any_name(tmp_path):
    name = os.fsdecode("照片 ".encode("gbk") + b"\xff\n")
    (tmp_path / name).mkdir()
    (tmp_path / name / name).touch()
    assert list_files(tmp_path) == [f"{name}/{name}"]


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"the folder .*none cannot be read: No such file"):
        list_files(tmp_path / "none")
