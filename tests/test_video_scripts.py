"""Every script of NTU RGB+D and EgoGesture on tiny synthetic clips in the official forms, end to end."""

import json
from pathlib import Path

import pytest
import torch

from engine.updates import OptimizerStep
from models.bmnas.published import to_published
from models.genotypes import FusionGenotype, load_genotype
from tests.test_resume import Killed, assert_same, comparable
from tests.test_scripts import pickle_as_the_original
from util.checkpoint import load_checkpoint
from util.cli import UserError
from util.files import read_json

pytestmark = pytest.mark.usefixtures("narrow_backbones")

CHECKPOINT_FLAGS = {
    "ntu": {"rgb": "--rgb_cp", "skeleton": "--ske_cp"},
    "ego": {"rgb": "--rgb_cp", "depth": "--depth_cp"},
}


# For tests of which the tasks share all but what reads their files: the second task is slow.
MOSTLY_NTU = pytest.mark.parametrize("clips", ["ntu", pytest.param("ego", marks=pytest.mark.slow)], indirect=True)


@pytest.fixture(scope="module", params=["ntu", "ego"])
def clips(request, searched_clips):
    """A task on tiny data, with a finished search."""
    return searched_clips(request.param)


def test_search_finds_a_genotype_of_the_task(clips):
    genotype = load_genotype(clips.folder / "genotype.json")
    assert genotype.inputs == clips.task.TASK.feature_names and len(genotype.steps) == 2
    assert len(genotype.steps[0].inner_steps) == clips.task.PUBLISHED["node_steps"]
    assert 0 <= clips.result["metrics"]["dev"]["accuracy"] <= 1 and clips.result["data"]["synthetic"] is True
    records = [json.loads(line) for line in (clips.folder / "log.jsonl").read_text().splitlines()]
    best = max(record["dev"]["accuracy"] for record in records)
    # Of equal scores the later epoch counts.
    assert clips.result["selected_epoch"] == max(r["epoch"] for r in records if r["dev"]["accuracy"] == best)


def test_found_and_test_agree(clips):
    trained = clips.found.main(
        ["--search_exp_dir", str(clips.folder), "--epochs", "1", "--freeze_backbones", "--num_workers", "0"]
    )
    assert FusionGenotype.from_dict(trained["genotype"]) == load_genotype(clips.folder / "genotype.json")
    assert trained["arguments"]["batchsize"] == 96 and trained["arguments"]["C"] == 8
    tested = clips.found.main(
        ["--search_exp_dir", str(clips.folder), "--eval_exp_dir", trained["folder"], "--num_workers", "0"]
    )
    assert tested["metrics"]["test"] == pytest.approx(trained["metrics"]["test"], rel=1e-5)


def test_the_published_protocol_trains_everything_in_micro_batches(clips, tmp_path):
    flags = "--fusion late --no-freeze_backbones --train_on train+dev --select_on test --epochs 1 --micro_batch 4"
    result = clips.found.main([*clips.flags, *flags.split(), "--small_dataset", "--out_dir", str(tmp_path)])
    assert set(result["metrics"]) == {"test"} and result["trained_on"] == "train+dev"
    samples = result["data"]["samples"]
    assert samples["train+dev"] > samples["test"] > 0
    torch.manual_seed(2)
    start = clips.task.build_backbones(clips.found.get_args_parser().parse_args(clips.flags))["rgb"].state_dict()
    state = load_checkpoint(Path(result["folder"]) / "best.pth")["net"]
    key = next(key for key in start if key.endswith("conv1.weight"))
    assert not torch.equal(state[f"backbones.rgb.{key}"], start[key])


