"""The tables of benchmarks/fusion_bench, how they are made, and strategies that are run on them."""

import dataclasses
import json
import math
import random
import shutil
import statistics
import types

import numpy as np
import pytest

import main_darts_found_own as found
from benchmarks import bench_strategies, compare_strategies, fusion_bench, make_fusion_bench
from benchmarks.bench_strategies import in_order, is_search, run_strategy
from benchmarks.equal_cost import best_of, expected
from benchmarks.fusion_bench import SETS, TABLES, FusionBench
from datasets.own import open_own
from datasets.own.manifest import OwnLabel
from datasets.own.writing import write_samples
from engine.loading import build_loader, torch, total_batch
from models.bmnas.genotype_space import FusionSpace
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS
from models.genotypes import FusionGenotype, StepGenotype
from search.black_box import BlackBox
from tasks import own
from tasks.bmnas.data import open_splits
from tasks.bmnas.stacked_trainings import initial_nets, train_stacked
from util.cli import UserError
from util.files import read_json, write_json


@pytest.fixture(scope="module", params=SETS)
def bench(request):
    return FusionBench(request.param)


@pytest.fixture(scope="module")
def htad():
    return FusionBench("htad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Made-up data of two vectors whose classes overlap."""
    rng, place = np.random.default_rng(0), tmp_path_factory.mktemp("made")
    splits = {}
    for split, count in {"train": 60, "dev": 40, "test": 40}.items():
        vectors = [
            {name: (rng.normal(size=5) + number % 3).astype(np.float32) for name in "ab"} for number in range(count)
        ]
        splits[split] = [(str(number), number % 3, values) for number, values in enumerate(vectors)]
    facts = {"name": "made", "description": "made up", "synthetic": True, "license": None, "citation": None}
    kinds = {name: ("vector", 5) for name in "ab"}
    write_samples(place, splits, OwnLabel("kind", "class", ("x", "y", "z")), kinds, facts)
    return place


def test_stacked_trainings_are_those_of_the_found_script(folder):
    inner = (("skip", 0), ("skip", 1))
    names = ("ConcatFC", "LinearGLU")
    steps = tuple(StepGenotype(inner, (name,), (2,)) for name in names)
    pairs = [(0, 2, 1, 3), (0, 1, 0, 3)]
    genotypes = [FusionGenotype(tuple(("skip", index) for index in own), steps, (4, 5)) for own in pairs]
    space = ["--steps", "2", "--multiplier", "2", "--node_steps", "1", "--node_multiplier", "1", "--C", "8"]
    flags = [*space, "--datadir", str(folder), "--taps", "a=0,2", "b=0,2", "--train_encoders", "none", "--seed", "5"]
    flags += ["--freeze_backbones", "--epochs", "4", "--batchsize", "16", "--drpt", "0", "--device", "cpu"]
    task, args = own.parse_found(found.get_args_parser(), [*flags, "--genotype", "random"], own.DEMO)
    options = {"shuffle": True, "seed": 5, "num_workers": 0, "device": torch.device("cpu")}
    data = open_splits(task, args, ("train", "dev", "test"))
    loaders = {split: build_loader(part, total_batch(args), **options) for split, part in data.items()}
    stacked = train_stacked(initial_nets(task, args, genotypes), args, loaders)
    for number, (genotype, ours) in enumerate(zip(genotypes, stacked, strict=True)):
        genotype.save(folder / f"{number}.json")
        result = found.main([*flags, "--genotype", str(folder / f"{number}.json"), "--out_dir", str(folder / "runs")])
        log = (folder / "runs" / result["folder"].rsplit("/", 1)[1] / "log.jsonl").read_text().splitlines()
        dev = [record["dev"]["accuracy"] for record in map(json.loads, log) if "dev" in record and "train" in record]
        # Rounding may move a sample that is on the border of two classes, and so another epoch to the top.
        assert np.abs(np.array(ours["dev"]) - 40 * np.array(dev)).max() <= 1
        same = ours["epoch"] == result["selected_epoch"]
        assert not same or abs(ours["test"] - 40 * result["metrics"]["test"]["accuracy"]) <= 1
        assert max(ours["dev"]) > 20


def test_features_of_encoders_that_are_not_trained_become_the_data(folder, tmp_path, monkeypatch):
    facts = read_json(folder / "own.json") | {"package": {"name": "made"}}
    copied = shutil.copytree(folder, tmp_path / "made" / "dataset", ignore=shutil.ignore_patterns("runs", "*.json"))
    write_json(copied / "own.json", facts)
    made = make_fusion_bench.BenchSet((), {"a": "0,2", "b": "0,2"}, {"a": "mlp:4,3", "b": "mlp:4,3"})
    monkeypatch.setitem(make_fusion_bench.SETS, "made", made)
    task, args, loaders = make_fusion_bench.open_training("made", tmp_path, 0, 2)
    assert list(task.feature_names) == ["a_0", "a_1", "b_0", "b_1"] and args.L == 1
    train, features = open_own(folder, "train"), open_own(tmp_path / "made" / "features", "train")
    assert features.ids == train.ids and features.manifest.modalities["a"].size == ((5,), (3,))
    assert np.array_equal(features.raw("a", [7])[0][0].flatten(), train.raw("a", [7])[0])
    assert torch.equal(features.read([0, 1], only=())["label"], train.read([0, 1], only=())["label"])
    # Features are rounded by each processor, so the identity is that of ids and labels.
    prints = read_json(features.folder / "own.json")["fingerprints"]
    assert make_fusion_bench.identity("made", features.folder).keys() == prints.keys()
    assert make_fusion_bench.identity("made", features.folder) != prints
    _, genotypes = make_fusion_bench.space_of(task, args)
    records = make_fusion_bench.train_and_score(task, args, loaders, make_fusion_bench.stacks(genotypes)[0][:2])
    assert all(len(record["dev"]) == 2 and math.isfinite(record["zero_cost"]["synflow"]) for record in records)
    few = types.SimpleNamespace(name="made", genotypes=genotypes[:3], seeds=[0])
    monkeypatch.setattr(compare_strategies, "training_after", lambda what, turn, bench, data: 0.5 + turn)
    costs = compare_strategies.score_costs(few, tmp_path)
    assert costs["lone"] == 1.5 and costs == compare_strategies.score_costs(few, tmp_path)
    assert all(costs[name][0] > 0 < costs[name][1] for name in ("gradient_norm", "synflow", "naswot"))


def test_a_table_has_every_network_and_its_data_sheet(bench):
    assert len(bench.genotypes) == 375 and bench.about["all"] and len(bench.seeds) == 3
    assert bench.about["data"]["synthetic"] is False and bench.about["data"]["license"]
    assert bench.about["made"]["git_commit"] and bench.about["recipe"].startswith("main_darts_found_own.py")
    assert (TABLES / f"{bench.name}.json").stat().st_size < 5_000_000
    for seed in range(50):
        genotype = bench.space.sample(random.Random(seed))
        assert 0 < bench.query(genotype)["test"] < 1


def test_a_query_is_what_the_table_says(bench):
    table = json.loads((TABLES / f"{bench.name}.json").read_text())
    row = table["genotypes"][7]
    genotype = FusionGenotype.from_dict(row["genotype"])
    run = row["runs"]["1"]
    query = bench.query(genotype, 1)
    assert query["test"] == run["test"] / table["samples"]["test"] and query["parameters"] == row["parameters"]
    assert query["dev"] == max(query["dev_curve"]) == run["dev"][run["epoch"]] / table["samples"]["dev"]
    tests = [row["runs"][str(seed)]["test"] for seed in table["seeds"]]
    assert bench.query(genotype)["test"] == pytest.approx(statistics.mean(tests) / table["samples"]["test"])
    assert bench.rank(bench.best) == 1 and bench.regret(bench.best) == 0 <= bench.regret(genotype)
    means = {genotype: bench.query(genotype)["test"] for genotype in bench.genotypes}
    assert max(means.values()) == means[bench.best]
    assert bench.tau(means) == pytest.approx(1) and bench.tau({g: -v for g, v in means.items()}) == pytest.approx(-1)


def test_what_a_table_does_not_have_is_refused(htad, tmp_path):
    other = FusionSpace(("Product",), 4, htad.space.sizes).sample(random.Random(0))
    with pytest.raises(KeyError, match="not in the table htad"):
        htad.query(other)
    with pytest.raises(UserError, match="has the seeds"):
        htad.query(htad.best, 9)
    with pytest.raises(UserError, match="does not exist"):
        FusionBench(str(tmp_path / "mine.json"))
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UserError, match="is not a table of"):
        FusionBench(str(tmp_path / "mine.json"))
    with pytest.raises(UserError, match="known are random"):
        run_strategy("rnadom", htad, 0, 5, None)


