"""MMNas on a few synthetic scenes: search, train, score every split, predict, resume, bad input."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import predict_vgd
import search_vgd
import train_itm
import train_vgd
from engine.updates import OptimizerStep
from models.mmnas.published import to_published
from tests.test_resume import Killed, assert_same, comparable
from util.checkpoint import load_checkpoint
from util.cli import UserError


@pytest.fixture(scope="module")
def scenes(searched_vgd):
    """A finished search on a few scenes."""
    return searched_vgd


@pytest.fixture(scope="module")
def trained(scenes):
    """A short training of what the search found."""
    return train_vgd.main([*scenes.flags, "--RUN", "train", "--ARCH_PATH", str(scenes.folder)])


def records_of(scenes, split):
    return json.loads((scenes.data / "refcoco" / f"{split}.json").read_text())


def test_search_scores_the_held_out_part(scenes):
    records = [json.loads(line) for line in (scenes.folder / "log.jsonl").read_text().splitlines()]
    assert "alphas" not in records[0] and records[1]["alphas"]["loss"] > 0
    for record in records:
        assert 0 <= record["held_out"]["accuracy"] <= 1 and 0 < record["held_out"]["mean_iou"] <= 1
    assert scenes.result["data"]["synthetic"]
    samples = scenes.result["data"]["samples"]
    assert samples["train"] == int(0.8 * len(records_of(scenes, "train")))
    assert samples["train"] + samples["held_out"] == len(records_of(scenes, "train"))


def test_training_scores_every_split(scenes, trained):
    assert list(trained["metrics"]) == ["val", "testA", "testB"]
    for split, scores in trained["metrics"].items():
        assert 0 <= scores["accuracy"] <= 1 and scores["loss"] > 0
        assert trained["data"]["samples"][split] == len(records_of(scenes, split))
    records = [json.loads(line) for line in (Path(trained["folder"]) / "log.jsonl").read_text().splitlines()]
    assert all({"train", "val"} <= set(record) and "testA" not in record for record in records)
    assert records[1]["train"]["loss"] < records[0]["train"]["loss"]


@pytest.mark.parametrize("split", ["val", "testA", "testB"])
def test_a_checkpoint_is_scored_alone(scenes, trained, split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--RUN", "val"] if split == "val" else ["--RUN", "test", "--TEST_SPLIT", split, "--VERSION", "mine"]
    flags += ["--CKPT_PATH", trained["folder"], "--data", str(scenes.data), "--num_workers", "0", "--out_dir", "runs"]
    # No size, no architecture, no vocabulary, no data set: the checkpoint knows.
    alone = train_vgd.main(flags)
    assert alone["metrics"][split] == pytest.approx(trained["metrics"][split], rel=1e-5)
    rows = json.loads(Path(alone["predictions"][-1]).read_text())
    records = records_of(scenes, split)
    assert [row["index"] for row in rows] == list(range(len(records)))
    assert [row["tokens"] for row in rows] == [record["tokens"] for record in records]
    right = [row["iou"] >= 0.5 for row in rows]
    assert sum(right) / len(rows) == pytest.approx(alone["metrics"][split]["accuracy"])
    for row, record in zip(rows, records, strict=True):
        assert row["image_id"] == record["image_id"]
        x, y, w, h = row["bbox"]
        assert min(row["bbox"]) >= 0 and x + w < record["width"] and y + h < record["height"]
        assert row["iou"] == pytest.approx(overlap_in_pixels(row["bbox"], record["bbox"]), abs=2e-3)
    if split != "val":
        # Neither split takes the other's place.
        assert alone["predictions"][-1] == f"logs/ckpts/result_test/result_train_mine_refcoco_{split}.json"
    assert "--iou pixels" in alone["metric"]


def overlap_in_pixels(one, other):
    """IoU of two boxes x, y, w, h whose last pixel is x + w, y + h."""
    inside = [
        min(a + size, b + size_b) - max(a, b) + 1
        for a, size, b, size_b in zip(one[:2], one[2:], other[:2], other[2:], strict=True)
    ]
    areas = [(w + 1) * (h + 1) for _, _, w, h in (one, other)]
    common = max(inside[0], 0) * max(inside[1], 0)
    return common / (sum(areas) - common)


def test_a_checkpoint_of_the_original_is_scored(scenes, trained, tmp_path):
    state = to_published(load_checkpoint(Path(trained["folder"]) / "best.pth")["net"])
    torch.save({"state_dict": state, "net_optim": {}, "epoch": 2}, tmp_path / "train_vgd-full_epoch2.pkl")
    flags = [*scenes.flags, "--RUN", "test", "--CKPT_PATH", str(tmp_path / "train_vgd-full_epoch2.pkl")]
    scored = train_vgd.main([*flags, "--ARCH_PATH", str(scenes.folder), "--ARCH_EPOCH", "2"])
    assert scored["metrics"]["testA"] == pytest.approx(trained["metrics"]["testA"], rel=1e-5)
    picture = str(next(scenes.images.glob("*.png")))
    with pytest.raises(UserError, match="does not record how features are extracted"):
        predict_vgd.main([*flags[-2:], "--image", picture, "--expression", "the red circle"])


def test_a_checkpoint_of_another_task(scenes, trained):
    with pytest.raises(UserError, match="is a network of vgd, not of itm"):
        train_itm.main(["--RUN", "test", "--CKPT_PATH", trained["folder"], "--data", str(scenes.data)])


def test_a_training_goes_on_with_its_architecture_alone(trained):
    with pytest.raises(UserError, match=r"the architecture differs from what the run started .* with --ARCH_PATH"):
        train_vgd.main(["--resume", trained["folder"], "--ARCH_PATH", "arch/mmnas_vgd.json", "--ARCH_EPOCH", "0"])
    with pytest.raises(UserError, match=r"mmnas_vgd.json has no epoch 2; --ARCH_EPOCH can be 0"):
        train_vgd.main(["--resume", trained["folder"], "--ARCH_PATH", "arch/mmnas_vgd.json"])
    # The search may be gone: the run has the architecture itself.
    own = str(Path(trained["folder"]) / "genotype.json")
    again = train_vgd.main(["--resume", trained["folder"], "--ARCH_PATH", own, "--ARCH_EPOCH", "0"])
    assert again["metrics"] == trained["metrics"]


def test_other_losses_and_splits(scenes, tmp_path):
    flags = [*scenes.flags, "--ARCH_PATH", "mcan", "--SPLIT", "train+val", "--epochs", "1", "--out_dir", str(tmp_path)]
    flags += ["--dec_blocks", "2", "--batchsize", "32"]
    chosen = ["--scores_loss", "bce", "--loss_lambda", "1", "--overlap_threshold", "0.6", "--iou", "continuous"]
    result = train_vgd.main([*flags, *chosen, "--padded_regions", "score", "--micro_batch", "7"])
    assert list(result["metrics"]) == ["testA", "testB"] and result["metrics"]["testA"]["loss"] > 0
    assert result["data"]["samples"]["train"] == len(records_of(scenes, "train") + records_of(scenes, "val"))
    # What was chosen stands in the checkpoint, and an explicit flag wins over it.
    flags = ["--num_workers", "0", "--device", "cpu", "--RUN", "test", "--CKPT_PATH", result["folder"]]
    again = train_vgd.main(flags)
    assert again["metrics"]["testA"] == pytest.approx(result["metrics"]["testA"], rel=1e-5)
    assert again["arguments"]["padded_regions"] == "score"
    pixels = train_vgd.main([*flags, "--iou", "pixels"])
    assert pixels["arguments"]["iou"] == "pixels"
    assert pixels["metrics"]["testA"]["mean_iou"] != pytest.approx(again["metrics"]["testA"]["mean_iou"], rel=1e-5)
    picture = str(next(scenes.images.glob("*.png")))
    _, share = predict_vgd.main(["--CKPT_PATH", result["folder"], "--image", picture, "--expression", "the red circle"])
    assert 0 < share <= 1


def test_micro_batches_change_nothing(scenes, tmp_path):
    flags = [*scenes.flags, "--ARCH_PATH", "mcan", "--epochs", "1", "--drpt", "0", "--small_dataset", "--seed", "1"]
    whole, parts = (
        train_vgd.main([*flags, "--micro_batch", size, "--out_dir", str(tmp_path / size)])["folder"]
        for size in ("0", "5")
    )
    nets = [load_checkpoint(Path(folder) / "best.pth")["net"] for folder in (whole, parts)]
    for name, value in nets[0].items():
        torch.testing.assert_close(nets[1][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_batch_can_be_a_single_expression(scenes, tmp_path):
    """There is no batch norm that would need two."""
    flags = ["--ARCH_PATH", "mcan", "--epochs", "1", "--small_dataset", "--out_dir", str(tmp_path), "--BS", "1"]
    place = scenes.flags.index("--batchsize")
    result = train_vgd.main([*scenes.flags[:place], *scenes.flags[place + 2 :], *flags])
    assert result["batch"] == {"samples": 1, "processes": 1} and result["metrics"]["val"]["loss"] > 0


def test_a_killed_search_resumes_to_the_same_end(scenes, tmp_path, monkeypatch):
    flags = [*scenes.flags, "--alpha_start", "0", "--alpha_every", "2", "--small_dataset"]
    whole = Path(search_vgd.main([*flags, "--out_dir", str(tmp_path / "whole")])["folder"])
    original, calls = OptimizerStep.apply, []

    def apply_or_die(self):
        calls.append(1)
        if len(calls) == 7:
            raise Killed
        return original(self)

    monkeypatch.setattr(OptimizerStep, "apply", apply_or_die)
    with pytest.raises(Killed):
        search_vgd.main([*flags, "--out_dir", str(tmp_path / "killed")])
    monkeypatch.undo()
    (folder,) = (tmp_path / "killed").iterdir()
    torch.manual_seed(999)
    search_vgd.main(["--resume", str(folder)])
    assert_same(comparable(folder), comparable(whole))


def test_one_expression_in_one_picture(scenes, trained, tmp_path, capsys):
    picture = next(scenes.images.glob("*.png"))
    flags = ["--CKPT_PATH", trained["folder"], "--image", str(picture), "--out", str(tmp_path / "box.png")]
    (x1, y1, x2, y2), share = predict_vgd.main([*flags, "--expression", "The red circle!"])
    assert 0 <= x1 < x2 and 0 <= y1 < y2 and 0 < share <= 1
    assert f"x {x1:.0f} to {x2:.0f}" in capsys.readouterr().out and (tmp_path / "box.png").stat().st_size > 0
    with pytest.raises(UserError, match="--expression 'wherefore': the network knows none"):
        predict_vgd.main([*flags, "--expression", "wherefore"])


ESTIMATES = [
    pytest.param(search_vgd, ["--alpha_every", "2"], "architecture steps", marks=pytest.mark.slow),
    (train_vgd, ["--ARCH_PATH", "mcan"], "evaluation on testB"),
]


@pytest.mark.parametrize(("script", "flags", "said"), ESTIMATES, ids=["search", "train"])
def test_estimates(scenes, tmp_path, capsys, script, flags, said):
    result = script.main([*scenes.flags, *flags, "--estimate", "--out_dir", str(tmp_path / "runs")])
    assert all(row["flops"] > 0 and row["peak_bytes"] > 2**16 for row in result["phases"])
    assert not (tmp_path / "runs").exists() and said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ARCH_PATH", "mcan", "--FEAT", "coco_mrcn"], r"--FEAT coco_mrcn: the original names no files"),
        (["--ARCH_PATH", "mcan", "--DATASET", "refcocog"], r"refcocog has no train.json.*prepare_vgd.py"),
        (["--ARCH_PATH", "mcan", "--SPLIT", "train+val", "--select_on", "val"], r"trains on val"),
        (["--ARCH_PATH", "mcan", "--data", "nowhere"], r"nowhere"),
        (["--RUN", "test"], r"--RUN test needs --CKPT_PATH"),
    ],
)
def test_bad_input_is_one_line(scenes, tmp_path, flags, message):
    with pytest.raises(UserError, match=message) as error:
        train_vgd.main([*scenes.flags, *flags, "--out_dir", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_a_split_that_the_data_set_lacks(scenes, trained):
    with pytest.raises(UserError, match=r"--TEST_SPLIT test: refcoco has testA, testB, val"):
        train_vgd.main([*scenes.flags, "--RUN", "test", "--TEST_SPLIT", "test", "--CKPT_PATH", trained["folder"]])


def test_a_refs_file_that_runs_code(tmp_path):
    from datasets.prepare_vgd import main

    folder = tmp_path / "refcoco"
    folder.mkdir()
    (folder / "refs(unc).p").write_bytes(pickle.dumps([SimpleNamespace(a=1)]))
    with pytest.raises(UserError, match=r"refs\(unc\).p names types.SimpleNamespace and is not read"):
        main(["--dataset", "refcoco", "--refer", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
