"""What ``prepare_own.py`` refuses: one line that names the place and the remedy."""

import numpy as np
import pytest

from datasets.own import open_own
from datasets.own.prepare import LOCK_FILE
from datasets.prepare_own import main
from util.cli import UserError

OK = "text,y,n,s,g,id\n" + "".join(f"t{k},{k % 2},{k},{('train', 'val')[k % 3 == 2]},g{k % 4},{k}\n" for k in range(24))


def change(old, new):
    assert old in OK
    return OK.replace(old, new, 1)


TEXT = "--text text --label y"
CASES = {
    "column": (OK, "--text texts --label y", r"no column 'texts' \(--text texts\); did you mean 'text'"),
    "label column": (OK, "--text text --label genre", r"no column 'genre' .*; its columns are 'text', 'y'"),
    "no label flag": (OK, "--text text", "--label is missing"),
    "no inputs": (OK, "--label y", "no inputs: name columns with --image"),
    "empty": (OK.splitlines()[0], TEXT, "has no rows"),
    "no header": ("", TEXT, "is empty; expected a header row"),
    "same columns": (change("text,", "y,"), "--text y --label y", "several columns named 'y'"),
    "no label": (change("t3,1,", "t3,,"), TEXT, "1 of 24 rows .* the first: line 5 has no label"),
    "ragged": (change("t3,", "t3,t3,"), TEXT, "line 5 has 7 cells where the header has 6"),
    "open quote": (change("t3,", '"t3,'), TEXT, "line 25 has 1 cells .* quotes an end"),
    "infinite": (change("t3,1,3", "t3,1,-inf"), "--numbers n --label y", "line 5 has '-inf' in n: infinite values"),
    "no number": (change("t3,1,3", "t3,1,x"), "--numbers n --label y", "line 5 has 'x' in n, where --numbers"),
    "decimal comma": (
        change("t3,1,3,", 't3,1,"3,5",'),
        "--numbers n --label y",
        "'3,5' in n, .* decimal comma as a point",
    ),
    "comma label": (change("t3,1,3,", 't3,1,"3,5",'), "--text text --label n --label_kind number", "decimal comma"),
    "equal labels": (OK, "--text text --label e", "all labels in e are equal"),
    "label as input": (OK, "--text text --numbers n,y --label y", "--numbers y: this is the label"),
    "hardly classes": (OK, "--text n --label text", "24 different texts in 24 rows, .* hardly classes"),
    "not numbers": (OK, "--text n --label g --label_kind number", "g contains 'g0', which is not a finite number"),
    "several": (OK, "--text n --label y --label_kind class --label_separator |", "cells of y contain several classes"),
    "only in dev": (change("t2,0", "t2,7"), f"{TEXT} --split_column s", "1 of 3 classes .* '7' .dev 1.; give"),
    "split": (change("train", "trian"), f"{TEXT} --split_column s", "line 2, .* unknown split 'trian'"),
    "no train": (OK.replace("train", "test"), f"{TEXT} --split_column s", "no sample is in the split train"),
    "equal ids": (change("g3,3", "g3,7"), f"{TEXT} --id_column id", "line 5 and line 9 have the same id '7'"),
    "groups": (OK, f"{TEXT} --split_column s --group g", "the given splits share groups .4., for example 'g0'"),
    "few groups": (OK, f"{TEXT} --group y", "2 groups for 3 splits; name a --group with more"),
    "too few": ("text,y\na,1\nb,2\n", TEXT, "the split dev has no sample: .* give a share of 0"),
    "name": (OK, "--text a-b=text --label y", r"'a-b' cannot be the name of an input; .* as in --text NAME=text"),
    "same name": (OK, "--text text --features text=n --label y", "two inputs are called text"),
    "two names": (OK, "--text a=text,n --label y", "a name can have only one column; expected NAME=COLUMN"),
    "categories": (OK, "--categories id --label y", "--categories id: has .* more than 5; is it a text"),
    "picture": (OK, "--image n --label y", "24 of 24 rows .* line 2 names .*, which cannot be opened"),
    "features": (OK, "--features text --label y", "line 2 names .*t0, which does not exist"),
    "UTF-16": (OK.encode("utf-16"), TEXT, "it is saved as UTF-16: save it as UTF-8"),
    "Latin-1": (change("t3", "\xe9").encode("latin-1"), TEXT, "line 5 has the byte 0xe9"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line(tmp_path, monkeypatch, case):
    table, flags, message = CASES[case]
    monkeypatch.setattr("datasets.own.readers.MAX_CATEGORIES", 5)
    if case == "equal labels":
        table = "\n".join(f"{line},{'e' if number == 0 else 1}" for number, line in enumerate(table.splitlines()))
    path = tmp_path / "t.csv"
    path.write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(UserError, match=message) as error:
        main(["--table", str(path), *flags.split(), "--out", str(tmp_path / "out"), "--workers", "0"])
    assert "\n" not in str(error.value) and not (tmp_path / "out" / "own.json").exists()


def test_faulty_rows_can_be_left_out(tmp_path, capsys):
    (tmp_path / "good.npy").write_bytes(b"")
    np.save(tmp_path / "good.npy", np.ones(3))
    np.save(tmp_path / "long.npy", np.ones(4))
    np.save(tmp_path / "nan.npy", np.array([1, np.nan, 1]))
    np.save(tmp_path / "none.npy", np.full(3, np.nan))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    cells = ["good.npy,,a", "long.npy,,a", "nan.npy,,b", "none.npy,,b", "good.npy,bad.png,a", "good.npy,,", "x.npy,,a"]
    cells += ["good.npy,,a", "good.npy,,b"] * 10
    path = tmp_path / "t.csv"
    path.write_text("f,p,y\n" + "\n".join(cells) + "\n")
    flags = ["--table", str(path), "--features", "f", "--image", "p", "--label", "y", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"5 of 27 rows .* the first: line 3 has 4 values in f, where samples"):
        main([*flags, "--workers", "0"])
    facts = main([*flags, "--workers", "0", "--skip_invalid"])
    listed = (tmp_path / "out" / "unreadable.txt").read_text().splitlines()
    assert [line.split()[1] for line in listed] == ["3", "4", "6", "7", "8"] and facts["left_out"] == 5
    assert "is not a readable image" in listed[2] and "has NaN or infinite values in f" in listed[1]
    assert "left out: 5 of 27 rows" in capsys.readouterr().out
    ids = [one for split in facts["splits"] for one in open_own(tmp_path / "out", split).ids]
    assert len(ids) == 22 and not {"2", "3", "5", "6", "7"} & set(ids)
    assert sum(facts["modalities"]["features"]["missing"].values()) == 1


def test_arrays_of_python_objects_are_named_as_such(tmp_path):
    rows = np.array([[1.0, 2.0], [3.0]], dtype=object)
    np.save(tmp_path / "rows.npy", rows, allow_pickle=True)
    np.savez(tmp_path / "rows.npz", rows=rows)
    np.save(tmp_path / "y.npy", np.arange(2))
    (tmp_path / "t.csv").write_text("f,y\nrows.npy,a\nrows.npy,b\n")
    label = f"--label {tmp_path / 'y.npy'}"
    for flags in (
        f"--arrays a={tmp_path / 'rows.npy'} {label}",
        f"--arrays {tmp_path / 'rows.npz'} {label}",
        f"--table {tmp_path / 't.csv'} --features f --label y",
    ):
        with pytest.raises(UserError, match=r"holds Python objects, .* save numbers, np.save"):
            main([*flags.split(), "--out", str(tmp_path / "out"), "--workers", "0"])


def test_sources_do_not_mix(tmp_path):
    for flags, message in (
        ("--text a", "name the samples by one of --table"),
        ("--table a.csv --format mmbt", "given: --table, --format"),
        ("--table a.xlsx --text a --label y", "unknown kind of table; expected a file that ends in .csv"),
        ("--table a.csv --text a --label y", "a.csv does not exist"),
        ("--table a.csv --views x --text a --label y", "--views goes with --embedded"),
        ("--format mmbt --data . --text a", "--text does not go with --format"),
        ("--format mmbt", "name the data with --data"),
        ("--format mmsa --data .", "--format mmsa expects a pickle"),
        ("--split_files a.csv --text a --label y", "expected SPLIT=FILE"),
        ("--split_files new=a.csv --text a --label y", "unknown split 'new'"),
        ("--arrays a.txt --label y", "expected NAME=FILE.npy"),
        ("--embedded digits --views fou,x --wheel w", "digits has no such view; choose from fac, fou"),
    ):
        with pytest.raises(UserError, match=message):
            main([*flags.split(), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("split", ["0.5,0.5", "1,1,1", "0,0.5,0.5", "a,b,c", "1.2,-0.1,-0.1"])
def test_shares_sum_to_one(split, capsys):
    with pytest.raises(SystemExit):
        main(["--table", "a.csv", "--out", "x", "--split", split])
    assert "expected three shares that sum to 1" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--table", "--split_files"])
def test_the_folder_to_write_must_not_contain_what_is_read(tmp_path, flag):
    path = tmp_path / "out" / "t.csv"
    path.parent.mkdir()
    path.write_text(OK)
    (path.parent / LOCK_FILE).touch()
    (tmp_path / "link").symlink_to("out")
    given = f"train={path}" if flag == "--split_files" else str(path)
    with pytest.raises(UserError, match=r"t.csv, which is read and would be replaced; name a new folder"):
        main([flag, given, *TEXT.split(), "--out", str(tmp_path / "link"), "--overwrite"])
    assert path.read_text() == OK


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((24, 2), 1 + 2j), r"the array has complex numbers \(complex128\); save real numbers"),
        (np.zeros((24, 2), "datetime64[s]"), "has dates"),
        (np.zeros((24, 2), "i4,f4"), "has several fields per entry"),
        (np.full((24, 2), 2**53 + 1), r"has the integer 9007199254740993, beyond 2\*\*53"),
        (np.full((24, 2), 1e300), r"24 of 24 rows .* row 1 has numbers beyond 3.4e\+38 in array v"),
        (np.full((24, 2), np.inf), "row 1 has NaN or infinite values in array v"),
    ],
)
def test_arrays_that_would_lose_information(tmp_path, values, message):
    np.save(tmp_path / "v.npy", values)
    np.save(tmp_path / "y.npy", np.arange(24) % 2)
    flags = ["--label", str(tmp_path / "y.npy"), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=message):
        main(["--arrays", f"v={tmp_path / 'v.npy'}", *flags])
    (tmp_path / "t.csv").write_text("v\n" + "row.npy\n" * 24)
    np.save(tmp_path / "row.npy", values[0])
    with pytest.raises(UserError, match=message.split(" ")[-1]):
        main(["--table", str(tmp_path / "t.csv"), "--features", "v", "--label", str(tmp_path / "y.npy"), *flags[2:]])


@pytest.mark.parametrize("kind", ["number", "class", "classes"])
def test_a_label_of_shape_n_1(tmp_path, kind):
    values = np.arange(24) + 0.5 if kind == "number" else np.arange(24) % 2
    np.save(tmp_path / "v.npy", np.ones((24, 2)))
    np.save(tmp_path / "y.npy", values[:, None])
    flags = ["--arrays", f"v={tmp_path / 'v.npy'}", "--label", str(tmp_path / "y.npy"), "--label_kind", kind]
    facts = main([*flags, "--out", str(tmp_path / "out")])
    assert facts["label"]["kind"] == kind
