"""`--recipe`: the nine rows of the paper's Table 8, beside the scripts' defaults."""

import importlib
import json
from pathlib import Path

import pytest
import torch

from engine import arguments
from models.bmnas.cells import FusionCell
from search.derive import argmax
from tasks.bmnas import flags, paper_recipes
from util.cli import UserError

ROOT = Path(__file__).parent.parent.parent
TASKS = {
    "ntu": ("ntu-1", "ntu-2", "ntu-3", "ntu-4"),
    "ego": ("ego-1", "ego-2", "ego-3", "ego-4"),
    "mmimdb": ("mmimdb-1",),
}
RECIPES = [(task, recipe) for task, names in TASKS.items() for recipe in names]
# Flag -> column of Table 8 in docs/paper_results.json.
COLUMNS = {
    "C": "C",
    "L": "L",
    "steps": "cells N",
    "node_steps": "steps per cell M",
    "epochs": "search epochs",
    "batchsize": "batch",
    "drpt": "dropout",
    "eta_max": "largest rate",
}


def parse_search(task, *argv):
    script = importlib.import_module(f"main_darts_searchable_{task}")
    return arguments.parse_args(script.get_args_parser(), list(argv), demo=script.DEMO)


def parse_found(task, *argv):
    script, module = (importlib.import_module(name) for name in (f"main_darts_found_{task}", f"tasks.{task}"))
    return flags.parse_found(module.TASK, script.get_args_parser(), list(argv), script.DEMO)


def saved(folder, args):
    """A run folder of a search with these arguments; returns it as text."""
    folder.mkdir()
    (folder / "args.json").write_text(json.dumps(vars(args)))
    return str(folder)


def table_8():
    """Name of a recipe -> its row, as the papers' page has it."""
    tables = json.loads((ROOT / "docs" / "paper_results.json").read_text())["tables"]
    table = next(table for table in tables if table["id"] == "bmnas-8")
    rows = [dict(zip(table["columns"], row["values"], strict=True)) for row in table["rows"]]
    return {row["recipe"]: row for row in rows}


@pytest.mark.parametrize(("task", "recipe"), RECIPES)
def test_a_search_takes_the_row_and_records_its_name(task, recipe):
    args, row = parse_search(task, "--recipe", recipe), table_8()[recipe]
    assert args.recipe == recipe
    assert {flag: getattr(args, flag) for flag in COLUMNS} == {flag: row[column] for flag, column in COLUMNS.items()}
    assert (args.multiplier, args.node_multiplier) == (args.steps, args.node_steps)
    assert (args.arch_learning_rate, args.arch_weight_decay) == (3e-4, 1e-3)
    assert (args.eta_min, args.weight_decay, args.reshape_layers) == (1e-6, 1e-4, "trained")


def test_the_table_is_whole():
    assert set(table_8()) == set(paper_recipes.TABLE_8) == {recipe for _, recipe in RECIPES}


@pytest.mark.parametrize(("task", "recipe"), RECIPES)
def test_the_final_training_is_the_papers(task, recipe):
    args, row = parse_found(task, "--recipe", recipe, "--genotype", "random"), table_8()[recipe]
    assert 50 <= args.epochs <= 70 and args.train_on == "train+dev" and args.select_on == "test"
    assert not args.freeze_backbones and args.recipe == recipe
    # The supplement: batch and dropout are the same in both stages.
    assert (args.batchsize, args.drpt, args.C, args.L) == (row["batch"], row["dropout"], row["C"], row["L"])


@pytest.mark.parametrize("task", TASKS)
def test_only_flags_of_the_script_are_set_and_their_values_pass_its_checks(task):
    for kind, recipes in (("searchable", paper_recipes.search_recipes), ("found", paper_recipes.found_recipes)):
        parser = importlib.import_module(f"main_darts_{kind}_{task}").get_args_parser()
        actions = {action.dest: action for action in parser._actions}
        assert tuple(recipes(task)) == TASKS[task]
        for values in recipes(task).values():
            for name, value in values.items():
                assert actions[name].type is None or actions[name].type(str(value)) == value
                assert actions[name].choices is None or value in actions[name].choices


