"""MMNas on a little real VQA data (easy-VQA): search, train, score, predict, resume, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import engine.updates
import predict_vqa
import search_vqa
import train_vqa
from benchmarks import vqa_step
from engine.updates import OptimizerStep
from models.mmnas.architecture import load_architecture
from models.mmnas.published import to_published
from reports.comparing import compare
from reports.reading import read_runs
from tests.conftest import MMNAS_SIZES
from tests.processes import ROOT, run_ranks
from tests.test_resume import Killed, assert_same, comparable
from util.checkpoint import load_checkpoint
from util.cli import UserError


@pytest.fixture(scope="module")
def questions(searched_vqa):
    """A finished search on easy-VQA."""
    return searched_vqa


@pytest.fixture(scope="module")
def trained(questions):
    """A short training of what the search found."""
    return train_vqa.main([*questions.flags, "--RUN", "train", "--ARCH_PATH", str(questions.folder)])


def test_search_keeps_every_epochs_architecture(questions):
    epochs = json.loads((questions.folder / "arch.json").read_text())
    assert list(epochs) == ["epoch1", "epoch2"]
    records = [json.loads(line) for line in (questions.folder / "log.jsonl").read_text().splitlines()]
    assert "alphas" not in records[0] and records[1]["alphas"]["loss"] > 0
    assert all(0 <= record["held_out"]["accuracy"] <= 1 for record in records)
    files = {path.name for path in questions.folder.iterdir()}
    assert files >= {"genotype.svg", "probabilities.svg", "result.json", "best.pth", "last.pth"}
    assert records[1]["probabilities"] != records[0]["probabilities"]


def test_fused_adam_differs_by_rounding(questions, trained, tmp_path):
    flags = [*questions.flags, "--RUN", "train", "--ARCH_PATH", str(questions.folder), "--out_dir", str(tmp_path)]
    fused = train_vqa.main([*flags, "--fused_adam"])
    last = [load_checkpoint(Path(run["folder"]) / "last.pth")["objects"] for run in (trained, fused)]
    groups = [objects["weights"]["optimizer"]["param_groups"][0] for objects in last]
    assert not groups[0]["fused"] and groups[1]["fused"]
    # Losses, not weights: a gradient that is zero but for rounding moves its weight by the whole rate, either way.
    logs = [(Path(run["folder"]) / "log.jsonl").read_text().splitlines() for run in (trained, fused)]
    losses = [[json.loads(line)["train"]["loss"] for line in log] for log in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_an_epoch_of_a_search_is_trained_and_scored_alone(questions, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load_architecture(questions.folder, 2)
    assert trained["genotype"] == found.to_dict()
    assert set(trained["metrics"]) == {"val", "test"} and "yes/no" in trained["metrics"]["val"]
    for split in ("val", "test"):
        flags = ["--RUN", split, "--CKPT_PATH", trained["folder"], "--VERSION", "mine"]
        # No size, no architecture, no vocabulary: the checkpoint knows.
        alone = train_vqa.main([*flags, "--data", str(questions.data), "--num_workers", "0", "--out_dir", "runs"])
        assert alone["metrics"][split] == pytest.approx(trained["metrics"][split], rel=1e-5)
        assert all(Path(path).exists() for path in alone["predictions"])
    rows = json.loads((tmp_path / "logs/ckpts/result_test/result_train_mine.json").read_text())
    asked = json.loads((questions.data / "annotations/v2_OpenEnded_mscoco_test2015_questions.json").read_text())
    assert [row["question_id"] for row in rows] == [row["question_id"] for row in asked["questions"]]


def test_a_checkpoint_of_the_original_is_scored(questions, trained, tmp_path):
    state = to_published(load_checkpoint(Path(trained["folder"]) / "best.pth")["net"])
    torch.save({"state_dict": state, "net_optim": {}, "epoch": 2}, tmp_path / "train_vqa-full_epoch2.pkl")
    flags = [*questions.flags, "--RUN", "val", "--CKPT_PATH", str(tmp_path / "train_vqa-full_epoch2.pkl")]
    with pytest.raises(UserError, match="pass --ARCH_PATH as well"):
        train_vqa.main(flags)
    scored = train_vqa.main([*flags, "--ARCH_PATH", str(questions.folder), "--ARCH_EPOCH", "2"])
    assert scored["metrics"]["val"] == pytest.approx(trained["metrics"]["val"], rel=1e-5)
    state["module.embedding.weight"] = state["module.embedding.weight"][:-2]
    torch.save({"state_dict": state}, tmp_path / "train_vqa-full_epoch2.pkl")
    words = len(state["module.embedding.weight"])
    with pytest.raises(UserError, match=f"knows {words} words, but the data have {words + 2}"):
        train_vqa.main([*flags, "--ARCH_PATH", str(questions.folder), "--ARCH_EPOCH", "2"])


@pytest.mark.parametrize("mode", ["full", pytest.param("two", marks=pytest.mark.slow)])
def test_a_killed_search_resumes_to_the_same_end(questions, tmp_path, monkeypatch, mode):
    flags = [*questions.flags, "--alpha_start", "0", "--alpha_every", "2", "--alpha_mode", mode, "--small_dataset"]
    whole = Path(search_vqa.main([*flags, "--out_dir", str(tmp_path / "whole")])["folder"])
    original, calls = OptimizerStep.apply, []

    def apply_or_die(self):
        calls.append(1)
        if len(calls) == 9:
            raise Killed
        return original(self)

    monkeypatch.setattr(OptimizerStep, "apply", apply_or_die)
    with pytest.raises(Killed):
        search_vqa.main([*flags, "--out_dir", str(tmp_path / "killed")])
    monkeypatch.undo()
    (folder,) = (tmp_path / "killed").iterdir()
    torch.manual_seed(999)
    search_vqa.main(["--resume", str(folder)])
    assert_same(comparable(folder), comparable(whole))
    assert (folder / "arch.json").read_text() == (whole / "arch.json").read_text()


def test_what_is_scored_lies_in_its_training_and_says_how(questions, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--RUN", "test", "--CKPT_PATH", trained["folder"], "--num_workers", "0", "--metric", "official"]
    scored = train_vqa.main([*flags, "--small_dataset"])
    assert (
        Path(scored["folder"]).parent == Path(trained["folder"])
        and Path(trained["folder"]).parent == questions.out / "runs"
    )
    assert "--metric official" in scored["metric"] and "--metric original" in trained["metric"]
    said = (Path(scored["folder"]) / "log.txt").read_text()
    assert "--metric official: the training had original" in said and f"scores: {scored['metric']}" in said
    answered, asked = scored["data"]["samples"]["test"], trained["data"]["samples"]["test"]
    assert (
        answered < asked and f"incomplete: {answered} of the {asked} questions of test; the evaluation server" in said
    )
    whole = train_vqa.main(["--RUN", "val", "--CKPT_PATH", trained["folder"], "--num_workers", "0"])
    said = (Path(whole["folder"]) / "log.txt").read_text()
    assert "incomplete" not in said and "the training had" not in said and whole["metric"] == trained["metric"]


def test_a_micro_batch_can_be_a_single_question(questions, tmp_path, monkeypatch):
    sizes, cut = set(), engine.updates.split_batch
    monkeypatch.setattr(
        engine.updates, "split_batch", lambda *args: sizes.add(tuple(n for n, _ in cut(*args))) or cut(*args)
    )
    flags = [
        "--ARCH_PATH",
        "mcan",
        "--small_dataset",
        "--epochs",
        "1",
        "--micro_batch",
        "1",
        "--out_dir",
        str(tmp_path),
    ]
    result = train_vqa.main([*questions.flags, *flags])
    assert sizes == {(1,) * 16} and result["metrics"]["val"]["loss"] > 0


def test_resume_as_the_original_spells_it(questions, trained):
    # The command as it was, with the flag that resumes.
    flags = ["--RUN", "train", "--ARCH_PATH", str(questions.folder), "--RESUME", "--CKPT_PATH", trained["folder"]]
    longer = train_vqa.main([*flags, "--epochs", "3"])
    assert longer["epochs"] == 3 and longer["folder"] == trained["folder"]


def without(flags, name):
    """Flags without that one and its value."""
    place = flags.index(name)
    return [*flags[:place], *flags[place + 2 :]]


def script(*words):
    """The training script in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "train_vqa.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("way", [pytest.param("--GPU", marks=pytest.mark.slow), "torchrun"])
