"""Random search and evolution end to end, on tiny data: files, exact resuming, a diverging candidate, processes."""

import json
import random
from pathlib import Path

import pytest
import torch

import main_darts_found_mmimdb as found
import main_darts_searchable_mmimdb as search
import search_vqa
from engine.run import Run
from engine.training import DivergedError
from engine.updates import OptimizerStep
from models.bmnas.genotype_space import FusionSpace
from models.genotypes import load_genotype
from models.mmnas.architecture import ArchitectureSpace, load_architecture
from tasks.bmnas.trainings import FusionTraining
from tests.narrow_backbones import run_narrowly
from tests.processes import run_ranks
from tests.search.test_strategy_runs import without_times
from util.cli import UserError

pytestmark = pytest.mark.usefixtures("narrow_backbones")

SMALL = ["--C", "8", "--L", "4", "--device", "cpu", "--budget", "4", "--training_epochs", "2"]
SMALL += ["--population", "2", "--tournament", "2"]


def searched(films, out, *flags):
    return search.main([*films.flags, *SMALL, "--out_dir", str(out), *flags])


def candidates(folder):
    records = [json.loads(line) for line in (Path(folder) / "candidates.jsonl").read_text().splitlines()]
    assert all(record.pop("seconds") > 0 for record in records)
    return records


@pytest.fixture(scope="module")
def evolved(films, tmp_path_factory):
    """A finished evolution with two objectives."""
    flags = ["--strategy", "evolution", "--objectives", "score,parameters", "--chain_cells"]
    return searched(films, tmp_path_factory.mktemp("evolved"), *flags)


def test_a_search_by_trainings_leaves_what_other_searches_leave(films, evolved, tmp_path):
    folder, records = Path(evolved["folder"]), candidates(evolved["folder"])
    assert [record["candidate"] for record in records] == [0, 1, 2, 3] and evolved["epochs"] == 8
    best = max(records, key=lambda record: record["score"])
    assert evolved["trainings"]["selected"] == best["candidate"] and evolved["genotype"] == best["genotype"]
    assert evolved["metrics"]["dev"]["f1"] == best["score"]
    assert evolved["selected_epoch"] == 2 * best["candidate"] + best["best_epoch"]
    assert load_genotype(folder).to_dict() == best["genotype"] and evolved["kind"] == "search"
    counts = evolved["parameters"]
    assert evolved["cost"]["parameters"] == best["parameters"] == counts["fusion_part"] + counts["classifier"]
    assert evolved["cost"]["flops"] == best["flops"] > 0 and evolved["latency"]["batch_8_ms"] > 0
    front = evolved["trainings"]["front"]
    assert front[0]["score"] == best["score"] and [c["score"] for c in front] == sorted(
        (c["score"] for c in front), reverse=True
    )
    assert [c["parameters"] for c in front] == sorted((c["parameters"] for c in front), reverse=True)
    picture = (folder / "pareto_parameters.svg").read_text()
    assert picture.count("<circle") == len(records) and "parameters" in picture

    trained = found.main(
        [*films.flags, "--epochs", "1", "--freeze_backbones", "--search_exp_dir", str(folder), "--save", "of"]
    )
    assert trained["genotype"] == best["genotype"] and trained["cost"] == evolved["cost"]


@pytest.mark.parametrize("step", [3, 14, 25])
def test_a_search_killed_in_any_training_is_resumed_to_the_same_result(films, evolved, tmp_path, monkeypatch, step):
    """The run is killed in a weight step of the first, second or third candidate, which have 10 steps each."""

    class Killed(BaseException):
        pass

    original, calls = OptimizerStep.apply, []

    def apply_or_die(self):
        calls.append(1)
        if len(calls) == step:
            raise Killed
        return original(self)

    monkeypatch.setattr(OptimizerStep, "apply", apply_or_die)
    flags = ["--strategy", "evolution", "--objectives", "score,parameters", "--chain_cells"]
    with pytest.raises(Killed):
        searched(films, tmp_path, *flags)
    monkeypatch.undo()
    (folder,) = tmp_path.iterdir()
    torch.manual_seed(999)
    resumed = search.main(["--resume", str(folder)])
    assert without_times(resumed) == without_times(evolved)
    assert candidates(folder) == candidates(evolved["folder"])
    whole, again = (torch.load(Path(r["folder"]) / "best.pth") for r in (evolved, resumed))
    assert all(torch.equal(value, again["net"][key]) for key, value in whole["net"].items())


