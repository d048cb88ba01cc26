"""What is averaged, what is told apart, and the statistics."""

import math
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from reports.comparing import compare
from reports.contents import _difference_table, sections_of
from reports.page import page
from reports.reading import read_run, read_runs
from tests.run_folders import DATA, edit, make_run
from util.cli import UserError


def table_of(place, kind="training"):
    (found,) = [one for one in compare(read_runs([place])) if one.kind == kind]
    return found


def faults_of(folder):
    return "; ".join(read_run(folder).faults)


def test_runs_that_differ_in_their_seed_are_one_row(tmp_path):
    scores = [0.5, 0.53, 0.58]
    for seed, score in enumerate(scores):
        make_run(tmp_path, seed, score)
    table = table_of(tmp_path)
    (row,) = table.rows
    found = row.score("test", "f1")
    assert row.seeds == [0, 1, 2] and found.count == 3 and table.columns[0] == ("test", "f1")
    assert found.mean == pytest.approx(np.mean(scores)) and found.deviation == pytest.approx(np.std(scores, ddof=1))
    assert not row.not_published and not row.not_rows and not table.left_out
    assert table.published[0]["id"] == "bmnas-1" and "BM-NAS" in table.published[0]["rows"][0]["source"]


DIRTY = {"started": "2026", "git_commit": "c" * 40 + "-dirty"}
CONDITIONS = {
    "uncommitted changes": (
        {"sessions": [{**DIRTY, "changes": "abcdef99"}]},
        r"another commit \(c{10}-dirty abcdef instead",
    ),
    "commit": ({"commit": "d" * 40}, "another commit"),
    "precision": ({"arguments": {"amp": "bf16"}}, r"another precision \(bf16 instead of float32\)"),
    "data": ({"data": {**DATA, "identity": {"test": "b3"}}}, "other data"),
    "selection": ({"protocol": "epoch with the best TEST score"}, "another selection rule"),
    "split": ({"trained_on": "train+dev"}, "another split"),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_other_conditions_are_never_averaged(tmp_path, name):
    changes, reason = CONDITIONS[name]
    for seed in (0, 1):
        make_run(tmp_path, seed, 0.5)
    make_run(tmp_path, 2, 0.9, name="other", **changes)
    usual, other = table_of(tmp_path).rows
    assert usual.score("test", "f1").mean == 0.5 and not usual.not_rows
    assert other.score("test", "f1").mean == 0.9 and re.search(reason, "; ".join(other.not_rows))
    assert usual.label != other.label
    assert "1 of 2 seeds" in other.not_rows and not table_of(tmp_path).differences


def test_other_settings_are_another_row_that_says_so(tmp_path):
    for seed in (0, 1, 2):
        make_run(tmp_path, seed, 0.5 + 0.01 * seed, name="narrow")
        make_run(tmp_path, seed, 0.6 + 0.02 * seed, name="wide", arguments={"C": 16, "datadir": "elsewhere/films"})
    table = table_of(tmp_path)
    assert [row.unlike for row in table.rows] == [["C 16"], ["C 8"]]
    (one,) = table.differences
    values = np.array([0.6 + 0.02 * seed - 0.5 - 0.01 * seed for seed in range(3)])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert (one.mean, one.low, one.high) == pytest.approx((values.mean(), low, high)) and one.count == 3


def test_runs_in_several_processes_are_another_row(tmp_path):
    for seed, processes in enumerate((1, 1, 2)):
        make_run(tmp_path, seed, batch={"samples": 8, "processes": processes})
    assert [(row.unlike, row.seeds) for row in table_of(tmp_path).rows] == [
        (["processes 1"], [0, 1]),
        (["processes 2"], [2]),
    ]


def test_a_difference_needs_common_seeds_and_says_how_many(tmp_path):
    make_run(tmp_path, 0, 0.5)
    make_run(tmp_path, 1, 0.5)
    make_run(tmp_path, 1, 0.7, name="wide", arguments={"C": 16})
    make_run(tmp_path, 2, 0.7, name="wide", arguments={"C": 16})
    (one,) = table_of(tmp_path).differences
    assert one.count == 1 and one.mean == pytest.approx(0.2) and math.isnan(one.low) and math.isnan(one.high)


def test_equal_differences_have_no_interval(tmp_path):
    for seed, score in enumerate((0.6, 0.3)):
        make_run(tmp_path / "a", seed, score)
        make_run(tmp_path / "b", seed, score + 0.1, arguments={"C": 16})
    comparison = table_of(tmp_path)
    (one,) = comparison.differences
    assert abs(one.mean) == pytest.approx(0.1) and one.count == 2 and math.isnan(one.low)
    (row,) = _difference_table(comparison).rows
    assert row[3:] == ["none: equal differences", "2", "-"]


def test_what_published_rows_cannot_be_compared_with(tmp_path):
    data = {**DATA, "synthetic": True, "samples": {"test": 16}}
    make_run(
        tmp_path, data=data, protocol="epoch with the best TEST score", backbones_started_from={"image": "random, x"}
    )
    (row,) = table_of(tmp_path).rows
    assert row.not_published == [
        "synthetic data",
        "random backbones (image)",
        "the epoch was selected on test",
        "another split (16 test samples, published: 7,799)",
    ]


class TestRunsThatDoNotCount:
    def test_interrupted(self, tmp_path):
        make_run(tmp_path, 0, 0.5)
        folder = make_run(tmp_path, 1, 0.9, finished=False)
        table = table_of(tmp_path)
        ((run, reason),) = table.left_out
        assert run.folder == folder and reason.startswith("interrupted") and "3 of 3 epochs" in reason
        assert table.rows[0].score("test", "f1").count == 1

    def test_continued_after_the_result(self, tmp_path):
        folder = make_run(tmp_path)
        line = (folder / "log.jsonl").read_text().splitlines()[-1].replace('"epoch": 2', '"epoch": 3')
        with open(folder / "log.jsonl", "a") as file:
            file.write(line + "\n")
        assert "continued after its result" in faults_of(folder)

    def test_an_edited_score(self, tmp_path):
        folder = make_run(tmp_path)
        edit(folder / "result.json", lambda result: result["metrics"]["test"].update(f1=0.51))
        assert "it was changed after the run" in faults_of(folder)
        assert "test f1 is 0.51, log.txt has 0.5000" in faults_of(folder)

    def test_an_edited_result_of_an_earlier_version(self, tmp_path):
        """Without a checksum the log tells."""
        folder = make_run(tmp_path)
        (folder / "run.json").unlink()
        edit(folder / "result.json", lambda result: [result.pop("checksum"), result.pop("run")])
        assert not faults_of(folder)
        edit(folder / "result.json", lambda result: result["metrics"]["dev"].update(f1=0.26))
        assert "dev f1 is 0.26, log.jsonl has 0.25" in faults_of(folder)
        edit(folder / "result.json", lambda result: result.update(selected_epoch=1))
        assert "it selects epoch 1, log.jsonl epoch 2" in faults_of(folder)
        edit(folder / "args.json", lambda arguments: arguments.update(seed=7))
        assert "--seed is 0, args.json has 7" in faults_of(folder)

    def test_a_copy(self, tmp_path):
        folder = make_run(tmp_path / "a", 0, 0.5)
        shutil.copytree(folder, tmp_path / "b" / folder.name)
        table = table_of(tmp_path)
        assert [reason for _, reason in table.left_out] == [f"copy of {folder}"] and table.rows[0].score(
            "test", "f1"
        ).count == 1

    def test_a_copy_of_an_earlier_version(self, tmp_path):
        folder = make_run(tmp_path / "a", 0, 0.5)
        (folder / "run.json").unlink()
        shutil.copytree(folder, tmp_path / "b" / folder.name)
        assert [reason for _, reason in table_of(tmp_path).left_out] == [f"copy of {folder}"]

    @pytest.mark.parametrize("hidden", [(), ("checksum",), ("checksum", "run.json"), ("checksum", "run.json", "run")])
    def test_a_copy_with_another_seed_is_left_out_and_the_original_stays(self, tmp_path, hidden):
        """However much of its identity is removed."""
        folder = make_run(tmp_path / "b", 0, 0.5)
        copy = shutil.copytree(folder, tmp_path / "a" / folder.name)
        edit(copy / "args.json", lambda arguments: arguments.update(seed=7))
        edit(copy / "result.json", lambda result: [result["arguments"].update(seed=7), *map(result.pop, hidden[::2])])
        if "run.json" in hidden:
            (copy / "run.json").unlink()
        table = table_of(tmp_path)
        ((run, reason),) = table.left_out
        assert run.folder == copy and table.rows[0].seeds == [0]
        assert ("the same scores in every epoch as" if len(hidden) == 3 else "copy of") in reason

    def test_files_of_two_runs(self, tmp_path):
        folder, other = make_run(tmp_path / "a", 0, 0.5), make_run(tmp_path / "b", 1, 0.6)
        for name in ("args.json", "result.json", "log.jsonl", "log.txt"):
            shutil.copy(other / name, folder / name)
        assert "run.json belongs to another run" in faults_of(folder)

    def test_an_edited_commit(self, tmp_path):
        folder = make_run(tmp_path)
        edit(folder / "run.json", lambda identity: identity["sessions"][0].update(git_commit="d" * 40))
        assert "run.json has other sessions" in faults_of(folder)

    def test_copies_that_went_on_differently_count_neither(self, tmp_path):
        make_run(tmp_path / "a", 0, 0.5, id="same")
        make_run(tmp_path / "b", 0, 0.6, id="same")
        table = table_of(tmp_path)
        assert not table.rows and all("same identity" in reason for _, reason in table.left_out)

    @pytest.mark.parametrize(("score", "words"), [(0.5, "with the same scores"), (0.6, "with OTHER scores")])
    def test_a_seed_that_is_there_twice(self, tmp_path, score, words):
        first = make_run(tmp_path / "a", 0, 0.5)
        make_run(tmp_path / "b", 0, score)
        table = table_of(tmp_path)
        ((_, reason),) = table.left_out
        assert words in reason and str(first) in reason and table.rows[0].score("test", "f1").mean == 0.5

    @pytest.mark.parametrize("name", ["result.json", "args.json", "log.jsonl", "run.json"])
    @pytest.mark.parametrize("text", ["{", "[]", '{"metrics": 3}', "\x00"])
    def test_a_damaged_file_is_named_and_nothing_fails(self, tmp_path, name, text):
        make_run(tmp_path, 0, 0.5)
        folder = make_run(tmp_path, 1, 0.9)
        (folder / name).write_text(text + "\n")
        left_out = [str(run.folder) for one in compare(read_runs([tmp_path])) for run, _ in one.left_out]
        assert left_out == [str(folder)]


ODD = {
    "metrics": [3, {"test": 3}, None],
    "batch": [8],
    "data": ["films", {"identity": 3}, {"samples": [1]}],
    "parameters": [3, {"fusion": "many"}],
    "run": [3, {"sessions": 3}, {"sessions": [3]}],
    "seconds": ["long"],
    "genotype": [[1]],
    "architecture": ["random"],
    "backbones_started_from": [{"image": 3}],
    "protocol": [3],
    "kind": [3],
    "epochs": ["3"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_an_entry_of_another_type_is_named_and_nothing_fails(tmp_path, name, value):
    make_run(tmp_path, 0, 0.5)
    folder = make_run(tmp_path, 1, 0.9)
    edit(folder / "result.json", lambda result: [result.pop("checksum"), result.update({name: value})])
    sections = sections_of(compare(read_runs([tmp_path])))
    ((run, reason),) = [pair for section in sections for pair in section.comparison.left_out]
    assert run.folder == folder and reason.endswith(f"is damaged: {name}") and page(sections)


def test_a_run_that_was_resumed_with_other_code_says_so(tmp_path):
    sessions = [{"started": "2026", "git_commit": commit * 40} for commit in "cd"]
    make_run(tmp_path, sessions=sessions)
    (row,) = table_of(tmp_path).rows
    assert "resumed at another commit than it began with" in row.not_rows


def test_a_training_takes_time_and_strategy_from_its_search(tmp_path):
    for seed in (0, 1):
        search = make_run(
            tmp_path, seed, kind="search", name="gdas", arguments={"strategy": "gdas"}, seconds=100.0 + seed
        )
        origin = {"from": f"moved/{search.name}", "search_id": f"search-gdas-{search}"}
        make_run(search, seed, architecture=origin)
    (row,) = table_of(tmp_path).rows
    assert row.label == "searched architecture, gdas" and row.first.source == "searched"
    assert row.first.search.result["seconds"] == 100.0
    assert table_of(tmp_path, "search").rows[0].score("dev", "f1").count == 2


def test_results_of_searches_with_other_settings_are_told_apart(tmp_path):
    for seed, rate in enumerate((1e-3, 1e-3, 3e-3)):
        search = make_run(tmp_path, seed, kind="search", arguments={"arch_learning_rate": rate})
        make_run(search, seed, architecture={"from": str(search)})
    labels = [(row.label, len(row.runs)) for row in table_of(tmp_path).rows]
    published = "searched architecture, published (search arch_learning_rate {})"
    assert labels == [(published.format(0.001), 2), (published.format(0.003), 1)]


def test_results_of_an_edited_search_are_told_apart(tmp_path):
    for seed, strategy in enumerate(("published", "gdas")):
        search = make_run(tmp_path, seed, kind="search", arguments={"strategy": strategy})
        make_run(search, seed, architecture={"from": str(search)})
    edit(search / "args.json", lambda arguments: arguments.update(strategy="published"))
    sound, edited = table_of(tmp_path).rows
    assert sound.seeds == [0] and edited.seeds == [1] and edited.label != sound.label
    assert "--strategy is gdas, args.json has published" in "; ".join(edited.not_rows)
    assert not table_of(tmp_path).differences


def test_a_training_belongs_to_the_sound_one_of_two_copies_of_its_search(tmp_path):
    search = make_run(tmp_path / "b", kind="search", id="search")
    copy = shutil.copytree(search, tmp_path / "a" / search.name)
    edit(copy / "args.json", lambda arguments: arguments.update(C=64))
    make_run(tmp_path / "c", architecture={"from": "gone", "search_id": "search"})
    (row,) = table_of(tmp_path).rows
    assert row.first.search.folder == search and not row.first.search.faults


def test_a_search_outside_the_named_folders_is_read_as_well(tmp_path):
    folders = []
    for seed, strategy in enumerate(("published", "gdas")):
        search = make_run(tmp_path, seed, kind="search", arguments={"strategy": strategy})
        folders.append(make_run(search, seed, architecture={"from": str(search)}))
    (table,) = compare(read_runs(folders))
    assert [row.first.strategy for row in table.rows] == ["gdas", "published"]


def test_trainings_whose_searches_are_gone_are_never_averaged(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, seed, architecture={"from": f"gone/search-{seed}", "search_id": f"gone {seed}"})
    rows = table_of(tmp_path).rows
    assert len(rows) == 2 and all(
        "its search was not found, so the strategy is unknown" in row.not_rows for row in rows
    )


def test_searches_that_stopped_early_are_averaged_with_the_others(tmp_path):
    for seed, epochs in enumerate((3, 2)):
        make_run(tmp_path, seed, kind="search", epochs=epochs, arguments={"epochs": 3, "patience": 1})
    (row,) = table_of(tmp_path, "search").rows
    assert row.seeds == [0, 1]


def test_runs_with_and_without_random_backbones_are_told_apart(tmp_path):
    for seed, source in enumerate(("random, drawn", "a/backbone.pth")):
        make_run(tmp_path, seed, backbones_started_from={"text": source})
    assert sorted(len(row.not_published) for row in table_of(tmp_path).rows) == [0, 1]


def test_what_was_not_recorded_is_said(tmp_path):
    for seed in (0, 1):
        folder = make_run(
            tmp_path, seed, commit=None, sessions=[], data={"samples": {"test": 7799}, "folder": f"d{seed}"}
        )
        edit(folder / "result.json", lambda result: [result.pop("run"), result.pop("checksum")])
        (folder / "run.json").unlink()
    rows = table_of(tmp_path).rows
    assert len(rows) == 2 and all("commit not recorded" in row.not_rows for row in rows)
    assert all("not recorded whether the data are real" in row.not_published for row in rows)


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        read_runs([tmp_path])
    with pytest.raises(UserError, match="not a folder"):
        read_runs([tmp_path / "missing"])


def test_a_folder_that_is_named_twice_counts_once(tmp_path):
    folder = make_run(tmp_path)
    assert len(read_runs([tmp_path, folder, tmp_path / "." / folder.name])) == 1


def test_a_search_that_went_on_after_its_training_is_noted(tmp_path):
    def notes():
        comparison = table_of(tmp_path)
        return [note for section in sections_of([comparison]) for table in section.tables for note in table.notes]

    search = make_run(tmp_path, 0, kind="search", id="s")
    start = [{"started": "2026-01-02T00:00:00", "git_commit": "c" * 40}]
    make_run(tmp_path, 0, architecture={"from": str(search), "search_id": "s"}, sessions=start)
    assert not any("The search continued" in note for note in notes())
    later = {"started": "2026-01-03T00:00:00", "git_commit": "c" * 40, "command": f"python x --resume {search}"}
    edit(search / "run.json", lambda known: known["sessions"].append(later))
    assert any("The search continued beyond the epoch" in note and "eval-EXP-0" in note for note in notes())
    (record,) = (run for run in read_runs([tmp_path]) if run.kind == "training")
    assert record.search.commands == ["python main_darts_searchable_mmimdb.py --seed 0", f"python x --resume {search}"]
