"""Every MM-IMDB script on tiny synthetic films, end to end: search, found, test, baselines, the original's files."""

import json
import pickle
import sys
import types
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

import main_darts_found_mmimdb as found
import main_darts_searchable_mmimdb as search
import main_unimodal_mmimdb as unimodal
from engine.training import Evaluation
from models.bmnas.published import to_published
from models.genotypes import FusionGenotype, load_genotype
from tasks.mmimdb import TASK
from util.checkpoint import load_checkpoint
from util.cli import UserError

pytestmark = pytest.mark.usefixtures("narrow_backbones")

SIZES = ["--C", "8", "--L", "4"]
EXAMPLE = Path(__file__).parent.parent / "genotypes" / "mmimdb_example.json"


def train_found(films, *flags, epochs=1):
    return found.main([*films.flags, *SIZES, "--freeze_backbones", "--epochs", str(epochs), *map(str, flags)])


def test_search_leaves_what_it_promises(searched):
    folder, result = searched.folder, searched.result
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    promised = "args.json log.jsonl log.txt genotype.json genotype.svg probabilities.svg result.json best.pth last.pth"
    assert files >= {*promised.split(), "architectures/epoch_0.svg", "architectures/epoch_1.svg"}
    genotype = load_genotype(folder / "genotype.json")
    assert genotype.inputs == ("Image_1", "Image_2", "Image_3", "Image_4", "Text_1", "Text_2")
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1]
    best = max(records, key=lambda record: record["dev"]["f1"])
    assert FusionGenotype.from_dict(best["genotype"]) == genotype
    assert result["selected_epoch"] == best["epoch"] and result["metrics"]["dev"] == best["dev"]
    assert (
        set(records[0]["entropy"]) == set(records[0]["probabilities"]) and records[0]["entropy"]["gammas, step 1"] > 0
    )
    assert result["arguments"]["backbone_weights"] == "random" and result["data"]["synthetic"] is True


def test_search_moves_weights_and_architecture(searched):
    """Alphas leave their initial scale, frozen backbones stay as the seed drew them."""
    from tasks import mmimdb

    state = load_checkpoint(searched.folder / "best.pth")["net"]
    assert state["fusion.edges.logits"].abs().max() > 1e-3
    torch.manual_seed(2)
    from models.backbones.vgg import VGG19Taps

    torch.testing.assert_close(
        state["backbones.image.vgg.0.weight"], VGG19Taps(mmimdb.PUBLISHED["num_outputs"]).vgg[0].weight.data
    )


def test_found_training_and_test_only(films, searched):
    result = found.main(
        ["--search_exp_dir", str(searched.folder), "--freeze_backbones", "--epochs", "2", "--batchsize", "8"]
    )
    folder = Path(result["folder"])
    assert folder.parent == searched.folder and folder.name.startswith("eval-EXP-")
    assert result["arguments"]["C"] == 8 and result["arguments"]["datadir"] == str(films.folder)
    assert set(result["metrics"]) == {"dev", "test"} and "best dev score" in result["protocol"]
    assert result["architecture"]["from"] == str(searched.folder) and "--f1_type weighted" in result["metric"]
    assert result["batch"] == {"samples": 8, "processes": 1}
    assert result["data"]["samples"] == {"train": 40, "dev": 17, "test": 16}
    tested = found.main(["--search_exp_dir", str(searched.folder), "--eval_exp_dir", str(folder)])
    assert tested["metrics"]["test"] == pytest.approx(result["metrics"]["test"], rel=1e-5)
    assert Path(tested["folder"]).parent == folder and tested["metric"] == result["metric"]


def test_what_an_epoch_has_scored_is_not_scored_again(films, tmp_path, monkeypatch):
    passes, original = [], Evaluation.__call__

    def counted(self, net):
        passes.append(self.options["description"])
        return original(self, net)

    monkeypatch.setattr(Evaluation, "__call__", counted)
    result = train_found(films, "--fusion", "late", "--out_dir", tmp_path, epochs=2)
    assert passes == ["dev", "dev", "test"] and set(result["metrics"]) == {"dev", "test"}