class First(BlackBox):
    """Takes whatever comes first."""

    def propose(self, rng):
        return FusionBench("htad").genotypes[len(self.history)]


def test_strategies_are_reproducible_and_pay_for_trainings(htad):
    outcome, again = (run_strategy("evolution", htad, 3, 20, None) for _ in range(2))
    assert outcome == again and outcome["trainings"] == 20 and -1 <= outcome["tau"] <= 1
    assert outcome["regret"] == htad.regret(outcome["genotype"]) and outcome["rank"] == htad.rank(outcome["genotype"])
    seen = run_strategy(f"{__name__}:First", htad, 0, 4, None)
    firsts = {genotype: htad.query(genotype, 0)["dev"] for genotype in htad.genotypes[:4]}
    assert firsts[seen["genotype"]] == max(firsts.values())
    largest = run_strategy("parameters", htad, 0, 1, None)["genotype"]
    assert htad.query(largest)["parameters"] == max(htad.query(g)["parameters"] for g in htad.genotypes)


def test_ordered_pairs_of_a_search_keep_the_arguments_of_operations(htad):
    def reads(genotype, step):
        pair = [index for _, index in genotype.edges[2 * step : 2 * step + 2]]
        return [pair[state] for _, state in genotype.steps[step].inner_edges]

    for seed in range(10):
        genotype = htad.space.sample(random.Random(seed))
        assert in_order(genotype) == genotype
        ordered = dataclasses.replace(genotype, edges=(*genotype.edges[1::-1], *genotype.edges[2:]))
        with pytest.raises(KeyError):
            htad.query(ordered)
        assert htad.query(in_order(ordered)) and reads(in_order(ordered), 0) == reads(ordered, 0)