def test_unimodal_networks_start_a_search(clips, tmp_path):
    flags = []
    for modality, flag in CHECKPOINT_FLAGS[clips.name].items():
        options = ["--modality", modality, "--epochs", "1", "--out_dir", str(tmp_path)]
        folder = clips.unimodal.main([*clips.unimodal_flags, *options])["folder"]
        flags += [flag, folder]
    result = clips.search.main([*clips.flags, *flags, "--epochs", "1", "--out_dir", str(tmp_path)])
    for folder in flags[1::2]:
        modality = read_json(Path(folder) / "args.json")["modality"]
        args = clips.unimodal.get_args_parser().parse_args([*clips.unimodal_flags, "--modality", modality])
        torch.manual_seed(2)
        start = clips.task.build_unimodal_backbone(args).state_dict()
        trained = load_checkpoint(f"{folder}/backbone.pth")
        still = [key for key in start if key.endswith("weight") and torch.equal(trained[key], start[key])]
        assert not still, modality
    started = result["backbones_started_from"]
    assert all(str(tmp_path) in source for source in started.values()) and len(set(started.values())) == 2
    swapped = [flags[0], flags[3], flags[2], flags[1]]
    with pytest.raises(UserError, match=rf"{flags[0]}: .*does not fit .*(missing|of another shape)") as error:
        clips.search.main([*clips.flags, *swapped, "--epochs", "1", "--out_dir", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_a_head_alone_is_trained_on_kept_features(clips, tmp_path):
    flags = ["--modality", "rgb", "--freeze_backbones", "--augment_views", "1", "--epochs", "1"]
    result = clips.unimodal.main([*clips.unimodal_flags, *flags, "--out_dir", str(tmp_path)])
    assert 0 <= result["metrics"]["test"]["accuracy"] <= 1


@MOSTLY_NTU
@pytest.mark.parametrize("views", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_killed_search_resumes_to_the_same_end(clips, tmp_path, monkeypatch, views):
    """With new crops in every epoch, and with two kept views."""
    flags = [*clips.flags, "--small_dataset", "--epochs", "3", "--augment_views", views]
    whole = Path(clips.search.main([*flags, "--out_dir", str(tmp_path / "whole")])["folder"])
    original, calls = OptimizerStep.apply, []

    def apply_or_die(self):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return original(self)

    monkeypatch.setattr(OptimizerStep, "apply", apply_or_die)
    with pytest.raises(Killed):
        clips.search.main([*flags, "--out_dir", str(tmp_path / "killed")])
    monkeypatch.undo()
    (folder,) = (tmp_path / "killed").iterdir()
    torch.manual_seed(999)
    clips.search.main(["--resume", str(folder)])
    assert_same(comparable(folder), comparable(whole))


@pytest.mark.slow
def test_loader_processes_change_nothing(clips, tmp_path):
    """Crops depend on seed, epoch and sample alone: two reading processes give what none gives."""
    flags = [*clips.flags, "--epochs", "2", "--out_dir", str(tmp_path)]
    alone, two = (clips.search.main([*flags, "--num_workers", n])["metrics"] for n in ("0", "2"))
    assert alone == two


def test_original_run_folder_is_tested(clips, tmp_path):
    found = clips.found.main([*clips.flags, "--genotype", "random", "--freeze_backbones", "--epochs", "1",
                              "--augment_views", "1", "--out_dir", str(tmp_path)])  # fmt: skip
    state = load_checkpoint(Path(found["folder"]) / "best.pth")["net"]
    folder = tmp_path / "original" / "best"
    folder.mkdir(parents=True)
    published = to_published(state, clips.task.TASK.published_names, found=True)
    torch.save({f"module.{key}": value for key, value in published.items()}, folder / "best_test_model.pt")
    genotype = FusionGenotype.from_dict(found["genotype"])
    (folder / "best_test_genotype.pkl").write_bytes(pickle_as_the_original(genotype))
    tested = clips.found.main([*clips.flags, "--eval_exp_dir", str(folder.parent)])
    assert tested["metrics"]["test"] == pytest.approx(found["metrics"]["test"], rel=1e-5)


@MOSTLY_NTU
@pytest.mark.parametrize("scripts", ["unimodal", pytest.param("search found", marks=pytest.mark.slow)])
def test_estimates_leave_nothing(clips, tmp_path, capsys, scripts):
    late, rgb = [*clips.flags, "--fusion", "late"], [*clips.unimodal_flags, "--modality", "rgb"]
    flags = {"search": clips.flags, "found": late, "unimodal": rgb}
    for name in scripts.split():
        result = getattr(clips, name).main([*flags[name], "--estimate", "--out_dir", str(tmp_path / "runs")])
        assert all(phase["flops"] > 0 and phase["peak_bytes"] > 2**20 for phase in result["phases"])
    assert not (tmp_path / "runs").exists() and "peak memory" in capsys.readouterr().out
    (tmp_path / "best").mkdir()  # as in a run folder of the original code
    with pytest.raises(UserError, match="--eval_exp_dir only tests"):
        clips.found.main([*clips.flags, "--eval_exp_dir", str(tmp_path), "--estimate"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backbone_weights", "pretrained"], r"(rgb_8frames|egogesture_resnext).*--backbone_weights random"),
        (["--num_outputs", "5"], r"8 labels, but --num_outputs is 5"),
        (["--rgb_cp", "nowhere"], r"--rgb_cp nowhere does not exist"),
        (["--datadir", "nowhere"], r"nowhere.*prepare_(ntu|ego)\.py"),
    ],
)
def test_bad_input_is_one_line(clips, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        clips.search.main([*clips.flags, "--epochs", "1", "--out_dir", "runs", *flags])
    assert "\n" not in str(error.value) and not list(Path("runs").glob("*"))