def test_a_larger_budget_continues_a_finished_search(films, tmp_path):
    """The budget counts trainings: 2 and 2 more are 4."""
    short = searched(films, tmp_path / "short", "--strategy", "random", "--budget", "2")
    assert short["trainings"]["count"] == 2 == len(candidates(short["folder"])) and short["epochs"] == 4
    message = r"--budget 1: .* has already done 4 epochs, 2 for each training; pass --budget 2 to end it there"
    with pytest.raises(UserError, match=message):
        search.main(["--resume", short["folder"], "--budget", "1"])
    longer = search.main(["--resume", short["folder"], "--budget", "4"])
    straight = searched(films, tmp_path / "straight", "--strategy", "random")
    assert candidates(longer["folder"]) == candidates(straight["folder"])
    assert longer["genotype"] == straight["genotype"] and longer["metrics"] == straight["metrics"]
    assert "front" not in straight["trainings"] and not list(Path(straight["folder"]).glob("pareto*"))


def test_a_candidate_that_diverges_has_no_score_and_the_search_goes_on(films, tmp_path, monkeypatch):
    original, trained = FusionTraining.epoch, []

    def diverge(self, epoch):
        trained.append(epoch)
        if len(trained) == 1:
            raise DivergedError("the loss is nan")
        return original(self, epoch)

    monkeypatch.setattr(FusionTraining, "epoch", diverge)
    result = searched(films, tmp_path, "--strategy", "evolution")
    first, *others = candidates(result["folder"])
    assert first["diverged"] and first["score"] is None and not any(record["diverged"] for record in others)
    assert result["trainings"]["selected"] != 0 and trained == [0, *[0, 1] * 3]


@pytest.mark.slow  # starting the processes and waiting for each other takes longer than computing
def test_two_processes_train_the_same_candidates(films, tmp_path):
    flags = [*films.flags, *SMALL, "--out_dir", str(tmp_path), "--strategy", "evolution"]
    run_ranks(run_narrowly, search.main, flags)
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["trainings"]["count"] == len(candidates(folder)) == 4 and result["batch"]["processes"] == 2
    # The first population does not depend on scores, so it equals that of a single process.
    alone = searched(films, tmp_path / "alone", "--strategy", "random", "--budget", "2")
    ours = [record["genotype"] for record in candidates(folder)[:2]]
    assert ours == [record["genotype"] for record in candidates(alone["folder"])]


def test_without_mutation_the_best_of_the_first_population_is_the_result(films, tmp_path, monkeypatch):
    """Equal genotypes give equal trainings, so children cannot be better than their parents."""
    monkeypatch.setattr(FusionSpace, "mutate", lambda self, rng, genotype: genotype)
    result = searched(films, tmp_path, "--strategy", "evolution")
    first, second, *children = candidates(result["folder"])
    best = max(first, second, key=lambda record: record["score"])
    assert result["trainings"]["selected"] == best["candidate"]
    for child in children:
        assert {**child, "candidate": best["candidate"]} == best


def test_mmnas_trains_architectures_and_resumes(easy_vqa, tmp_path, monkeypatch):
    sizes = "--hsize 64 --enc_blocks 1 --dec_blocks 2 --batchsize 16 --device cpu --strategy evolution"
    flags = [*sizes.split(), *SMALL[-4:], "--budget", "3", "--training_epochs", "2", *easy_vqa.flags]
    flags += ["--objectives", "score,flops"]
    whole = search_vqa.main([*flags, "--out_dir", str(tmp_path / "whole")])
    records = candidates(whole["folder"])
    best = max(records, key=lambda record: record["score"])
    assert whole["genotype"] == best["genotype"] == load_architecture(whole["folder"]).to_dict()
    assert whole["metrics"]["held_out"]["accuracy"] == best["score"] and whole["cost"]["flops"] == best["flops"]
    assert len({str(record["genotype"]) for record in records}) == 3
    finish, finished = Run.finish_epoch, []

    def stop(run, *args):
        finish(run, *args)
        finished.append(1)
        if len(finished) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "finish_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        search_vqa.main([*flags, "--out_dir", str(tmp_path / "halves")])
    monkeypatch.undo()
    (half,) = (tmp_path / "halves").iterdir()
    torch.manual_seed(999)
    resumed = search_vqa.main(["--resume", str(half)])
    assert without_times(resumed) == without_times(whole) and candidates(half) == records


def test_mutations_of_mmnas_change_one_block():
    space, rng = ArchitectureSpace(("a", "b"), ("a", "b", "c"), 2, 3), random.Random(0)
    before, sides = space.sample(rng), set()
    for _ in range(40):
        after = space.mutate(rng, before)
        pairs = {side: zip(getattr(before, side), getattr(after, side), strict=True) for side in ("enc", "dec")}
        changed = [side for side, blocks in pairs.items() for a, b in blocks if a != b]
        assert len(changed) == 1
        sides |= set(changed)
        before = after
    assert sides == {"enc", "dec"}
    alone = ArchitectureSpace(("a",), ("a",), 1, 1)
    assert alone.mutate(rng, alone.sample(rng)) == alone.sample(rng)


def test_what_mmnas_cannot_train_is_refused(tmp_path):
    with pytest.raises(UserError, match="--estimate: a search by trainings"):
        search_vqa.main(["--out_dir", str(tmp_path), "--strategy", "random", "--estimate"])