def test_published_protocol_trains_everything_and_selects_on_test(films, tmp_path):
    flags = ["--train_on", "train+dev", "--select_on", "test", "--genotype", EXAMPLE, "--out_dir", tmp_path]
    result = found.main([*films.flags, *SIZES, "--epochs", "1", "--small_dataset", *map(str, flags)])
    assert "TEST" in result["protocol"] and result["trained_on"] == "train+dev"
    assert set(result["metrics"]) == {"test"} and set(result["training_mode_metrics"]) == {"train", "dev"}
    state = load_checkpoint(Path(result["folder"]) / "best.pth")["net"]
    torch.manual_seed(2)
    from models.backbones.vgg import VGG19Taps

    assert not torch.equal(state["backbones.image.vgg.0.weight"], VGG19Taps(23).vgg[0].weight.data)
    last = load_checkpoint(Path(result["folder"]) / "last.pth")
    # Both passes advance the schedule: 5 train batches and 2 dev batches (a trailing film joins the second).
    # The sixth of the seven steps hits the minimum and restarts the cycle.
    assert last["objects"]["weights"]["schedule"] == {"counter": 1, "Ti": 2}


@pytest.mark.parametrize("flags", [["--fusion", "late"], ["--genotype", "random"], ["--genotype", str(EXAMPLE)]])
def test_baselines(films, tmp_path, flags):
    result = train_found(films, *flags, "--out_dir", tmp_path)
    assert 0 <= result["metrics"]["test"]["f1"] <= 1
    tested = found.main(["--eval_exp_dir", result["folder"]])
    assert tested["metrics"]["test"] == pytest.approx(result["metrics"]["test"], rel=1e-5)


def test_random_genotype_depends_on_the_seed(films, tmp_path):
    runs = [train_found(films, "--genotype", "random", "--seed", seed, "--out_dir", tmp_path) for seed in (3, 3, 4)]
    assert runs[0]["genotype"] == runs[1]["genotype"] != runs[2]["genotype"]
    assert runs[0]["metrics"] == runs[1]["metrics"]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_unimodal_checkpoint_starts_a_search(films, tmp_path, modality):
    flags = [*films.flags, "--L", "4", "--epochs", "1", "--out_dir", str(tmp_path), "--modality", modality]
    result = unimodal.main([*flags, "--freeze_backbones"])
    assert set(result["metrics"]) == {"dev", "test"}
    trained = load_checkpoint(Path(result["folder"]) / "backbone.pth")
    after = search.main(
        [*films.flags, *SIZES, "--epochs", "1", "--out_dir", str(tmp_path), f"--{modality}_cp", result["folder"]]
    )
    used = load_checkpoint(Path(after["folder"]) / "best.pth")["net"]
    assert all(torch.equal(used[f"backbones.{modality}.{key}"], value) for key, value in trained.items())


def test_npy_tree_gives_the_same_search(films, searched, tmp_path):
    """The originals' one-file-per-array layout trains to the same numbers as the store."""
    from datasets.mmimdb import open_mmimdb

    for split in ("train", "dev", "test"):
        data = open_mmimdb(films.folder, split)
        (tmp_path / split).mkdir()
        for i in range(len(data)):
            for name, value in data[i].items():
                if name != "index":
                    np.save(tmp_path / split / f"{name}_{i:06d}.npy", value.numpy())
    flags = [*films.flags, "--datadir", str(tmp_path), *SIZES, "--epochs", "2", "--out_dir", str(tmp_path / "runs")]
    assert search.main(flags)["metrics"] == searched.result["metrics"]


def test_original_run_folder_is_tested(films, tmp_path):
    """best_test_model.pt and best_test_genotype.pkl of the original code, saved on another device, give our score."""
    result = train_found(films, "--genotype", EXAMPLE, "--out_dir", tmp_path)
    state = load_checkpoint(Path(result["folder"]) / "best.pth")["net"]
    folder = tmp_path / "original"
    (folder / "best").mkdir(parents=True)
    torch.save(to_published(state, TASK.published_names, found=True), folder / "best" / "best_test_model.pt")
    (folder / "best" / "best_test_genotype.pkl").write_bytes(pickle_as_the_original(load_genotype(EXAMPLE)))
    tested = found.main([*films.flags, *SIZES, "--eval_exp_dir", str(folder)])
    assert tested["metrics"]["test"] == pytest.approx(result["metrics"]["test"], rel=1e-5)


