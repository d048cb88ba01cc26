"""Networks are exported to files that agree with torch elsewhere; scores under disturbance; model cards."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import export
import main_darts_found_own
import main_unimodal_own
import robustness
from engine.model_card import card_text
from reports.comparing import compare
from reports.pictures import pictures_of
from reports.reading import read_runs
from tasks.exportable import static_pool
from tasks.exporting import _attention_of_four_axes, check_libraries
from tasks.loading import load_found
from tasks.robustness import Noise, Spread, WithoutWords
from tests.tasks import test_own
from util.cli import UserError

FLAT = {"numbers": ("vector", 5), "net": ("layers", ((4,), (6,)))}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """A network with a random genotype on vectors and layers, trained without missing inputs in mind for layers."""
    folder = tmp_path_factory.mktemp("flat")
    flags = test_own.write(folder, "class", FLAT)
    result = main_darts_found_own.main([*flags, "--genotype", "random", "--steps", "2", "--epochs", "8"])
    return SimpleNamespace(run=result["folder"], result=result, flags=flags)


def random_inputs(about, count):
    rng = np.random.default_rng(0)
    return {one["name"]: rng.normal(size=(count, *one["shape"][1:])).astype(np.float32) for one in about["inputs"]}


def test_a_network_is_exported_and_described(flat, tmp_path, capsys):
    out = tmp_path / "net.pt2"
    about = export.main(["--run", flat.run, "--out", str(out)])
    assert "agrees with torch" in capsys.readouterr().out and about["classes"] == ["a", "b", "c"]
    assert json.loads((tmp_path / "net.pt2.json").read_text()) == about
    extra = {"metadata.json": ""}
    net = torch.export.load(out, extra_files=extra).module()
    assert json.loads(extra["metadata.json"])["inputs"] == about["inputs"]
    model, inputs = load_found(flat.run), random_inputs(about, 5)
    batch = {"numbers": torch.from_numpy(inputs["numbers"])} if "numbers" in inputs else {}
    batch["net"] = {part: torch.from_numpy(inputs.get(f"net.{part}", np.zeros((5, 4), np.float32))) for part in "01"}
    with torch.no_grad():
        found, want = net(*map(torch.from_numpy, inputs.values())), model(batch)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_every_part_is_exported_in_every_form(flat, form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    single = main_unimodal_own.main([*flat.flags[:4], *flat.flags[8:], "--modality", "numbers", "--epochs", "1"])
    for number, flags in enumerate(([flat.run], [flat.run, "--features"], [single["folder"]])):
        about = export.main(["--run", *flags, "--format", form, "--out", str(tmp_path / f"{number}.{form}")])
        assert about["checked"]["max_difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_a_network_of_mmnas_is_exported(searched_vqa, form, tmp_path):
    import train_vqa

    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    flags = [*searched_vqa.flags, "--RUN", "train", "--ARCH_PATH", str(searched_vqa.folder), "--epochs", "1"]
    run = train_vqa.main([*flags, "--out_dir", str(tmp_path)])["folder"]
    sizes = ["--tokens", "5", "--regions", "7"]
    about = export.main(["--run", run, "--format", form, "--out", str(tmp_path / "net"), *sizes])
    assert {"name": "tokens", "shape": ["batch", 5], "dtype": "int64"} in about["inputs"]
    assert about["checked"]["max_difference"] < 1e-4 and "answers" in about
    with pytest.raises(UserError, match="only networks of BM-NAS have backbones"):
        export.main(["--run", run, "--features", "--out", str(tmp_path / "no")])
    with pytest.raises(UserError, match="is a run of vqa; only runs of BM-NAS tasks"):
        robustness.main(["--run", run])


def test_a_fresh_process_cannot_import_the_suite():
    """What the check rests on."""
    outcome = subprocess.run([sys.executable, "-I", "-c", "import tasks.exporting"], capture_output=True, text=True)
    assert "No module named 'tasks'" in outcome.stderr


@pytest.fixture(scope="module")
def lengths(tmp_path_factory):
    """A late fusion of inputs whose tensors depend on the samples' lengths; numbers may be missing."""
    folder = tmp_path_factory.mktemp("lengths")
    kinds = {name: test_own.MODALITIES[name] for name in ("numbers", "track", "text")}
    flags = test_own.write(folder, "class", kinds)
    encoders = ["--encoder", "text=words:8", "track=conv:8", "numbers=mlp:8"]
    run = main_darts_found_own.main([*flags, *encoders, "--fusion", "late", "--epochs", "1"])["folder"]
    return SimpleNamespace(run=run, model=load_found(run))


