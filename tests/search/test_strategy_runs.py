"""Strategies and derivations end to end, on tiny data: they give a result, and the same one after an interruption."""

import json
from pathlib import Path

import pytest

import main_darts_searchable_mmimdb as bmnas
import search_vqa as mmnas
from engine import run as engine_run
from models.genotypes import load_genotype
from models.mmnas.architecture import load_architecture
from tests.narrow_backbones import run_narrowly
from tests.processes import run_ranks
from util.cli import UserError

pytestmark = pytest.mark.usefixtures("narrow_backbones")

RUNS = {
    "drnas": ["--strategy", "drnas", "--beta_regularization", "50"],
    "pairs": ["--strategy", "gdas", "--strategy_option", "pairs=True", "--strategy_option", "gumbel_samples=3"],
    "random-shared": ["--strategy", "random-shared", "--strategy_option", "draws=3"],
    "perturbation": ["--derive", "perturbation"],
    "second-order": ["--strategy", "second-order"],
}


class Stopped(Exception):
    pass


def bmnas_run(films, out, *flags):
    sizes = ["--C", "8", "--L", "4", "--epochs", "2"]
    return bmnas.main([*films.flags, *sizes, "--out_dir", str(out), *flags])


def without_times(result):
    left_out = ("folder", "seconds", "peak_memory_mb", "latency", "arguments", "run", "checksum")
    return {key: value for key, value in result.items() if key not in left_out}


@pytest.mark.parametrize("name", list(RUNS))
def test_a_search_of_bmnas_is_resumed_to_the_same_result(films, tmp_path, monkeypatch, name):
    whole = bmnas_run(films, tmp_path / "whole", *RUNS[name])
    folder = Path(whole["folder"])
    assert load_genotype(folder).to_dict() == whole["genotype"]
    if name in ("random-shared", "perturbation"):
        assert whole["derivation"]["rule"] == ("perturbation" if name == "perturbation" else "argmax")
        assert whole["derivation"]["scored"] >= 3 and (folder / "architectures" / "epoch_2.svg").exists()
    else:
        assert "derivation" not in whole
    finish = engine_run.Run.finish_epoch

    def stop(run, *args):
        finish(run, *args)
        raise Stopped

    monkeypatch.setattr(engine_run.Run, "finish_epoch", stop)
    with pytest.raises(Stopped):
        bmnas_run(films, tmp_path / "halves", *RUNS[name])
    monkeypatch.undo()
    (half,) = (tmp_path / "halves").iterdir()
    resumed = bmnas.main(["--resume", str(half)])
    assert without_times(resumed) == without_times(whole)
    logs = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()] for f in (folder, half)]
    for one, other in zip(*logs, strict=True):
        assert one["probabilities"] == other["probabilities"] and one["entropy"] == other["entropy"]


@pytest.mark.parametrize("name", ["drnas", "pairs", "random-shared", "perturbation", "second-order"])
def test_two_processes_search_and_derive_the_same(films, tmp_path, name):
    """Draws are compared between the processes in every epoch; logits of a step that is not read have no gradients."""
    sizes = ["--C", "8", "--L", "4", "--epochs", "2", "--steps", "3", "--multiplier", "1", "--device", "cpu"]
    run_ranks(run_narrowly, bmnas.main, [*films.flags, *sizes, "--out_dir", str(tmp_path), *RUNS[name]])
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert load_genotype(folder).to_dict() == result["genotype"] and result["batch"]["processes"] == 2


# A mixture, given as module:Class, masks candidates: 3 visits score the whole, and once without each candidate.
MIXTURE = ["--strategy", "search.relaxation:SoftmaxMixture", "--derive", "perturbation", "--beta_regularization", "1"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(RUNS["random-shared"], 3), (RUNS["perturbation"], 2 + 4 + 4), (MIXTURE, 3 + 2 + 4 + 4)],
    ids=["random-shared", "perturbation", "mixture"],
)
def test_a_search_of_mmnas_derives_what_its_files_say(easy_vqa, tmp_path, flags, expected):
    sizes = "--hsize 64 --enc_blocks 1 --dec_blocks 2 --batchsize 16 --epochs 1 --device cpu --alpha_start 0"
    result = mmnas.main([*sizes.split(), *easy_vqa.flags, "--out_dir", str(tmp_path), *flags])
    folder = Path(result["folder"])
    assert load_architecture(folder).to_dict() == result["genotype"]
    assert json.loads((folder / "genotype.json").read_text()) == result["genotype"]
    assert result["derivation"]["scored"] == expected
    if flags == RUNS["random-shared"]:
        # Epochs are not scored, since no epoch changes the path; the result has the score of the derived architecture.
        assert result["metrics"]["held_out"]["accuracy"] == result["derivation"]["score"]
        (record,) = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
        assert "held_out" not in record
    else:
        assert "held_out" in json.loads((folder / "log.jsonl").read_text())


def test_what_does_not_go_together_is_refused(films, easy_vqa, tmp_path):
    with pytest.raises(UserError, match="no architecture steps"):
        bmnas_run(films, tmp_path, *RUNS["random-shared"], "--beta_regularization", "1")
    with pytest.raises(UserError, match="runs every candidate in every step"):
        mmnas.main([*easy_vqa.flags, "--hsize", "64", "--out_dir", str(tmp_path), "--strategy", "drnas"])