def test_two_processes_train_like_one(questions, tmp_path, way):
    flags = [*questions.flags, "--ARCH_PATH", "mcan", "--drpt", "0", "--epochs", "1"]
    alone = train_vqa.main([*flags, "--out_dir", str(tmp_path / "one")])
    # 16 in all, however it is said.
    size = ["--batchsize", "16"] if way == "torchrun" else ["--BS", "8"]
    words = [*without(flags, "--batchsize"), *size, "--out_dir", str(tmp_path / "two")]
    if way == "torchrun":
        run_ranks(train_vqa.main, words)
    else:
        assert script(*words, "--GPU", "0, 1").returncode == 0
    (folder,) = (tmp_path / "two").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["metrics"]["val"] == pytest.approx(alone["metrics"]["val"], rel=1e-4)
    assert result["training_mode_metrics"]["train"] == pytest.approx(alone["training_mode_metrics"]["train"], rel=1e-4)


def test_a_user_error_in_every_process_is_told_once(questions, tmp_path):
    words = [*questions.flags, "--ARCH_PATH", "nowhere.json", "--GPU", "0, 1", "--out_dir", str(tmp_path)]
    done = script(*words)
    assert done.returncode != 0 and "nowhere.json" in done.stderr and "Traceback" not in done.stderr