def test_a_relaxation_of_ones_own_searches_on_the_data_and_again_after_a_change(htad, tmp_path, monkeypatch):
    place, made = tmp_path / "mine.py", []
    monkeypatch.syspath_prepend(str(tmp_path))
    genotype = htad.genotypes[3]

    def searched(out, main, flags):
        made.append(flags[flags.index("--strategy") + 1])
        tables = {f"alphas, step {k}": {str(i): {"skip": 0.5} for i in range(4)} for k in (1, 2)}
        operations = dict.fromkeys(PUBLISHED_STEP_OPERATIONS, 0.25)
        tables |= {f"gammas, step {k}": {"step": operations} for k in (1, 2)}
        folder = out / "search-x"
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text(json.dumps({"epoch": 0, "probabilities": tables}))
        write_json(folder / "result.json", {"genotype": genotype.to_dict(), "selected_epoch": 0})
        return {"folder": str(folder)}

    monkeypatch.setattr(bench_strategies, "timed", searched)
    monkeypatch.setattr(make_fusion_bench, "fusion_flags", lambda *unused: [])
    text = "from search.relaxation import Relaxation\n\n\nclass Mine(Relaxation):\n    pass\n"
    for added in ("", "", "# changed\n"):
        place.write_text(text + added)
        outcome = run_strategy("mine:Mine", htad, 0, 1, tmp_path)
        assert outcome["genotype"] == genotype and outcome["regret"] == htad.regret(genotype)
    assert made == ["mine:Mine"] * 2 and is_search("mine:Mine") and not is_search("random")
    with pytest.raises(UserError, match="derived from search"):
        run_strategy("random:Random", htad, 0, 1, tmp_path)


def test_more_trainings_are_better_on_average(htad):
    few, many = (
        statistics.mean(run_strategy("random", htad, seed, budget, None)["test"] for seed in range(30))
        for budget in (1, 40)
    )
    assert many > few


