"""Data of one's own, from a prepared folder to a tested network; what does not fit is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import main_darts_found_own as found
import main_darts_searchable_own as search
import main_unimodal_own as unimodal
from datasets.own.manifest import OwnLabel
from datasets.own.writing import write_samples
from tasks.own_split import TrainSplit
from util.cli import UserError

COUNTS = {"train": 48, "dev": 24, "test": 24}
MODALITIES = {
    "numbers": ("vector", 5),
    "track": ("sequence", 3),
    "text": ("text", None),
    "net": ("layers", ((4,), (6,))),
}
LABELS = {
    "class": OwnLabel("kind", "class", ("a", "b", "c")),
    "classes": OwnLabel("tags", "classes", ("x", "y")),
    "number": OwnLabel("price", "number", ()),
}
WORDS = ("red", "green", "blue")
FAST = ["--derive", "argmax"]
SIZES = ["--C", "8", "--L", "2", "--batchsize", "12", "--num_workers", "0", "--device", "cpu"]


def sample(rng, number, kind):
    """(id, label, values) of a made-up sample whose class shows in every input; some inputs are missing."""
    group = number % 3
    numbers = None if number % 4 == 3 else (rng.normal(size=5) + 2 * group).astype(np.float32)
    track = rng.normal(size=(2 + number % 5, 3)).astype(np.float32)
    values = {
        "numbers": numbers,
        "track": track,
        "text": f"a {WORDS[group]} film",
        "net": [rng.normal(size=4).astype(np.float32), rng.normal(size=6).astype(np.float32)],
    }
    label = {"class": group, "classes": [group == 0, group < 2], "number": 1000.0 + 50 * group}[kind]
    return str(number), label, values


def write(folder, kind="class", modalities=MODALITIES):
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in COUNTS.items():
        rows = [sample(rng, number, kind) for number in range(count)]
        splits[split] = [(key, label, {name: values[name] for name in modalities}) for key, label, values in rows]
    facts = {"name": "made", "description": "made up", "synthetic": True, "license": None, "citation": None}
    write_samples(folder, splits, LABELS[kind], modalities, facts)
    return ["--datadir", str(folder), "--out_dir", str(folder / "runs"), *SIZES]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    flags = write(folder)
    chosen = ["--encoder", "numbers=mlp:8", "text=words:8", "--encoder", "track=conv:8,8", "--taps", "numbers=1"]
    result = search.main([*flags, *FAST, *chosen, "--epochs", "2", "--max_tokens", "7"])
    return SimpleNamespace(folder=folder, flags=flags, result=result, run=result["folder"])


def test_a_search_reads_every_kind_of_modality_and_counts_missing_inputs(searched):
    result = searched.result
    assert result["genotype"]["inputs"] == ["numbers_1", "track_1", "track_2", "text_1", "net_0", "net_1"]
    assert result["missing"] == {"numbers": {"train": 12, "dev": 6, "test": 6}}
    assert result["encoders"]["track"] == {"encoder": "conv", "taps": [1, 2], "channels": [8, 8]}
    assert result["parameters"]["placeholders"] == 8 and result["data"]["synthetic"] is True
    assert result["backbones_started_from"]["net"] == "features in the data"
    assert set(result["metrics"]["dev"]) == {"loss", "accuracy", "macro_f1"}


def test_a_found_training_takes_encoders_taps_and_sizes_from_the_search(searched):
    result = found.main(["--search_exp_dir", searched.run, "--epochs", "2", "--modality_dropout", "0.3"])
    for name in ("encoder", "taps", "max_tokens", "C", "L", "num_outputs", "datadir"):
        assert result["arguments"][name] == searched.result["arguments"][name], name
    assert result["arguments"]["modality_dropout"] == 0.3 and "placeholders" in result["parameters"]
    again = found.main(["--eval_exp_dir", result["folder"], "--device", "cpu"])
    assert again["metrics"]["test"] == pytest.approx(result["metrics"]["test"])


@pytest.mark.parametrize("flags", [["--fusion", "late"], ["--fusion", "concat"], ["--genotype", "random"]])
def test_baselines_need_no_search(searched, flags):
    result = found.main([*searched.flags, "--epochs", "1", "--encoder", "track=conv:8", "text=words:8", *flags])
    assert 0 <= result["metrics"]["test"]["accuracy"] <= 1 and "track" in result["encoders"]


def alone(searched):
    """The flags without those of a fusion."""
    place = searched.flags.index("--C")
    return searched.flags[:place] + searched.flags[place + 2 :]


def test_a_unimodal_encoder_is_taken_over_with_its_settings_and_stays_as_it_is(searched):
    chosen = ["--encoder", "numbers=mlp:9,7", "--taps", "numbers=0,2"]
    trained = unimodal.main([*alone(searched), "--modality", "numbers", *chosen, "--epochs", "2"])
    weights = ["--encoder_weights", f"numbers={trained['folder']}"]
    small = ["--epochs", "1", "--encoder", "track=conv:8", "text=words:8"]
    result = search.main([*searched.flags, *FAST, *weights, *small])
    assert result["encoders"]["numbers"] == {"encoder": "mlp", "taps": [0, 2], "channels": [5, 7]}
    assert result["backbones_started_from"]["numbers"].startswith(trained["folder"])
    import torch

    kept = torch.load(f"{trained['folder']}/backbone.pth")
    best = torch.load(f"{result['folder']}/best.pth", weights_only=True)["net"]
    assert all(torch.equal(value, best[f"backbones.numbers.{key}"]) for key, value in kept.items())


def test_a_search_that_is_resumed_gives_the_same(searched, tmp_path):
    chosen = ["--encoder", "track=conv:8", "text=words:8", "--save", "cut"]
    whole = search.main([*searched.flags, *FAST, *chosen, "--epochs", "2", "--strategy", "gdas"])
    part = search.main([*searched.flags, *FAST, *chosen, "--epochs", "1", "--strategy", "gdas"])
    # The schedule of the learning rate depends on --Ti, not on --epochs; gdas' temperature does on --epochs.
    assert part["epochs"] == 1
    resumed = search.main(["--resume", whole["folder"]])
    assert resumed["genotype"] == whole["genotype"] and resumed["metrics"] == whole["metrics"]


def test_candidates_that_are_trained_one_by_one_train_their_encoders_anew_and_resume(searched, tmp_path):
    flags = [*searched.flags, "--strategy", "evolution", "--encoder", "track=conv:8", "text=words:8"]
    flags += ["--training_epochs", "1", "--population", "2", "--tournament", "2"]
    whole = search.main([*flags, "--budget", "3", "--save", "all"])
    part = search.main([*flags, "--budget", "2", "--save", "part"])
    resumed = search.main(["--resume", part["folder"], "--budget", "3"])
    assert resumed["genotype"] == whole["genotype"] and resumed["metrics"] == whole["metrics"]
    assert whole["encoders"]["text"]["encoder"] == "words" and whole["missing"]["numbers"]["dev"] == 6
    logs = [Path(one["folder"], "log.jsonl").read_text().splitlines() for one in (whole, resumed)]
    losses = [[json.loads(line)["dev"]["loss"] for line in lines] for lines in logs]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    args = json.loads(Path(whole["folder"], "args.json").read_text())
    assert args["Ti"] == 1  # each candidate has a schedule of its own


NUMBER_SCORES = {"mean_absolute_error", "correlation", "r2"}


@pytest.mark.parametrize(("kind", "scores"), [("classes", {"f1"}), ("number", NUMBER_SCORES)])
def test_other_labels_have_their_loss_and_scores(tmp_path, kind, scores):
    flags = write(tmp_path, kind, {"numbers": ("vector", 5), "net": ("layers", ((4,), (6,)))})
    result = found.main([*flags, "--fusion", "late", "--epochs", "6", "--eta_max", "1e-2"])
    assert set(result["metrics"]["test"]) == {"loss", *scores}
    if kind == "number":
        # Labels are 1000 to 1100: an error in their own units, far below that of a network without rescaling.
        assert result["metrics"]["test"]["mean_absolute_error"] < 40 and result["metrics"]["test"]["r2"] > 0.2


def test_rare_classes_weigh_more_on_demand(searched):
    weights = TrainSplit(SimpleNamespace(datadir=searched.folder)).class_weights(3)
    assert weights == pytest.approx([1.0, 1.0, 1.0])


def test_memory_and_time_are_estimated_with_inputs_of_several_tensors(searched, capsys):
    found.main([*searched.flags, "--estimate", "--genotype", "random"])
    assert "training on train, an epoch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--encoder", "sound=logmel"], "sound=logmel: .* has no modality sound, but numbers, track, text, net"),
        (["--encoder", "numbers=conv"], "numbers is a vector; its encoders are mlp"),
        (["--taps", "numbers=x"], "expected numbers of layers, such as numbers=0,2,4"),
        (["--taps", "numbers=5"], "mlp has the taps 0 to 2"),
        (["--encoder_weights", "text=nowhere"], "nowhere does not exist; pass the run folder"),
        (["--num_outputs", "2"], "has 3 labels, but --num_outputs is 2"),
        (["--num_input_nodes", "2"], "use "),
        (["--select_score", "r2"], "--select_score r2 does not fit the label kind; use accuracy or macro_f1"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_in_one_line(searched, flags, message):
    with pytest.raises(UserError, match=message) as error:
        search.main([*searched.flags, "--epochs", "1", *flags])
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_prepared_and_an_unknown_modality_are_refused(searched, tmp_path):
    with pytest.raises(UserError, match=r"prepare_own.py"):
        search.main(["--datadir", str(tmp_path)])
    with pytest.raises(UserError, match=r"which encoder\? pass --modality numbers or --modality track"):
        unimodal.main(alone(searched))
    with pytest.raises(UserError, match=r"--modality sound: .* has none; pass --modality numbers"):
        unimodal.main([*alone(searched), "--modality", "sound"])


def test_words_of_the_form_name_value_are_collected(capsys):
    parser = search.get_args_parser()
    args = parser.parse_args(["--encoder", "a=b", "c=d", "--encoder", "a=e"])
    assert args.encoder == ["a=e", "c=d"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--encoder", "a"])
    assert "is not of the form NAME=VALUE" in capsys.readouterr().err


def test_arguments_are_kept_in_full(searched):
    saved = json.loads((searched.folder / "runs" / searched.run.rpartition("/")[2] / "args.json").read_text())
    assert saved["encoder"] == ["numbers=mlp:8", "text=words:8", "track=conv:8,8"] and saved["num_input_nodes"] == 6


def test_a_network_is_only_tested_on_data_like_its_own(searched, tmp_path):
    trained = found.main(["--search_exp_dir", searched.run, "--epochs", "1"])["folder"]
    fewer = write(tmp_path / "fewer", "class", {"numbers": ("vector", 5), "text": ("text", None)})
    with pytest.raises(UserError, match="has nothing as the input track, but the training had sequence of size 3"):
        found.main(["--eval_exp_dir", trained, *fewer[:2]])
    with pytest.raises(
        UserError, match=r"offer \d features \(numbers_\d, .*, net_0\), but .* has 6; pass the encoders and taps of"
    ):
        found.main(["--eval_exp_dir", trained, "--taps", "net=0"])
    other = write(tmp_path / "other", "number")
    with pytest.raises(UserError, match=r"has another label \(price, number\), or other classes"):
        found.main(["--eval_exp_dir", trained, *other[:2]])


def test_a_refused_run_leaves_no_folder(searched, tmp_path):
    import torch

    torch.save({"one": torch.zeros(2)}, tmp_path / "w.pth")
    flags = [*searched.flags, "--out_dir", str(tmp_path / "new"), "--encoder_weights", f"track={tmp_path / 'w.pth'}"]
    with pytest.raises(UserError, match="does not fit SequenceNet"):
        found.main([*flags, "--fusion", "late"])
    assert not (tmp_path / "new").exists()
