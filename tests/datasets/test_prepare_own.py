"""``prepare_own.py``: a stranger's table becomes a folder, with counts, splits and inputs as they should be."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from datasets.own import media, open_own, read_manifest
from datasets.own.splitting import draw_splits
from datasets.prepare_own import main
from tests.datasets.own_tables import ALL, PLOTS, films, odd_picture, write_csv
from util.cli import UserError


def prepare(out, flags, workers=0):
    return main([*flags.split(), "--out", str(out), "--workers", str(workers)])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    rows = films(folder)
    write_csv(folder / "films.csv", rows, encoding="utf-8-sig")
    return folder, rows


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    return out, prepare(out, f"--table {source[0] / 'films.csv'} {ALL} --id_column film --label genre")


def every_sample(out):
    """id -> (split, row, data set)."""
    made = {}
    for split in read_manifest(out).splits:
        data = open_own(out, split)
        made |= {sample_id: (split, row, data) for row, sample_id in enumerate(data.ids)}
    return made


def content(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_every_input_comes_back(source, prepared):
    folder, rows = source
    samples = every_sample(prepared[0])
    assert set(samples) == {row["film"] for row in rows}
    years = np.array([row["year"] for row in rows if row["year"] != "NA" and samples[row["film"]][0] == "train"])
    for row in rows:
        _, place, data = samples[row["film"]]
        (text,), (image,), (audio,) = (data.raw(name, [place]) for name in ("text", "image", "audio"))
        (numbers,), (categories,), (features,) = (
            data.raw(name, [place]) for name in ("numbers", "categories", "features")
        )
        assert text == (row["plot"] or None)
        assert (image is None) == (row["poster"] == "") and (image is None or image.shape == (30, 40, 3))
        assert (audio is None) == (row["clip"] == "")
        assert audio is None or (audio[1] == 16000 and abs(len(audio[0]) - 1600) <= 16 and 0.55 < audio[0].max() < 0.65)
        assert (features is None) == (row["emb"] == "")
        assert features is None or np.array_equal(features, np.load(folder / row["emb"]))
        assert (numbers is None) == (row["year"] == "NA" and row["rating"] == "")
        if row["year"] != "NA":
            assert numbers[0] == pytest.approx((row["year"] - years.mean()) / years.std(), abs=1e-5)
        elif numbers is not None:
            assert numbers[0] == 0
        assert (categories is None) == (row["country"] == "")
        assert categories is None or (sum(categories) == 1 and len(categories) == 3)


def test_the_manifest_counts(prepared):
    out, facts = prepared
    manifest = read_manifest(out)
    assert manifest.label.classes == ("comedy", "drama", "western") and sum(manifest.splits.values()) == 100
    assert sum(manifest.modalities["image"].missing.values()) == 20
    assert sum(manifest.modalities["audio"].missing.values()) == 90
    assert {name: one.kind for name, one in manifest.modalities.items()} == {
        "image": "picture",
        "text": "text",
        "audio": "audio",
        "numbers": "vector",
        "categories": "vector",
        "features": "vector",
    }
    # Four comedies: in every split. One western: in train.
    assert [facts["classes"][split] for split in ("train", "dev", "test")] == [[2, 67, 1], [1, 14, 0], [1, 14, 0]]
    assert facts["tables"]["numbers"]["filled"] == {"year": 25, "rating": 16}
    assert (out / "contact_sheet.png").is_file()
    page = (out / "samples.html").read_text(encoding="utf-8")
    assert any(plot in page for plot in PLOTS[:4]) and "<i>missing</i>" in page


@pytest.mark.parametrize("form", ["semicolons", "tabs", "jsonl", "json"])
def test_every_form_of_table_gives_the_same(source, prepared, tmp_path, form):
    rows = source[1]
    path = source[0] / {"semicolons": "f.csv", "tabs": "f.tsv", "jsonl": "f.jsonl", "json": "f.json"}[form]
    if form in ("semicolons", "tabs"):
        write_csv(path, rows, ";" if form == "semicolons" else "\t")
    else:
        kept = [{name: value for name, value in row.items() if value != ""} for row in rows]
        lines = [json.dumps(row, ensure_ascii=form == "json") for row in kept]
        path.write_text("\n".join(lines) if form == "jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    facts = prepare(tmp_path, f"--table {path} {ALL} --id_column film --label genre")
    assert facts["fingerprints"] == prepared[1]["fingerprints"]


def test_an_interrupted_preparation_goes_on(source, prepared, tmp_path, monkeypatch):
    """Killed after some pictures, and continued by two processes: every byte is the same."""
    flags = f"--table {source[0] / 'films.csv'} {ALL} --id_column film --label genre"
    decoded, encode = itertools.count(), media.encode_picture

    def dies(source, size):
        if next(decoded) == 30:
            raise KeyboardInterrupt
        return encode(source, size)

    with monkeypatch.context() as patch:
        patch.setattr(media, "encode_picture", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, flags)
    assert not (tmp_path / "own.json").exists()
    with pytest.raises(UserError, match="not finished"):
        open_own(tmp_path, "train")
    journal = tmp_path / "media/image/journal.jsonl"
    assert len(journal.read_bytes().splitlines()) == 30
    with open(tmp_path / "media/image/blobs.bin", "ab") as file:
        file.write(b"half a picture")
    prepare(tmp_path, flags, workers=2)
    found, expected = content(tmp_path), content(prepared[0])
    for path in (Path("own.json"), Path("samples.html"), Path("contact_sheet.png")):  # the name of the folder
        assert found.pop(path) and expected.pop(path)
    assert found == expected


def test_a_finished_folder_is_kept(source, prepared, tmp_path, capsys):
    path = write_csv(tmp_path / "t.csv", [{"a": f"text {number}", "y": number % 2} for number in range(12)])
    flags = f"--table {path} --text a --label y"
    first = prepare(tmp_path / "out", flags)
    assert "is up to date" not in capsys.readouterr().out
    assert prepare(tmp_path / "out", flags) == first and "is up to date" in capsys.readouterr().out
    with pytest.raises(UserError, match="with other flags; choose another --out, or replace them with --overwrite"):
        prepare(tmp_path / "out", f"{flags} --seed 1")
    assert prepare(tmp_path / "out", f"{flags} --seed 1 --overwrite")["fingerprints"] != first["fingerprints"]
    # What the new data do not have goes.
    flags = f"--table {path} --categories b=a --label y --split 0.5,0,0.5 --overwrite"
    assert prepare(tmp_path / "out", flags)["splits"] == {"train": 6, "test": 6}
    assert not list((tmp_path / "out").glob("*/text*")) and not (tmp_path / "out" / "dev").exists()
    with pytest.raises(UserError, match="contains files that this script did not make"):
        prepare(tmp_path, flags)


def test_shares_and_groups():
    rng = np.random.default_rng(0)
    strata = np.array([0] * 950 + [1] * 40 + [2] * 10 + [3] * 3 + [4] * 2 + [5] + [-1] * 4)
    drawn = draw_splits(strata, (0.7, 0.15, 0.15), 0)
    table = np.array([[((drawn == split) & (strata == one)).sum() for split in range(3)] for one in range(6)])
    assert table[:3].tolist() in ([[665, 143, 142], [28, 6, 6], [7, 2, 1]], [[665, 142, 143], [28, 6, 6], [7, 1, 2]])
    assert table[3:].tolist() == [[1, 1, 1], [1, 0, 1], [1, 0, 0]] and (drawn[-4:] == -1).all()
    assert np.array_equal(drawn, draw_splits(strata, (0.7, 0.15, 0.15), 0))
    assert not np.array_equal(drawn, draw_splits(strata, (0.7, 0.15, 0.15), 1))
    groups = rng.integers(0, 60, len(strata))
    drawn = draw_splits(strata, (0.7, 0.15, 0.15), 0, groups)
    for group in range(60):
        assert len(set(drawn[(groups == group) & (strata >= 0)])) <= 1
    shares = np.bincount(drawn[drawn >= 0]) / (strata >= 0).sum()
    assert np.abs(shares - [0.7, 0.15, 0.15]).max() < 0.03
    for one, least in ((0, 100), (1, 4)):
        assert min(np.bincount(drawn[(strata == one)], minlength=3)) >= least


@pytest.mark.parametrize("kind", ["column", "files", "half"])
def test_given_splits(tmp_path, kind):
    rows = [
        {"id": number, "a": f"t{number}", "y": number % 2, "part": ("train", "val", "test")[(number // 2) % 3]}
        for number in range(60)
    ]
    if kind == "half":
        rows = [row | {"part": "Train" if row["part"] == "val" else row["part"]} for row in rows]
    flags = "--text a --label y --id_column id"
    if kind == "files":
        paths = {part: tmp_path / f"{part}.csv" for part in ("train", "val", "test")}
        for part, path in paths.items():
            write_csv(path, [row for row in rows if row["part"] == part])
        facts = prepare(tmp_path / "out", f"--split_files {' '.join(f'{p}={f}' for p, f in paths.items())} {flags}")
    else:
        facts = prepare(tmp_path / "out", f"--table {write_csv(tmp_path / 't.csv', rows)} {flags} --split_column part")
    test = {str(row["id"]) for row in rows if row["part"] == "test"}
    assert set(open_own(tmp_path / "out", "test").ids) == test
    drawn = "dev drawn from train" in facts["split_rule"]
    assert drawn == (kind == "half")
    assert facts["splits"] == ({"train": 32, "dev": 8, "test": 20} if drawn else dict.fromkeys(facts["splits"], 20))


@pytest.mark.parametrize(
    ("labels", "flags", "kind", "classes"),
    [
        (["a", "b", "c"], "", "class", ("a", "b", "c")),
        (["10", "9.0", "-1"], "", "class", ("-1", "9.0", "10")),
        (["1.5", "2", "-3e2"], "", "number", ()),
        (["1", "2", "3"], "--label_kind number", "number", ()),
        (["a|b", "b", "c|b"], "--label_separator |", "classes", ("a", "b", "c")),
        (["1", "0", "1"], "--label_kind classes", "classes", ("0", "1")),
    ],
)
def test_kinds_of_labels(tmp_path, capsys, labels, flags, kind, classes):
    rows = [{"a": f"t{number}", "y": labels[number % 3]} for number in range(30)]
    prepare(tmp_path / "out", f"--table {write_csv(tmp_path / 't.csv', rows)} --text a --label y {flags}")
    data = open_own(tmp_path / "out", "train")
    assert data.manifest.label.kind == kind and data.manifest.label.classes == classes
    printed = capsys.readouterr().out.splitlines()[0]
    assert f"label: y, {kind}, " in printed and ("--label_kind overrides this" in printed) != ("label_kind" in flags)
    row, value = int(data.ids[0]) - 1, data.read([0], only=())["label"][0]
    text = labels[row % 3]
    if kind == "number":
        assert float(value) == float(text)
    elif kind == "class":
        assert classes[int(value)] == text
    else:
        assert {classes[place] for place in np.flatnonzero(value)} == set(text.split("|"))


def test_parquet_with_pictures_inside(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    name = odd_picture(tmp_path, 3)
    inside = {"bytes": (tmp_path / name).read_bytes(), "path": "elsewhere.png"}
    columns = {
        "image": [inside, None] * 10,
        "text": ["слово", None] * 10,
        "tags": [["a"], ["a", "b"]] * 10,
        "score": [1.5, None] * 10,
    }
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    flags = f"--table {tmp_path / 't.parquet'} --image image --text text --numbers score --label tags"
    facts = prepare(tmp_path / "out", flags)
    assert facts["label"] == {"name": "tags", "kind": "classes", "classes": ["a", "b"]}
    assert [sum(one["missing"].values()) for one in facts["modalities"].values()] == [10, 10, 10]
    data = open_own(tmp_path / "out", "train")
    ((picture,),) = [[value for value in data.raw("image", range(2)) if value is not None][:1]]
    assert picture.shape == (30, 40, 3) and "files of image in more than one split: 1" in facts["notes"][0]


def test_a_file_that_ends_the_decoder_is_named(tmp_path, monkeypatch):
    """A process that dies on a picture is reported as that picture's fault."""
    rows = [{"p": odd_picture(tmp_path, number), "y": number % 2} for number in range(12)]
    monkeypatch.setattr(media, "map_tasks", lambda function, tasks, workers: ((one, None) for one in tasks))
    with pytest.raises(UserError, match="which crashes the process that decodes it"):
        prepare(tmp_path / "out", f"--table {write_csv(tmp_path / 't.csv', rows)} --image p --label y")