@pytest.mark.parametrize("task", TASKS)
def test_without_a_recipe_the_defaults_stay(task):
    script = importlib.import_module(f"main_darts_searchable_{task}")
    assert parse_search(task) == script.get_args_parser().parse_args([])
    assert parse_search(task).recipe is None


def test_explicit_flags_win():
    args = parse_search("mmimdb", "--recipe", "mmimdb-1", "--epochs", "30", "--batchsize", "8")
    assert (args.epochs, args.batchsize, args.recipe) == (30, 8, "mmimdb-1"), "also if they equal a default"
    args = parse_found("ego", "--recipe", "ego-2", "--genotype", "random", "--freeze_backbones", "--C", "32")
    assert args.freeze_backbones and (args.C, args.drpt) == (32, 0.2)


@pytest.mark.parametrize("name", ["ego-1", "table-8", "ntu-5"])
def test_an_unknown_or_another_tasks_recipe_is_one_line(name, capsys):
    for parse in (parse_search, parse_found):
        with pytest.raises(SystemExit) as exit:
            parse("ntu", "--recipe", name)
        error = capsys.readouterr().err
        assert exit.value.code == 2 and error.count("\n") == 1
        assert "--recipe" in error and repr(name) in error and "ntu-4" in error


def test_a_demo_has_its_own_settings(tmp_path):
    with pytest.raises(UserError, match=r"--recipe mmimdb-1 .* --demo"):
        parse_search("mmimdb", "--recipe", "mmimdb-1", "--demo")
    folder = saved(tmp_path / "s", parse_search("mmimdb", "--demo"))
    with pytest.raises(UserError, match="--recipe mmimdb-1"):
        parse_found("mmimdb", "--recipe", "mmimdb-1", "--search_exp_dir", folder)


def test_what_a_search_was_told_beside_its_recipe_is_taken_over(tmp_path):
    folder = saved(tmp_path / "s", parse_search("ntu", "--recipe", "ntu-2", "--drpt", "0.3"))
    args = parse_found("ntu", "--search_exp_dir", folder)
    assert (args.C, args.drpt, args.recipe, args.epochs) == (256, 0.3, None, 50)
    args = parse_found("ntu", "--recipe", "ntu-2", "--search_exp_dir", folder)
    assert (args.C, args.drpt, args.recipe, args.train_on) == (256, 0.3, "ntu-2", "train+dev")


def test_a_recipe_that_an_earlier_run_contradicts_is_refused(tmp_path):
    folder = saved(tmp_path / "s", parse_search("ntu", "--recipe", "ntu-2"))
    with pytest.raises(UserError, match=r"--recipe ntu-1 does not fit .*--C 256 \(recipe: 128\).*; drop --recipe"):
        parse_found("ntu", "--recipe", "ntu-1", "--search_exp_dir", folder)
    # The default search has the sizes of ntu-1.
    plain = saved(tmp_path / "p", parse_search("ntu"))
    assert parse_found("ntu", "--recipe", "ntu-1", "--search_exp_dir", plain).recipe == "ntu-1"
    trained = saved(tmp_path / "e", parse_found("ntu", "--recipe", "ntu-2", "--genotype", "random"))
    assert parse_found("ntu", "--eval_exp_dir", trained).recipe == "ntu-2"
    with pytest.raises(UserError, match="--recipe ntu-1 does not fit"):
        parse_found("ntu", "--recipe", "ntu-1", "--eval_exp_dir", trained)


@pytest.mark.parametrize("recipe", paper_recipes.TABLE_8)
def test_every_configuration_can_be_searched(recipe):
    row = paper_recipes.TABLE_8[recipe]
    features = 6 if recipe.startswith("mmimdb") else 8
    sizes = {"steps": row.cells, "multiplier": row.cells, "node_steps": row.steps, "node_multiplier": row.steps}
    cell = FusionCell.mixed(features, row.C, row.L, row.dropout, **sizes)
    out = cell([torch.randn(2, row.C, row.L) for _ in range(features)])
    out.sum().backward()
    assert out.shape == (2, row.cells * row.C * row.L)
    genotype = argmax(cell)
    assert len(genotype.steps) == row.cells and {len(step.inner_steps) for step in genotype.steps} == {row.steps}
