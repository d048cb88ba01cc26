"""The comparison of MMNas' search strategies, on a few questions."""

import itertools
import json
from pathlib import Path

import pytest

from benchmarks import compare_mmnas, mmnas_bench
from benchmarks.bench_strategies import code_key
from benchmarks.mmnas_bench import BenchData, SeedBench
from util import code
from util.cli import UserError

STRATEGIES = ["mcan", "random", "evolution", "naswot", "published"]


@pytest.fixture
def few(monkeypatch):
    flags = ("--level", "hard", "--train", "30", "--scored", "8", "--matched", "1")
    monkeypatch.setattr(mmnas_bench, "SETS", {"hard-scenes": BenchData(flags, "vqa")})
    monkeypatch.setattr(mmnas_bench, "SCORED", 4)
    monkeypatch.setattr(mmnas_bench, "BLACK_BOXES", {"random": {}, "evolution": {"population": 2, "tournament": 1}})


def compare(folder, *more):
    flags = ["--sets", "hard-scenes", "--seeds", "1", "--budget", "3", "--epochs", "1"]
    return compare_mmnas.main([*flags, "--data", str(folder), "--strategies", *(more or STRATEGIES)])["hard-scenes"]


def test_the_same_command_gives_the_same_rows_and_goes_on(few, tmp_path, capsys):
    rows = compare(tmp_path)
    assert [row["strategy"] for row in rows] == STRATEGIES
    for row in rows:
        gain = row["test"][0] - row["random_test"][0]
        assert row["differences"] == [pytest.approx(gain)] and row["p"] == 1
        assert 0 <= row["test"][0] <= 100 and 1 <= row["trainings"] <= 3
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("hard-scenes/[st]*-*/**/*.json")}
    assert {path.parts[-2].partition("-")[0] for path in made} == {"searches", "trainings", "zero_cost"}
    assert compare(tmp_path) == rows
    assert made == {path: path.stat().st_mtime_ns for path in made}
    # Some of them alone, made anew.
    anew = {row["strategy"]: row for row in compare(tmp_path / "anew", "random", "published")}
    for row in (row for row in rows if row["strategy"] in anew):
        assert [anew[row["strategy"]][key] for key in ("architectures", "test")] == [row["architectures"], row["test"]]
    assert "| published |" in capsys.readouterr().out
    assert "| random |" in (tmp_path / "comparison-hard-scenes.md").read_text()


def test_random_search_of_equal_cost_is_the_mean_over_all_ways_to_take_trainings(monkeypatch):
    results = [{"dev": 0.1, "test": 0.5}, {"dev": 0.3, "test": 0.2}, {"dev": 0.2, "test": 0.8}]

    class Bench:
        query = staticmethod(results.__getitem__)
        draws = staticmethod(range)

    assert compare_mmnas.expected_test(Bench, 1, 3) == pytest.approx(0.5)
    assert compare_mmnas.expected_test(Bench, 1.5, 3) == pytest.approx((0.5 + 0.4) / 2)
    assert compare_mmnas.expected_test(Bench, 2, 3) == pytest.approx((0.2 + 0.8 + 0.2) / 3)
    assert compare_mmnas.expected_test(Bench, 3, 3) == pytest.approx(0.2)


def test_the_mean_over_all_ways_is_computed_in_closed_form():
    class Bench:
        query = staticmethod(lambda number: {"dev": number, "test": number})
        draws = staticmethod(range)

    # The largest of 20 of 0 to 59: 20 / 21 of 60, less one.
    assert compare_mmnas.expected_test(Bench, 20, 60) == pytest.approx(20 * 61 / 21 - 1)


def test_scores_before_training_cover_what_random_trains(few):
    asked = []

    class Bench:
        def zero_cost(self, name, count):
            asked.append(count)
            return {number: number for number in range(count)}, 0.0

        tau = staticmethod(len)
        draws = staticmethod(range)
        query = staticmethod(lambda number: {"test": number})

    assert [mmnas_bench.run_strategy("naswot", Bench(), budget)["tau"] for budget in (3, 6)] == [3, 6]
    assert asked == [4, 6]


def test_names_are_checked(few, tmp_path):
    with pytest.raises(UserError, match="--strategies drnas: known are"):
        compare_mmnas.main(["--strategies", "drnas", "--data", str(tmp_path)])
    with pytest.raises(UserError, match="--sets easy: known are"):
        SeedBench("easy", 0, tmp_path)


def test_a_training_is_kept_with_its_cost(few, tmp_path):
    bench = SeedBench("hard-scenes", 0, tmp_path, epochs=1)
    first = bench.draws(2)
    assert bench.draws(1) == first[:1] and len(bench.space.candidates["dec"]) == 4
    found = bench.query(first[0])
    (kept,) = bench.folder.glob("0-*.json")
    assert json.loads(kept.read_text()) == found
    assert found["genotype"] == first[0].to_dict() and found["parameters"] > 0 and found["seconds"] > 0


def test_what_changes_a_stored_result_names_its_folder(few, tmp_path, monkeypatch):
    places, searched = [], []

    def search(flags):
        folder = Path(flags[flags.index("--out_dir") + 1])
        folder.mkdir(parents=True)
        searched.append(folder)
        return {"genotype": bench.mcan.to_dict()}

    monkeypatch.setattr("search_vqa.main", search)
    changes = [
        lambda: None,
        lambda: None,
        lambda: monkeypatch.setattr(mmnas_bench, "OPTIONS", {"published": ("--strategy_option", "x=1")}),
        lambda: monkeypatch.setattr(mmnas_bench, "SEARCH", (*mmnas_bench.SEARCH, "--alpha_lr", "0.1")),
        lambda: monkeypatch.setattr(mmnas_bench, "TRAINING", ("--epochs", "2", "--lr_decay_epochs", "1")),
        lambda: monkeypatch.setattr(mmnas_bench, "code_key", lambda module: "other code"),
        lambda: monkeypatch.setattr(mmnas_bench, "BLACK_BOXES", {}),  # choose trainings, and change none
    ]
    for change in changes:
        change()
        bench = SeedBench("hard-scenes", 0, tmp_path, epochs=1)
        bench.search("published")
        places.append(bench.folder)
    assert len(searched) == len(set(searched)) == 5
    # Options and flags of a search leave the trainings where they are.
    assert [place == before for before, place in itertools.pairwise(places)] == [True, True, True, False, False, True]


def test_other_flags_make_other_data(few, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("datasets.make_demo.main", lambda flags: made.append(flags[-1]))
    for flags in (("--level", "hard"), ("--level", "hard"), ("--level", "easy")):
        monkeypatch.setitem(mmnas_bench.SETS, "hard-scenes", BenchData(flags, "vqa"))
        mmnas_bench.prepare("hard-scenes", tmp_path)
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    ("module", "made"),
    [
        ("benchmarks.mmnas_bench", ["search.gdas", "tasks.mmnas.trainings", "models.mmnas.fast", "search_vqa"]),
        ("benchmarks.compare_strategies", ["search.gdas", "models.bmnas.cells", "main_darts_found_own"]),
    ],
)
def test_code_that_makes_results_is_part_of_the_key(module, made, monkeypatch):
    before, content = code_key(module), code._content
    assert before == code_key(module)
    for changed in (*made, "search.zero_cost", "engine.updates", "reports.page"):
        monkeypatch.setattr(code, "_content", lambda name, own=changed: content(name) + b"\nX = 1\n" * (name == own))
        assert (code_key(module) == before) == (changed == "reports.page"), changed