def test_one_question_about_one_picture(questions, trained, tmp_path, capsys):
    picture = next((questions.data / "images" / "test2015").iterdir())
    flags = ["--CKPT_PATH", trained["folder"], "--image", str(picture), "--save_picture", str(tmp_path / "seen.png")]
    answers = predict_vqa.main([*flags, "--question", "what color is the shape?"])
    assert len(answers) == 5 and all(0 <= probability <= 1 for _, probability in answers)
    assert answers[0][0] in capsys.readouterr().out and (tmp_path / "seen.png").stat().st_size > 0
    with pytest.raises(UserError, match="knows none of these words"):
        predict_vqa.main([*flags, "--question", "wherefore?"])


def test_operations_that_depend_on_padding_get_the_official_lengths(questions, trained, tmp_path):
    operations = {"enc": [["self_att_64"]] * 2, "dec": [["sep_conv_3"], ["guided_att_64"], ["feed_forward"]]}
    (tmp_path / "arch.json").write_text(json.dumps({"epoch0": operations}))
    flags = [*questions.flags, "--ARCH_PATH", str(tmp_path / "arch.json"), "--small_dataset", "--epochs", "1"]
    runs = [train_vqa.main([*flags, "--out_dir", str(tmp_path / "runs")])]
    # The same score with batches of other companions: what a question is padded to does not depend on them.
    again = ["--RUN", "val", "--CKPT_PATH", runs[0]["folder"], "--data", str(questions.data), "--small_dataset"]
    scored = train_vqa.main([*again, "--batchsize", "2", "--out_dir", str(tmp_path / "runs")])
    assert scored["metrics"]["val"] == pytest.approx(runs[0]["metrics"]["val"], rel=1e-5)
    picture = next((questions.data / "images" / "test2015").iterdir())
    with pytest.raises(UserError, match="results of sep_conv_3 depend on padding"):
        predict_vqa.main(["--CKPT_PATH", runs[0]["folder"], "--image", str(picture), "--question", "what color?"])


def test_a_training_takes_the_data_of_its_search(questions, tmp_path):
    # Nor --data nor --min_answer_count: the search run, then the checkpoint, say them.
    words = [*MMNAS_SIZES.split(), "--epochs", "1", "--small_dataset", "--VERSION", "mine"]
    result = train_vqa.main([*words, "--ARCH_PATH", str(questions.folder), "--out_dir", str(tmp_path)])
    assert result["data"]["folder"] == str(questions.data) and Path(result["folder"]).parent == tmp_path
    assert result["architecture"].items() >= {"from": str(questions.folder), "epoch": 2}.items()
    scored = train_vqa.main(["--RUN", "val", "--CKPT_PATH", result["folder"], "--out_dir", str(tmp_path)])
    assert scored["data"]["folder"] == str(questions.data) and Path(scored["folder"]).name.startswith("val-mine-")
    other = ["--RUN", "val", "--CKPT_PATH", result["folder"], "--ARCH_PATH", "arch/mcan.json"]
    with pytest.raises(UserError, match=r"arch/mcan.json is not the architecture of"):
        train_vqa.main(other)


def test_what_is_said_of_the_data_and_of_the_steps_is_in_the_log(questions, tmp_path):
    few = search_vqa.main([*questions.flags, "--small_dataset", "--alpha_start", "2", "--out_dir", str(tmp_path)])
    said = (Path(few["folder"]) / "log.txt").read_text()
    assert "no architecture step: 2 epochs of" in said and "words and answers come from the others" in said
    flags = ["--small_dataset", "--epochs", "9", "--alpha_start", "0", "--alpha_every", "3", "--alpha_lr", "1e-9"]
    early = search_vqa.main([*questions.flags, *flags, "--patience", "1", "--out_dir", str(tmp_path)])
    said = (Path(early["folder"]) / "log.txt").read_text()
    assert early["stopped_early"] and f"stopped after {early['epochs']} of 9 epochs" in said
    assert "36 weight steps, 9 architecture steps" in said and early["epochs"] == 2


