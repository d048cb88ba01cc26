"""Files are complete or absent, have the usual permissions, and their errors take one line."""

import json
import os
import stat

import pytest

from util.cli import UserError
from util.files import atomic_path, read_json, refuse_input, write_json, write_text


def test_a_write_makes_the_folder_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "Grüße\n")
    assert path.read_bytes() == "Grüße\n".encode()
    write_text(path, "again")
    assert path.read_text() == "again"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


class Interrupted(BaseException):
    """An exception that, like a KeyboardInterrupt, must not be caught on the way."""


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("kind", [RuntimeError, Interrupted, UserError])
def test_an_exception_leaves_the_old_file_and_no_temporary(tmp_path, exists, kind):
    path = tmp_path / "file.txt"
    if exists:
        path.write_text("old")
    with pytest.raises(kind), atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path, "a rename is atomic within a file system only"
        raise kind("no")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * exists


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "ours", "x")
        (tmp_path / "any").write_text("x")
    finally:
        assert os.umask(before) == umask, "the umask of the process must not change"
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "any")}
    assert modes == {0o666 & ~umask}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*file/inside/a\.json: .*choose a folder") as error:
        write_json(tmp_path / "file" / "inside" / "a.json", {})
    assert "\n" not in str(error.value)


def test_a_folder_in_the_place_of_the_file_is_kept(tmp_path):
    (tmp_path / "a.json" / "inner").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write .*a\.json"):
        write_json(tmp_path / "a.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json" / "inner").is_dir()


def test_a_value_that_is_not_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_json_round_trip(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"ü": "<&>"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value == json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"], "the order is kept"
    assert (tmp_path / "a.json").read_text().endswith("}\n")


@pytest.mark.parametrize("data", [b"", b"{", b"{'a': 1}", b"\xff\xfe\x00", b'{"a": 1} trailing'])
def test_broken_json_is_named_in_one_line(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.json is not a readable JSON file( \(|: )") as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="not a readable JSON file"):
        read_json(tmp_path)


def test_no_output_replaces_an_input_under_any_name(tmp_path, monkeypatch):
    run, table = tmp_path / "run", tmp_path / "in.csv"
    run.mkdir()
    for path in (table, tmp_path / "other.csv", run / "result.json", run / "report.html"):
        path.write_text("x")
    (tmp_path / "link.csv").symlink_to("in.csv")
    os.link(table, tmp_path / "hard.csv")
    monkeypatch.chdir(tmp_path)
    for out in ("in.csv", "run/../in.csv", "link.csv", "hard.csv", str(table)):
        with pytest.raises(UserError, match="is the file that --table reads and would be replaced; give another --out"):
            refuse_input(out, {"--run": None, "--table": ["other.csv", table]})
    with pytest.raises(UserError, match=r"result.json is in the folder that --run reads"):
        refuse_input("run/result.json", {"--run": run})
    refuse_input("run/report.html", {"--run": run})
    refuse_input("other.csv", {"--run": run, "--table": table})
    refuse_input("new.csv", {"--table": table, "--run": run})