def test_texts_and_sequences_of_any_length_are_exported_and_inputs_may_be_missing(lengths, tmp_path):
    out = tmp_path / "net.pt2"
    about = export.main(["--run", lengths.run, "--out", str(out), "--missing"])
    shapes = {one["name"]: one["shape"] for one in about["inputs"]}
    assert shapes["track.values"] == ["batch", "track_length", 3] and shapes["text.values"] == ["batch", "text_length"]
    assert shapes["text.length"] == ["batch"] and about["inputs"][-1] == {
        "name": "numbers_present",
        "shape": ["batch"],
        "dtype": "bool",
    }
    assert about["lengths"] == {"track_length": [1, None], "text_length": [1, None]}
    assert about["vocabulary"]["text"][2:4] == list(lengths.model.net.backbones["text"].preparation.words[2:4])
    net, data = torch.export.load(out).module(), lengths.model.task.open_split(lengths.model.args, "test")
    batch = data.read(range(6))  # of which some lack numbers
    parts = {f"{name}.{part}": value for name in ("track", "text") for part, value in batch[name].items()}
    inputs = [({**batch, **parts})[name] for name in shapes]
    short = [torch.ones(1, 5), torch.ones(1, 1, 3), torch.tensor([1]), torch.ones(1, 1).long(), torch.tensor([1])]
    with torch.no_grad():
        torch.testing.assert_close(net(*inputs), lengths.model(batch), atol=1e-5, rtol=1e-4)
        assert net(*short, torch.tensor([False])).shape == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_samples_can_be_padded_to_a_fixed_length(lengths, form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    flags = ["--run", lengths.run, "--format", form, "--out", str(tmp_path / "net"), "--length", "text=6"]
    about = export.main(flags)
    shapes = {one["name"]: one["shape"] for one in about["inputs"]}
    assert shapes["text.values"] == ["batch", 6] and "zeros" in about["padding"]
    assert shapes["track.values"] == ["batch", "track_length", 3] and about["checked"]["max_difference"] < 1e-4


@pytest.mark.slow
def test_the_padding_of_a_transformer_has_no_influence_in_an_exported_file(tmp_path):
    """Its mask must be in the file."""
    from tests.models.test_encoders import tiny_bert

    kinds = {name: test_own.MODALITIES[name] for name in ("track", "text")}
    (tmp_path / "bert").mkdir()
    encoders = ["--encoder", f"text={tiny_bert(tmp_path / 'bert')}", "track=conv:8"]
    flags = [*test_own.write(tmp_path / "data", "class", kinds), *encoders, "--fusion", "late", "--epochs", "1"]
    run = main_darts_found_own.main(flags)["folder"]
    about = export.main(["--run", run, "--out", str(tmp_path / "net.pt2")])
    assert about["lengths"]["text_length"] == [2, 512]  # of the library's model


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", "numbers=3"], "reads no text, recording or sequence of this name"),
        (["--length", "text=many"], "text=many: expected a number of words, steps or samples"),
        (["--length", "text=6", "--features"], "with --features the file reads no texts"),
        (["--tokens", "3"], "only networks of MMNas have them"),
    ],
)
def test_flags_that_do_not_fit_the_network_are_refused(lengths, flags, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export.main(["--run", lengths.run, "--out", str(tmp_path / "no"), *flags])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_told_and_nothing_is_left(flat, tmp_path, monkeypatch):
    out = str(tmp_path / "net.pt2")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"--format onnx needs onnx.*pip install onnx onnxscript onnxruntime"):
        check_libraries("onnx")

    def broken(*args, **options):
        raise ValueError("no such\noperation")

    monkeypatch.setattr(torch.export, "export", broken)
    with pytest.raises(UserError, match=r"torch cannot export this network \(no such operation\); --features"):
        export.main(["--run", flat.run, "--out", out])
    assert not list(tmp_path.glob("net*"))


@pytest.mark.slow
def test_a_file_that_gives_other_outputs_is_not_kept(flat, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.exporting._write_pt2", lambda net, example, about, path: path.write_bytes(b"nothing"))
    with pytest.raises(UserError, match="the file that was written cannot be run"):
        export.main(["--run", flat.run, "--out", str(tmp_path / "net.pt2")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 7), (2, 3, 5, 6), (2, 3, 4, 2, 3)])
@pytest.mark.parametrize("pool", [(1, 1), (2, 1), (3, 4), (8, 1)])
def test_pooling_in_slices_is_adaptive_pooling(shape, pool):
    from models.backbone_net import pool_feature

    feature = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(static_pool(feature, pool), pool_feature(feature, pool))


def test_attention_with_a_head_axis_is_the_same():
    parts = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)).unbind()
    want = F.scaled_dot_product_attention(*parts)
    with _attention_of_four_axes():
        found = F.scaled_dot_product_attention(*parts)
    torch.testing.assert_close(found, want)