def test_the_benchmark_of_a_step_runs(monkeypatch, capsys):
    sizes = {"REGIONS": 20, "FEATURES": 32, "ANSWERS": 50, "WORDS": 100}
    for name, value in {**sizes, "FLAGS": ("--hsize", "64")}.items():
        monkeypatch.setattr(vqa_step, name, value)
    rows = vqa_step.main(["--batchsize", "2", "--repeats", "1", "--device", "cpu"])
    assert len(rows) == 3 and all(row["logits"] <= 1e-4 and row["gradients"] <= 1e-4 for row in rows.values())


ESTIMATES = [(search_vqa, [], "architecture steps"), (train_vqa, ["--ARCH_PATH", "mcan", "--amp", "bf16"], "training")]


@pytest.mark.parametrize(("script", "flags", "phase"), ESTIMATES, ids=["search", "train"])
def test_estimates(questions, tmp_path, capsys, script, flags, phase):
    result = script.main([*questions.flags, *flags, "--estimate", "--out_dir", str(tmp_path / "runs")])
    assert all(row["flops"] > 0 and row["peak_bytes"] > 2**16 for row in result["phases"])
    assert not (tmp_path / "runs").exists() and phase in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"which architecture\? pass --ARCH_PATH"),
        (["--ARCH_PATH", "nowhere.json"], r"nowhere\.json"),
        (["--ARCH_PATH", "arch/mmnas_vqa.json", "--ARCH_EPOCH", "7"], r"no epoch 7"),
        (["--RUN", "val"], r"--RUN val needs --CKPT_PATH"),
        (["--RESUME", "--ARCH_PATH", "mcan"], r"--RESUME needs --CKPT_PATH"),
        (["--ARCH_PATH", "mcan", "--data", "nowhere"], r"nowhere"),
        (["--ARCH_PATH", "mcan", "--SPLIT", "train+val", "--select_on", "val"], r"trains on val"),
        (["--ARCH_PATH", "mcan", "--GPU", "one"], r"--GPU 'one' is not a list"),
        (["--ARCH_PATH", "mcan", "--device", "auto", "--GPU", "0, 7"], r"--GPU 0, 7: this torch sees no GPUs"),
        (["--ARCH_PATH", "mcan", "--hsize", "100"], r"does not fit a width of 100 .* another --hsize"),
        (["--RESUME", "--CKPT_PATH", "elsewhere/train_vqa-full_epoch2.pkl"], r"elsewhere is not a run folder"),
    ],
)
def test_bad_input_is_one_line(questions, tmp_path, flags, message):
    with pytest.raises(UserError, match=message) as error:
        train_vqa.main([*questions.flags, *flags, "--out_dir", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_a_test_run_knows_its_training(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [*questions.flags, "--ARCH_PATH", "mcan", "--epochs", "1", "--small_dataset", "--out_dir", "runs"]
    training = train_vqa.main(flags)
    again = ["--RUN", "test", "--CKPT_PATH", training["folder"], "--data", str(questions.data), "--num_workers", "0"]
    tests = [train_vqa.main(again) for _ in range(2)]
    assert tests[0]["data"]["samples"]["test"] == training["data"]["samples"]["test"]
    assert tests[0]["metrics"]["test"] == pytest.approx(training["metrics"]["test"], rel=1e-5)
    assert train_vqa.main([*again, "--no-small_dataset"])["arguments"]["small_dataset"] is False

    def rows():
        (table,) = [one for one in compare(read_runs(["runs"])) if one.kind == "test"]
        return [row for row in table.rows if row.settings["small_dataset"]], table

    (row,), table = rows()
    assert "--small_dataset" in row.not_published and row.first.source == "mcan"
    assert row.conditions.selection == training["protocol"]
    assert len(table.left_out) == 1 and "the same scores" in table.left_out[0][1]
    train_vqa.main(["--resume", training["folder"], "--epochs", "2"])
    train_vqa.main(again)
    old, new = sorted(rows()[0], key=lambda row: row.first.training["epochs"])
    assert any("was continued after this run" in text for text in old.not_rows) and old.label != new.label
    assert not any("was continued" in text for text in new.not_rows)
    assert not any(old in (one.first, one.second) for one in rows()[1].differences)
