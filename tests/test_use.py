"""Trained networks are loaded from their run folders alone, predict as they were scored, and say what they lack."""

import csv
import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import export
import main_darts_found_mmimdb
import main_darts_found_own
import main_unimodal_own
import predict_ego
import predict_mmimdb
import predict_ntu
import predict_own
import report
from datasets.own import open_own
from datasets.own.raw import RawInputs
from datasets.own.tables import BadRow
from tasks.loading import load_found
from tasks.predictions import show
from tests.conftest import CLIP_FLAGS
from tests.tasks import test_own
from util.cli import UserError

SMALL = ["--epochs", "1", "--encoder", "track=conv:8", "text=words:8", "numbers=mlp:8"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A late fusion of every kind of array, with learned values for missing inputs; ``.folder`` holds the data."""
    folder = tmp_path_factory.mktemp("use")
    flags = test_own.write(folder)
    options = ["--fusion", "late", "--modality_dropout", "0.3"]
    result = main_darts_found_own.main([*flags, *SMALL, *options])
    return SimpleNamespace(folder=folder, flags=flags, run=result["folder"], result=result)


def raw_samples(data, rows):
    return [{name: data.raw(name, [row])[0] for name in data.manifest.modalities} for row in rows]


def scored(model, data, rows):
    """Probabilities by the road on which a test is scored."""
    with torch.no_grad():
        return model.probabilities(model(data.read(rows))).tolist()


def test_a_network_is_loaded_without_its_data_and_predicts_as_it_was_scored(own, tmp_path):
    model = load_found(own.run)
    assert not model.training and model.classes == ["a", "b", "c"]
    data, rows = model.task.open_split(model.args, "test"), range(6)
    want, samples = scored(model, data, rows), raw_samples(data, rows)
    shutil.copytree(own.run, tmp_path / "moved")
    saved = json.loads((tmp_path / "moved" / "args.json").read_text())
    (tmp_path / "moved" / "args.json").write_text(json.dumps({**saved, "datadir": "nowhere"}))
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    moved = load_found(tmp_path / "moved" / "best.pth")
    assert torch.equal(torch.rand(1), drawn)  # loading draws nothing from the global generator
    found = moved.predict(samples)
    for row, values in zip(found, want, strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(values, abs=1e-6)
        assert row["prediction"] == "abc"[int(np.argmax(values))]
    lacking = moved.predict({**samples[0], "text": None})
    assert lacking["probabilities"] != found[0]["probabilities"]
    with pytest.raises(UserError, match="none of the 4 inputs that the network reads"):
        moved.predict({})
    with pytest.raises(UserError, match="no input 'sound'; it has numbers, track, text, net"):
        moved.predict({"sound": 1})
    with pytest.raises(UserError, match="track: the value has steps of 2 values"):
        moved.predict({"track": np.zeros((4, 2))})


@pytest.mark.parametrize("kind", ["classes", "number"])
def test_other_labels_are_predicted_in_their_own_units(tmp_path, kind):
    flags = test_own.write(tmp_path, kind, {"net": test_own.MODALITIES["net"], "text": ("text", None)})
    result = main_darts_found_own.main([*flags, "--epochs", "1", "--fusion", "late", "--encoder", "text=words:8"])
    model = load_found(result["folder"])
    data = model.task.open_split(model.args, "test")
    (values,), (sample,) = scored(model, data, [1]), raw_samples(data, [1])
    found = model.predict(sample)
    if kind == "number":
        assert found == {"prediction": pytest.approx(values[0])} and 900 < values[0] < 1200
        np.savez(tmp_path / "layers.npz", *sample["net"])
        given = ["--text", sample["text"], "--input", f"net={tmp_path / 'layers.npz'}"]
        ((name, number),) = predict_own.main(["--run", result["folder"], "--device", "cpu", *given])
        assert name == "price" and number == pytest.approx(values[0], rel=1e-5)
    else:
        assert found["prediction"] == [name for name, value in zip("xy", values, strict=True) if value > 0.3]
    with pytest.raises(UserError, match=r"cannot do without net; .*--modality_dropout"):
        model.predict({"text": "red"})


def test_a_unimodal_network_needs_only_its_input(own):
    result = main_unimodal_own.main([*test_own.alone(own), "--modality", "text", *SMALL])
    model = load_found(result["folder"])
    assert model.inputs == ("text",) and model.task.num_features == 1
    data = open_own(own.folder, "test", {"text": model.net.backbone.preparation})
    ((want),) = scored(model, data, [3])
    assert list(model.predict({"text": data.raw("text", [3])[0]})["probabilities"].values()) == pytest.approx(want)


def test_what_is_no_trained_network_is_refused(own, searched, searched_vqa, tmp_path):
    for folder, message in (
        (searched.folder, "is a search, .*main_darts_found"),
        (searched_vqa.folder, "is a search, .*train_"),
        (tmp_path, "has no args.json"),
        (tmp_path / "none", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            load_found(folder)
    shutil.copytree(own.run, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    for script, message in (
        ("main_darts_found_storms.py", r"is a run of a task, storms, that is in no module of tasks/; .*--task MODULE"),
        ("main_darts_found_vqa.py", "the task vqa is one of MMNas"),
        ("main_darts_found_task.py", "the module tasks.task has no TASK"),
    ):
        (tmp_path / "run" / "run.json").write_text(json.dumps({**about, "script": script}))
        with pytest.raises(UserError, match=message):
            load_found(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()  # as of an older version
    assert load_found(tmp_path / "run").classes == ["a", "b", "c"]
    (tmp_path / "run" / "inputs.json").write_text('{"format": "own-inputs"}')
    with pytest.raises(UserError, match=r"inputs.json is not what a training writes"):
        load_found(tmp_path / "run")
    (tmp_path / "run" / "inputs.json").unlink()
    with pytest.raises(UserError, match=r"has no inputs.json"):
        load_found(tmp_path / "run")
    (tmp_path / "run" / "best.pth").unlink()
    with pytest.raises(UserError, match=r"has no best.pth: no epoch is finished; continue it with --resume"):
        load_found(tmp_path / "run")


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    """A network trained on a table of numbers, categories and texts: ``.run``, ``.table``, ``.data``."""
    from datasets.prepare_own import main as prepare_own

    folder, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(1)
    rows = [["name", "year", "kind", "plot", "genre"]]
    for number in range(60):
        year = "" if number % 7 == 6 else round(1950 + 30 * rng.random() + 20 * (number % 2), 2)
        plot = "" if number % 9 == 8 else f"a {('calm', 'loud')[number % 2]} film"
        rows.append([f"film {number}", year, ("long", "short")[number % 2], plot, ("drama", "action")[number % 2]])
    with open(folder / "films.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    inputs = ["--numbers", "year", "--categories", "numbers=kind", "--text", "plot", "--label", "genre"]
    prepare_own(["--table", str(folder / "films.csv"), *inputs, "--id_column", "name", "--out", str(folder / "data")])
    flags = ["--datadir", str(folder / "data"), "--out_dir", str(folder / "runs"), *test_own.SIZES]
    options = ["--fusion", "late", "--epochs", "2", "--encoder", "text=words:8", "--modality_dropout", "0.2"]
    result = main_darts_found_own.main([*flags, *options])
    return SimpleNamespace(run=result["folder"], table=folder / "films.csv", data=folder / "data", rows=rows)


def test_every_row_of_a_table_is_predicted_as_it_was_scored(tabled, tmp_path):
    flags = ["--run", tabled.run, "--device", "cpu", "--table", str(tabled.table), "--batchsize", "7"]
    assert predict_own.main([*flags, "--out", str(tmp_path / "out.csv"), "--id_column", "name"]) == 60
    with open(tmp_path / "out.csv", newline="") as file:
        found = {row["row"]: row for row in csv.DictReader(file)}
    model = load_found(tabled.run)
    data = model.task.open_split(model.args, "test")
    for key, values in zip(data.ids, scored(model, data, range(len(data))), strict=True):
        probabilities = [float(found[key][name]) for name in data.label_names]
        assert probabilities == pytest.approx(values, abs=1e-5)
        assert found[key]["prediction"] == data.label_names[int(np.argmax(values))]


def test_outputs_do_not_replace_inputs(tabled):
    before, made = tabled.table.read_bytes(), Path(tabled.run, "result.json").read_bytes()
    with pytest.raises(UserError, match="is the file that --table reads"):
        predict_own.main(["--run", tabled.run, "--table", str(tabled.table), "--out", str(tabled.table)])
    for out in ("result.json", "result"):  # an export writes OUT.json too
        with pytest.raises(UserError, match="is in the folder that --run reads"):
            export.main(["--run", tabled.run, "--out", str(Path(tabled.run, out))])
    with pytest.raises(UserError, match="is in the folder that DIR reads"):
        report.main([tabled.run, "--format", "csv", "--out", str(Path(tabled.run, "result.json"))])
    assert (tabled.table.read_bytes(), Path(tabled.run, "result.json").read_bytes()) == (before, made)


def test_every_predicted_class_is_printed(capsys):
    model = SimpleNamespace(label="classes")
    prediction = {"prediction": ["a", "b", "c"], "probabilities": {"d": 0.1, "a": 0.9, "b": 0.8, "c": 0.7}}
    assert [name for name, _ in show(model, prediction, 1)] == ["a", "b", "c"]
    assert capsys.readouterr().out.count("<-") == 3
    assert [name for name, _ in show(model, prediction, 9)] == ["a", "b", "c", "d"]


def test_one_sample_is_predicted_from_flags(tabled, capsys):
    flags = ["--run", tabled.run, "--device", "cpu"]
    _, year, kind, plot, _ = tabled.rows[1]
    best = predict_own.main([*flags, "--numbers", f"year={year},kind={kind}", "--text", plot])
    assert sum(probability for _, probability in best) == pytest.approx(1) and "%" in capsys.readouterr().out
    sample = {"numbers": {"year": year, "kind": kind}, "text": plot}
    assert best[0] == pytest.approx(
        tuple(load_found(tabled.run).predict(sample)[k] for k in ("prediction", "probability"))
    )
    assert predict_own.main([*flags, "--input", f"text={plot}"])[0][1] != best[0][1]  # without numbers


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name one sample .* or many"),
        (["--image", "x.jpg"], r"--image fits 0 inputs; .* text \(text\), numbers \(vector\)"),
        (["--numbers", "years=3"], "has years, which numbers does not have; it has year, kind"),
        (["--numbers", "3"], "--numbers 3: expected columns with values"),
        (["--numbers", "year=soon"], "has 'soon' in year, where --numbers expects a number"),
        (["--input", "sound=x"], "the network has no such input; its inputs are text, numbers"),
        (["--table", "TABLE", "--columns", "text=plott"], "has no column 'plott' .*; did you mean 'plot'"),
        (["--table", "TABLE", "--columns", "sound=plot"], "the inputs are text, numbers"),
        (["--table", "OTHER"], r"has no column of any input: text \(plot\), numbers \(year, kind\); name the columns"),
        (["--table", "no.csv"], "no.csv does not exist"),
    ],
)
def test_wrong_samples_are_refused_in_one_line(tabled, tmp_path, flags, message):
    other = tabled.table.with_name("other.csv")
    other.write_text("a,b\n1,2\n")
    flags = [{"TABLE": str(tabled.table), "OTHER": str(other)}.get(flag, flag) for flag in flags]
    with pytest.raises(UserError, match=message):
        predict_own.main(["--run", tabled.run, "--device", "cpu", "--out", str(tmp_path / "out.csv"), *flags])
    assert not list(tmp_path.iterdir())


def test_a_picture_is_predicted_as_if_it_had_been_prepared(tmp_path):
    """The picture goes through the store's size and JPEG."""
    from PIL import Image

    from datasets.prepare_own import main as prepare_own

    rng, lines = np.random.default_rng(0), ["image,label"]
    for number in range(20):
        pixels = rng.integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    table = ["--table", str(tmp_path / "table.csv"), "--image", "image", "--label", "label"]
    facts = prepare_own([*table, "--picture_size", "32", "--out", str(tmp_path / "data")])
    data = open_own(tmp_path / "data", "test")
    facts = json.loads((tmp_path / "data" / "own.json").read_text())
    settings = {"picture_size": facts["request"]["picture_size"], "audio_rate": 0}
    raw = RawInputs(data.manifest, {**facts, **settings}, tmp_path)
    for key, stored in zip(data.ids, data.raw("image", range(len(data))), strict=True):
        assert np.array_equal(raw.value("image", f"{int(key) - 1}.png"), stored)
    assert raw.value("image", "") is None
    with pytest.raises(BadRow, match=r"names .*none.png, which does not exist"):
        raw.value("image", "none.png")


def test_a_recording_is_predicted_as_if_it_had_been_prepared(tmp_path):
    """The recording goes through the store's rate and 16-bit samples."""
    import wave

    from datasets.prepare_own import main as prepare_own

    rng, lines = np.random.default_rng(0), ["sound,label"]
    for number in range(12):
        with wave.open(str(tmp_path / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(rng.integers(-9000, 9000, 400, np.int16).tobytes())
        lines.append(f"{number}.wav,{'ab'[number % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    table = ["--table", str(tmp_path / "table.csv"), "--audio", "sound", "--label", "label", "--audio_rate", "4000"]
    prepare_own([*table, "--split", "0.5,0.25,0.25", "--out", str(tmp_path / "data")])
    data = open_own(tmp_path / "data", "test")
    facts = json.loads((tmp_path / "data" / "own.json").read_text())
    raw = RawInputs(data.manifest, {**facts, "picture_size": 256, "audio_rate": 4000}, tmp_path)
    for key, (samples, rate) in zip(data.ids, data.raw("audio", range(len(data))), strict=True):
        found, same = raw.value("audio", f"{int(key) - 1}.wav")
        assert rate == same == 4000 and np.array_equal(found, samples)
    assert raw.value("audio", (samples, 4000))[0] is samples
    with pytest.raises(BadRow, match=r"table.csv, which is not a readable recording"):
        raw.value("audio", "table.csv")


def test_films_are_predicted_as_they_were_scored(films, searched, narrow_backbones, tmp_path):
    flags = [
        "--search_exp_dir",
        str(searched.folder),
        "--epochs",
        "1",
        "--freeze_backbones",
        "--modality_dropout",
        "0.3",
    ]
    result = main_darts_found_mmimdb.main([*flags, "--out_dir", str(tmp_path), "--num_workers", "0"])
    model = load_found(result["folder"])
    data = model.task.open_split(model.args, "test")
    assert model.classes == data.label_names
    batch = data.read([2])
    given = {name: batch[name][0] for name in ("image", "text")}
    assert load_found(result["folder"], task=model.task).predict(given) == model.predict(given)
    for name in ("image", "text"):
        np.save(tmp_path / f"{name}.npy", batch[name][0].numpy())
    run = ["--run", result["folder"], "--device", "cpu", "--top", "30"]
    inputs = {name: [f"--{name}", str(tmp_path / f"{name}.npy")] for name in ("image", "text")}
    best = predict_mmimdb.main([*run, *inputs["image"], *inputs["text"]])
    want = dict(zip(model.classes, scored(model, data, [2])[0], strict=True))
    assert dict(best) == pytest.approx(want, abs=1e-6)
    read = [name for name in inputs if model.is_read(name)]
    alone = dict(predict_mmimdb.main([*run, *inputs["text"]]))
    assert (alone == pytest.approx(want, abs=1e-6)) == ("image" not in read)
    with pytest.raises(UserError, match=r"expected finite numbers of shape \(300,\)"):
        predict_mmimdb.main([*run, "--text", str(tmp_path / "image.npy")])
    with pytest.raises(UserError, match=r"is a run of mmimdb, not of ntu; use predict_mmimdb.py"):
        predict_ntu.main([*run, "--video", "x"])
    with pytest.raises(UserError, match=r"is a run of mmimdb, not of own; use predict_mmimdb.py"):
        predict_own.main([*run, "--text", "x"])


def train_clips(clip_data, name, out):
    """A network with a random genotype, and its test split."""
    script, flags = importlib.import_module(f"main_darts_found_{name}"), CLIP_FLAGS[name].split()
    sizes = {"genotype": "random", "C": 8, "L": 4, "num_outputs": 8, "epochs": 1, "num_workers": 0, "device": "cpu"}
    flags += [f"--{name}={value}" for name, value in sizes.items()]
    flags += ["--backbone_weights", "random", "--freeze_backbones", "--augment_views", "1", "--cache_features", "ram"]
    model = load_found(script.main([*flags, "--datadir", str(clip_data(name)), "--out_dir", str(out)])["folder"])
    return model, model.task.open_split(model.args, "test")


@pytest.mark.slow
def test_actions_are_predicted_as_they_were_scored(clip_data, narrow_backbones, tmp_path):
    model, data = train_clips(clip_data, "ntu", tmp_path)
    want = dict(zip(model.classes, scored(model, data, [0])[0], strict=True))
    assert model.classes == data.label_names
    sample = {name: data.read([0])[name][0] for name in ("rgb", "skeleton")}
    assert model.predict(sample)["probabilities"] == pytest.approx(want, abs=1e-6)
    with pytest.raises(UserError, match="name the clip with --video FILE and --skeleton FILE"):
        predict_ntu.main(["--run", str(model.folder), "--device", "cpu"])


@pytest.mark.slow
def test_gestures_are_predicted_as_they_were_scored(clip_data, narrow_backbones, tmp_path):
    from PIL import Image

    model, data = train_clips(clip_data, "ego", tmp_path)
    clip = data._clips[1]
    for field in ("rgb", "depth"):
        folder = tmp_path / field
        folder.mkdir()
        for number in range(clip.length):
            (folder / f"{number:06d}.jpg").write_bytes(data._frames.jpeg(clip, field, number))
    flags = ["--run", str(model.folder), "--device", "cpu", "--top", "8", "--rgb", str(tmp_path / "rgb")]
    best = predict_ego.main([*flags, "--depth", str(tmp_path / "depth")])
    assert dict(best) == pytest.approx(dict(zip(model.classes, scored(model, data, [1])[0], strict=True)), abs=1e-6)
    Image.new("L", (8, 8)).save(tmp_path / "depth" / "x.png")
    with pytest.raises(UserError, match="expected the same moments in both"):
        predict_ego.main([*flags, "--depth", str(tmp_path / "depth")])
    with pytest.raises(UserError, match="--depth nowhere is not a folder"):
        predict_ego.main([*flags, "--depth", "nowhere"])


@pytest.mark.slow
def test_a_network_of_mmnas_is_loaded(searched_vqa):
    import train_vqa

    flags = [*searched_vqa.flags, "--RUN", "train", "--ARCH_PATH", str(searched_vqa.folder), "--epochs", "1"]
    result = train_vqa.main(flags)
    model, plain = load_found(result["folder"]), load_found(result["folder"], plain=True)
    args = SimpleNamespace(**{**vars(model.args), "RUN": "val"})
    batch = model.task.open_eval_split(args, model.metadata)[1].read(range(3))
    with torch.no_grad():
        torch.testing.assert_close(model(batch), plain(batch), atol=1e-5, rtol=1e-4)
    assert type(model.net.lstm) is not None and model.folder == Path(result["folder"])
