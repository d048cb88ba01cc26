"""MMNas on image-text matching, on a few synthetic scenes: search, train, score, predict, resume."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import predict_itm
import search_itm
import train_itm
from benchmarks import itm_eval
from engine.updates import OptimizerStep
from models.mmnas.architecture import load_architecture
from models.mmnas.published import to_published
from tasks.mmnas import flags
from tests.processes import run_ranks
from tests.test_resume import Killed, assert_same, comparable
from util.checkpoint import load_checkpoint
from util.cli import UserError


@pytest.fixture(scope="module")
def scenes(searched_itm):
    """A finished search on a few scenes."""
    return searched_itm


@pytest.fixture(scope="module")
def trained(scenes):
    """A short training of what the search found."""
    return train_itm.main([*scenes.flags, "--RUN", "train", "--ARCH_PATH", str(scenes.folder)])


def records_of(folder):
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def same_but_time(folder):
    """`comparable` without what mining says, which is mostly its time."""
    result, log, *checkpoints = comparable(folder)
    for record in log:
        record.pop("mining", None)
    return result, log, *checkpoints


def test_search_mines_and_scores_dev(scenes):
    assert list(json.loads((scenes.folder / "arch.json").read_text())) == ["epoch1", "epoch2"]
    records = records_of(scenes.folder)
    assert "mining" not in records[0] and "alphas" not in records[0] and records[1]["alphas"]["loss"] > 0
    assert records[1]["mining"]["pairs"] == 6 * (12 + 60) and 0 < records[1]["mining"]["epoch_share"] < 1
    assert all(0 <= record["dev"]["mean_recall"] <= 1 and record["dev"]["i2t medr"] >= 1 for record in records)
    assert scenes.result["data"]["synthetic"] and scenes.result["data"]["samples"]["held_out"] == 15


def test_an_epoch_of_a_search_is_trained_and_scored_alone(scenes, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trained["genotype"] == load_architecture(scenes.folder, 2).to_dict()
    assert set(trained["metrics"]) == {"dev", "test"}
    for run, split in (("val", "dev"), ("test", "test")):
        flags = ["--RUN", run, "--CKPT_PATH", trained["folder"], "--data", str(scenes.data), "--out_dir", "runs"]
        # No size, no architecture, no vocabulary: the checkpoint knows. One pair at a time scores the same.
        alone = train_itm.main([*flags, "--num_workers", "0", "--eval_pairs", "50", "--eval_captions", "11"])
        assert alone["metrics"][split] == pytest.approx(trained["metrics"][split], abs=1e-5)
        predictions, table = map(Path, alone["predictions"])
        found = json.loads(predictions.read_text())
        first = alone["metrics"][split]["t2i R@1"]
        assert sum(name.split("#")[0] == str(images[0]) for name, images in found["t2i"].items()) == round(30 * first)
        assert all(len(captions) == 10 for captions in found["i2t"].values())
        assert table.read_text().splitlines()[1].startswith(f"t2i results: {100 * first:.2f} ")


def test_a_checkpoint_of_the_original_is_scored(scenes, trained, tmp_path):
    state = to_published(load_checkpoint(Path(trained["folder"]) / "best.pth")["net"])
    torch.save({"state_dict": state, "net_optim": {}, "epoch": 2}, tmp_path / "train_itm-full_epoch2.pkl")
    flags = [*scenes.flags, "--RUN", "val", "--CKPT_PATH", str(tmp_path / "train_itm-full_epoch2.pkl")]
    scored = train_itm.main([*flags, "--ARCH_PATH", str(scenes.folder), "--ARCH_EPOCH", "2"])
    assert scored["metrics"]["dev"] == pytest.approx(trained["metrics"]["dev"], abs=1e-5)


def test_a_killed_search_resumes_to_the_same_end(scenes, tmp_path, monkeypatch):
    # The second epoch neither draws nor mines: it needs the tables of the first.
    flags = [*scenes.flags, "--alpha_start", "0", "--alpha_every", "2", "--neg_start_epoch", "0", "--neg_every", "2"]
    whole = Path(search_itm.main([*flags, "--out_dir", str(tmp_path / "whole")])["folder"])
    original, calls = OptimizerStep.apply, []

    def apply_or_die(self):
        calls.append(1)
        if len(calls) == 6:
            raise Killed
        return original(self)

    monkeypatch.setattr(OptimizerStep, "apply", apply_or_die)
    with pytest.raises(Killed):
        search_itm.main([*flags, "--out_dir", str(tmp_path / "killed")])
    monkeypatch.undo()
    (folder,) = (tmp_path / "killed").iterdir()
    torch.manual_seed(999)
    search_itm.main(["--resume", str(folder)])
    assert_same(same_but_time(folder), same_but_time(whole))


def test_two_processes_mine_and_train_like_one(scenes, tmp_path):
    flags = [*scenes.flags, "--ARCH_PATH", "mcan", "--drpt", "0", "--epochs", "2"]
    alone = train_itm.main([*flags, "--out_dir", str(tmp_path / "one")])
    run_ranks(train_itm.main, [*flags, "--out_dir", str(tmp_path / "two")])
    (folder,) = (tmp_path / "two").iterdir()
    one, two = (records_of(path) for path in (alone["folder"], folder))
    for first, second in zip(one, two, strict=True):
        assert second["mining"]["pairs"] == first["mining"]["pairs"]
        assert second["train"] == pytest.approx(first["train"], rel=1e-4)
        assert second["dev"] == pytest.approx(first["dev"], rel=1e-4)


def by_trainings(scenes, out):
    """Flags of two equal trainings, whose third epochs neither draw nor mine: they need the tables of the second."""
    flags = "--hsize 64 --enc_blocks 1 --dec_blocks 1 --enc_ops self_att_64 --dec_ops guided_att_64 --batchsize 16"
    flags += " --device cpu --num_workers 0 --drpt 0 --strategy random --budget 2 --training_epochs 3"
    flags += " --neg_rand 6 --neg_start_epoch 1 --neg_every 2"
    return [*flags.split(), "--data", str(scenes.data), "--out_dir", str(out)]


@pytest.fixture(scope="module")
def found_by_trainings(scenes):
    return Path(search_itm.main(by_trainings(scenes, scenes.out / "trainings"))["folder"])


def test_every_candidate_mines_with_its_own_network(scenes, found_by_trainings):
    records = records_of(found_by_trainings)
    assert [("mining" in record) for record in records] == [False, True, False] * 2
    assert [record["train"] for record in records[:3]] == [record["train"] for record in records[3:]]
    best = max(record["dev"]["mean_recall"] for record in records)
    result = json.loads((found_by_trainings / "result.json").read_text())
    assert result["metrics"]["dev"]["mean_recall"] == best and "with the best dev score" in result["protocol"]
    trained = train_itm.get_args_parser().get_default("neg_start_epoch")
    args = flags.parse_search(search_itm.TASK, search_itm.get_args_parser(), ["--strategy", "random"], {})
    assert args.neg_start_epoch == trained != search_itm.get_args_parser().get_default("neg_start_epoch")


def test_a_search_by_trainings_resumes_with_the_mined_tables(scenes, found_by_trainings, tmp_path, monkeypatch):
    original, calls = OptimizerStep.apply, []

    def apply_or_die(self):
        calls.append(1)
        if len(calls) == 5 * 2 + 2:  # two steps an epoch
            raise Killed
        return original(self)

    monkeypatch.setattr(OptimizerStep, "apply", apply_or_die)
    with pytest.raises(Killed):
        search_itm.main(by_trainings(scenes, tmp_path))
    monkeypatch.undo()
    (folder,) = tmp_path.iterdir()
    assert len(records_of(folder)) == 5
    torch.manual_seed(999)
    search_itm.main(["--resume", str(folder)])
    ends = [same_but_time(place) for place in (folder, found_by_trainings)]
    for *_, last in ends:
        assert all(candidate.pop("seconds") > 0 for candidate in last["search"]["candidates"])
    assert_same(*ends)


def test_two_processes_train_and_mine_the_same_candidates(scenes, found_by_trainings, tmp_path):
    run_ranks(search_itm.main, by_trainings(scenes, tmp_path))
    (folder,) = tmp_path.iterdir()
    for first, second in zip(records_of(found_by_trainings), records_of(folder), strict=True):
        assert second.get("mining", {}).get("pairs") == first.get("mining", {}).get("pairs")
        assert second["train"] == pytest.approx(first["train"], rel=1e-4)
        assert second["dev"] == pytest.approx(first["dev"], rel=1e-4)


def test_a_training_with_the_margin_loss(scenes, tmp_path):
    flags = [*scenes.flags, "--ARCH_PATH", "mcan", "--scores_loss", "margin", "--epochs", "1", "--micro_batch", "7"]
    flags += ["--amp", "bf16"]
    result = train_itm.main([*flags, "--select_on", "val", "--out_dir", str(tmp_path)])
    assert 0 < result["training_mode_metrics"]["train"]["loss"] < 2.4


def test_images_ranked_by_a_query(scenes, trained, tmp_path, capsys):
    flags = ["--CKPT_PATH", trained["folder"], "--images", str(scenes.images), "--top", "3"]
    best = predict_itm.main([*flags, "--query", "a red circle", "--save_picture", str(tmp_path / "sheet.png")])
    assert len(best) == 3 and best[0][1] >= best[1][1] >= best[2][1]
    said = capsys.readouterr().out
    assert best[0][0] in said and (tmp_path / "sheet.png").stat().st_size > 0
    with pytest.raises(UserError, match="knows none of these words"):
        predict_itm.main([*flags, "--query", "wherefore?"])
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    shutil.copy(next(scenes.images.iterdir()), mixed / "good.png")
    (mixed / "bad.png").write_text("no picture")
    flags[3] = str(mixed)
    assert [name for name, _ in predict_itm.main([*flags, "--query", "a red zebra"])] == ["good.png"]
    said = capsys.readouterr().err
    assert "left out: " in said and "bad.png" in said
    with pytest.raises(UserError, match="is not a directory"):
        predict_itm.main([*flags[:3], str(tmp_path / "nowhere"), "--query", "a red circle"])


ESTIMATES = [
    pytest.param(search_itm, ["--alpha_every", "2"], "architecture steps", marks=pytest.mark.slow),
    (train_itm, ["--ARCH_PATH", "mcan"], "training"),
]


@pytest.mark.parametrize(("script", "flags", "said"), ESTIMATES, ids=["search", "train"])
def test_estimates(scenes, tmp_path, capsys, script, flags, said):
    result = script.main([*scenes.flags, *flags, "--estimate", "--out_dir", str(tmp_path / "runs")])
    assert all(row["flops"] > 0 for row in result["phases"])
    assert not (tmp_path / "runs").exists() and said in capsys.readouterr().out


def test_the_benchmark_runs(capsys):
    rows = itm_eval.main(["--small", "--device", "cpu"])
    assert [row["pairs"] for row in rows.values()] == [45, 1152] and "| mining |" in capsys.readouterr().out
    assert all(row["difference"] <= 1e-5 and row["originals"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ARCH_PATH", "mcan", "--neg_hard", "9"], r"--neg_hard 9 is above --neg_rand 6"),
        (["--ARCH_PATH", "mcan", "--data", "nowhere"], r"nowhere/flickr/meta\.json is missing"),
        (["--ARCH_PATH", "mcan", "--DATASET", "coco"], r"coco/meta\.json is missing.*--dataset coco"),
        (["--RUN", "test"], r"--RUN test needs --CKPT_PATH"),
    ],
)
def test_bad_input_is_one_line(scenes, tmp_path, flags, message):
    with pytest.raises(UserError, match=message) as error:
        train_itm.main([*scenes.flags, *flags, "--out_dir", str(tmp_path)])
    assert "\n" not in str(error.value)