def test_original_run_folder_with_a_genotype_that_does_not_fit(films, tmp_path):
    genotype = load_genotype(EXAMPLE)
    (tmp_path / "best").mkdir()
    torch.save({"central_classifier.weight": torch.zeros(1)}, tmp_path / "best" / "best_test_model.pt")
    wrong = FusionGenotype(genotype.edges, genotype.steps, (8, 9))
    (tmp_path / "best" / "best_test_genotype.pkl").write_bytes(pickle_as_the_original(wrong))
    with pytest.raises(UserError, match="made for 8 input features, the network has 6"):
        found.main([*films.flags, *SIZES, "--eval_exp_dir", str(tmp_path)])


def test_original_search_folder_is_trained(films, tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "best_genotype.pkl").write_bytes(pickle_as_the_original(load_genotype(EXAMPLE)))
    result = train_found(films, "--search_exp_dir", tmp_path)
    assert FusionGenotype.from_dict(result["genotype"]) == load_genotype(EXAMPLE)


def pickle_as_the_original(genotype):
    names = "models.search.darts.genotypes"
    module = types.ModuleType(names)
    module.Genotype = namedtuple("Genotype", "edges steps concat", module=names)
    module.StepGenotype = namedtuple("StepGenotype", "inner_edges inner_steps inner_concat", module=names)
    sys.modules[names] = module
    try:
        steps = [
            module.StepGenotype(list(s.inner_edges), list(s.inner_steps), list(s.inner_concat)) for s in genotype.steps
        ]
        return pickle.dumps(module.Genotype(list(genotype.edges), steps, list(genotype.concat)))
    finally:
        del sys.modules[names]


def test_scalars_for_tensorboard(searched):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(searched.folder / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("dev/f1")]
    records = [json.loads(line) for line in (searched.folder / "log.jsonl").read_text().splitlines()]
    assert logged == pytest.approx([record["dev"]["f1"] for record in records])


def test_mixed_precision_runs(films, tmp_path):
    result = search.main([*films.flags, *SIZES, "--epochs", "1", "--amp", "bf16", "--out_dir", str(tmp_path)])
    assert np.isfinite(result["metrics"]["dev"]["loss"])


def test_the_originals_way_of_searching_runs(films, tmp_path):
    """Backbones in training mode and a second forward: other numbers than the default."""
    flags = [*films.flags, *SIZES, "--epochs", "1", "--out_dir", str(tmp_path)]
    default = search.main(flags)
    original = search.main([*flags, "--backbone_mode", "train", "--dev_metric", "second_forward"])
    assert default["metrics"]["dev"] != original["metrics"]["dev"]


def test_patience_stops_a_stable_search(films, tmp_path):
    flags = [*films.flags, *SIZES, "--epochs", "9", "--arch_learning_rate", "1e-9", "--patience", "2"]
    result = search.main([*flags, "--out_dir", str(tmp_path)])
    assert result["epochs"] == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to train"),
        (["--genotype", "missing.json"], "missing.json does not exist"),
        (["--search_exp_dir", "no/such/run"], "no/such/run does not exist"),
        (["--fusion", "late", "--train_on", "train+dev"], "--select_on"),
        (["--fusion", "late", "--L", "12"], "--L 12"),
        (["--fusion", "late", "--num_outputs", "20"], "--num_outputs 23"),
        (["--fusion", "late", "--text_cp", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--fusion", "late", "--datadir", "nowhere"], "prepare_mmimdb.py"),
        (["--fusion", "late", "--backbone_weights", "pretrained", "--image_cp", "random"], "--text_cp"),
        (["--genotype", "random", "--steps", "2", "--multiplier", "9"], "--multiplier 9"),
        (["--fusion", "late", "--num_input_nodes", "4"], "--num_input_nodes 4"),
    ],
)
def test_bad_input_is_one_line(films, tmp_path, flags, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        found.main([*films.flags, *SIZES, "--epochs", "1", "--freeze_backbones", "--out_dir", "runs", *flags])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_genotype_that_does_not_fit(films, tmp_path):
    genotype = load_genotype(EXAMPLE).to_dict()
    genotype["edges"][0][1] = 7
    (tmp_path / "bad.json").write_text(json.dumps(genotype))
    with pytest.raises(UserError, match=r"bad\.json does not fit.*edges\[0\] reads state 7"):
        train_found(films, "--genotype", tmp_path / "bad.json", "--out_dir", tmp_path)


def test_nan_loss_keeps_the_last_good_state(films, tmp_path):
    with pytest.raises(UserError, match="loss of epoch 0"):
        search.main([*films.flags, *SIZES, "--epochs", "1", "--eta_max", "1e30", "--out_dir", str(tmp_path)])