def test_scores_fall_when_inputs_are_removed_or_disturbed(flat, capsys):
    result = robustness.main(["--run", flat.run, "--noise", "0", "5", "--device", "cpu"])
    assert result["clean"] == pytest.approx(flat.result["metrics"]["test"], rel=1e-5)
    assert result["same_data_as_tested"] is True and result["synthetic"] is True
    noise = result["noise"]["numbers"]["scores"]
    assert noise["0"] == result["clean"] and noise["5"]["loss"] > result["clean"]["loss"]
    assert result["without"]["numbers"]["instead"] == "learned values"
    if "net" in result["without"]:
        assert result["without"]["net"]["instead"] == "zeros"
    folder = load_found(flat.run).folder
    assert json.loads((folder / "robustness.json").read_text()) == result
    picture = ElementTree.parse(folder / "robustness.svg").getroot()
    assert len(picture.findall(".//*[@class='panel']")) == len(result["noise"])
    (one,) = compare(read_runs([folder]))
    drawn = {shown.caption: shown.svg for shown in pictures_of(one)}
    assert ">numbers<" in drawn[next(caption for caption in drawn if caption.endswith(": robustness"))]
    assert "noise 5" in capsys.readouterr().out
    again = robustness.main(["--run", flat.run, "--noise", "5", "--device", "cpu"])
    assert again["noise"]["numbers"]["scores"]["5"] == noise["5"]  # drawn from the seed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ntu", "ego"])
def test_clips_are_scored_without_each_input_and_with_noise_on_it(clip_data, narrow_backbones, tmp_path, name):
    from tests.test_use import train_clips

    model, data = train_clips(clip_data, name, tmp_path)
    result = robustness.main(["--run", str(model.folder), "--noise", "0", "2", "--device", "cpu"])
    assert set(result["without"]) | set(result["not_read"]) == set(model.inputs)
    assert result["samples"] == len(data) and result["same_data_as_tested"] is True and result["synthetic"] is True
    for read in result["noise"].values():
        assert read["scores"]["0"] == result["clean"] and read["scores"]["2"]["loss"] != result["clean"]["loss"]
    picture = ElementTree.parse(model.folder / "robustness.svg").getroot()
    assert len(picture.findall(".//*[@class='panel']")) == len(result["noise"])


def test_noise_is_relative_to_the_spread_and_leaves_lengths_and_padding_out():
    spread, length = Spread(["a", "b"]), torch.tensor([1, 3])
    values = torch.tensor([[1.0, 9.0, 9.0], [3.0, 5.0, 7.0]])[..., None]
    batch = {"a": {"values": values, "length": length}, "b": torch.tensor([[0, 255], [100, 100]], dtype=torch.uint8)}
    spread(batch)
    assert spread.deviation("a", "values") == pytest.approx(np.std([1, 3, 5, 7]))
    assert spread.deviation("a", "length") == 0
    noisy = Noise("a", 2.0, spread, torch.Generator().manual_seed(0))(batch)
    drawn = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy["a"]["values"], values + 2 * np.std([1, 3, 5, 7]).item() * drawn)
    assert torch.equal(noisy["a"]["length"], length) and batch["a"]["values"] is values
    pixels = Noise("b", 9.0, spread, torch.Generator().manual_seed(0))(batch)["b"]
    assert pixels.dtype == torch.uint8 and not torch.equal(pixels, batch["b"])


def test_words_are_dropped_as_often_as_asked_and_always_the_same():
    text = " ".join(f"w{number}" for number in range(2000))
    (kept,) = WithoutWords(list, 0.3, 1)([text])
    assert 1300 < len(kept.split()) < 1500 and WithoutWords(list, 0.3, 1)([text]) == [kept]
    assert WithoutWords(list, 0.0, 1)([text, None]) == [text, None] and WithoutWords(list, 1.0, 1)([text]) == [""]


def test_the_model_card_says_what_the_result_says(flat):
    folder = load_found(flat.run).folder
    card = (folder / "MODEL_CARD.md").read_text()
    scores = flat.result["metrics"]["test"]
    row = " | ".join(f"{value:.4f}" for value in scores.values())
    assert f"| test | {row} |" in card and "made up, SYNTHETIC" in card and "test: 24 samples" in card
    assert "- numbers: mlp, features of layers 0, 1, 2; weights started from: random" in card
    assert "Its scores say nothing about real data" in card and "based on 24 samples" in card
    assert "optimistic" not in card and "smoke tests" not in card and "refuses such samples" not in card


def test_the_model_card_warns_of_what_weakens_a_result(flat):
    arguments = {**flat.result["arguments"], "freeze_backbones": True, "train_encoders": "none", "small_dataset": True}
    changed = {"protocol": "epoch with the best TEST score", "arguments": arguments, "missing": {}}
    card = card_text({**flat.result, **changed})
    for words in ("optimistic", "smoke tests", "--small_dataset", "refuses such samples"):
        assert words in card
    assert "Unknown" not in card_text({**flat.result, "metrics": {"train": {"loss": float("nan")}}})