def test_the_script_prints_regret_rank_and_tau(capsys):
    results = fusion_bench.main(["--sets", "htad", "--strategy", "random", "--seeds", "2", "--budget", "5"])
    printed = capsys.readouterr().out
    assert [len(outcomes) for outcomes in results.values()] == [2]
    mean = statistics.mean(outcome["regret"] for outcome in results["htad"])
    assert f"regret, points of test accuracy: {mean:.2f}" in printed and "Kendall's tau" in printed


def test_the_comparison_is_with_random_searches_of_equal_cost(tmp_path):
    flags = ["--sets", "htad", "--strategies", "random", "naswot", "--seeds", "4", "--budget", "4"]
    rows = compare_strategies.main([*flags, "--data", str(tmp_path)])["htad"]
    assert [row["trainings"] for row in rows] == [4, 1]
    assert all(len(row["differences"]) == 4 for row in rows)
    assert 0 < rows[0]["p"] <= 1 and rows[1]["p"] is None
    table = (tmp_path / "comparison-htad.md").read_text()
    assert "| random |" in table and "| naswot |" in table


def test_costs_by_one_clock_decide_the_trainings_of_the_random_search(htad, monkeypatch):
    args = compare_strategies.get_args_parser().parse_args(["--seeds", "3", "--budget", "5"])
    scores = {"lone": 2.0, "naswot": (1.0, 0.5), "synflow": (3.0, 1.5)}
    cheap, dear = (compare_strategies.compare(name, htad, args, scores) for name in ("naswot", "synflow"))
    assert [row["trainings"] for row in (cheap, dear)] == [1, 1.5] and dear["seconds"] == 3
    assert dear["random_regret"] < cheap["random_regret"]
    assert compare_strategies.compare("random", htad, args, scores)["seconds"] == 10
    assert compare_strategies.compare("naswot", htad, args, None)["seconds"] is None
    # A busy machine makes the second search slower, and the training after it.
    searched, events = run_strategy("parameters", htad, 0, 1, None) | {"tau": None}, []
    own, lone = {0: 5.0, 1: 10.0, 2: 4.8}, {0: 2.0, 1: 4.0, 2: 2.0}

    def search(strategy, bench, seed, budget, data):
        events.append(seed)
        return searched | {"seconds": own[seed]}

    def training_after(what, turn, bench, data):
        events.append((what, turn))
        return lone[turn]

    monkeypatch.setattr(compare_strategies, "run_strategy", search)
    monkeypatch.setattr(compare_strategies, "training_after", training_after)
    row = compare_strategies.compare("published", htad, args, scores)
    assert (row["seconds"], row["trainings"]) == (5, 2.5) and 0 < row["p"] < 1
    assert events[:6] == [0, ("published", 0), 1, ("published", 1), 2, ("published", 2)]
    own[1] = None
    assert compare_strategies.compare("published", htad, args, scores)["trainings"] == 1


def test_the_random_search_that_is_computed_is_the_one_that_is_run(bench):
    drawable = bench.drawable(bench.seeds[1])
    assert len(drawable) == 1920
    found = best_of(drawable, 2)
    run = [run_strategy("random", bench, 3 * seed + 1, 2, None)["test"] for seed in range(100)]
    deviation = sum(share * (test - expected(found)) ** 2 for test, share in found.items()) ** 0.5
    assert abs(statistics.mean(run) - expected(found)) < 4 * deviation / 100**0.5
    assert all(abs(test / bench.unit - round(test / bench.unit)) < 1e-6 for test in run)


def test_a_table_made_again_is_compared_with_the_old_one(htad):
    table = json.loads((TABLES / "htad.json").read_text())
    same = make_fusion_bench.agreement(table, table)
    assert "+0.00 points on average; root mean square 0.00" in same and "375 of 375 genotypes differ by at most" in same
    worse = json.loads(json.dumps(table))
    for row in worse["genotypes"]:
        for run in row["runs"].values():
            run["test"] -= 0.01 * table["samples"]["test"]
    assert "-1.00 points on average; root mean square 1.00" in make_fusion_bench.agreement(worse, table)
    with pytest.raises(UserError, match="different data"):
        make_fusion_bench.agreement({**table, "set": "digits"}, table)
