"""Flags: which value wins, what a resumed run may change, one-line usage errors, and the original's spellings."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path, PurePath
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

import main_darts_found_mmimdb as found
import main_darts_searchable_mmimdb as search
import main_unimodal_mmimdb as unimodal
from engine import arguments
from tasks.bmnas import flags
from tests.processes import start
from util.cli import UserError

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = {"search": search, "found": found, "unimodal": unimodal}
REQUIRED = {"search": [], "found": ["--fusion", "late"], "unimodal": ["--modality", "text"]}


class Parsed(BaseException):
    """Ends a script as soon as its command line is parsed."""


def parse(script, *argv):
    """The arguments that a script's `main` would use."""
    real = arguments.parse_args

    def stop(*args, **options):
        raise Parsed(real(*args, **options))

    with mock.patch.object(arguments, "parse_args", stop), pytest.raises(Parsed) as parsed:
        SCRIPTS[script].main(list(argv))
    return parsed.value.args[0]


def saved_run(folder, script, *argv):
    """Create a run folder as `start_run` does; return its arguments."""
    args = parse(script, *REQUIRED[script], *argv)
    folder.mkdir(parents=True)
    (folder / "args.json").write_text(json.dumps(vars(args)))
    return args


# The flags of the original's MM-IMDB scripts, with their defaults.
BOTH = {
    "seed": 2,
    "save": "EXP",
    "datadir": "BM-NAS_dataset/mmimdb/dataset/",
    "small_dataset": False,
    "num_workers": 32,
    "use_dataparallel": False,
    "parallel": False,
    "batchsize": 8,
    "epochs": 30,
    "drpt": 0.1,
    "num_input_nodes": 6,
    "num_keep_edges": 2,
    "C": 192,
    "L": 16,
    "steps": 2,
    "multiplier": 2,
    "node_steps": 1,
    "node_multiplier": 1,
    "num_outputs": 23,
    "f1_type": "weighted",
    "arch_learning_rate": 3e-4,
    "arch_weight_decay": 1e-3,
    "weight_decay": 1e-4,
    "eta_max": 1e-3,
    "eta_min": 1e-6,
    "Ti": 1,
    "Tm": 2,
}
ORIGINAL = {"search": BOTH, "found": {**BOTH, "search_exp_dir": None, "eval_exp_dir": None}}


@pytest.mark.parametrize("script", ORIGINAL)
def test_flags_of_the_original_have_its_spelling_and_defaults(script):
    parser = SCRIPTS[script].get_args_parser()
    actions = {option: action for action in parser._actions for option in action.option_strings}
    defaults = vars(parse(script, *REQUIRED[script]))
    for name, value in ORIGINAL[script].items():
        found_value = defaults[actions[f"--{name}"].dest]
        if name == "num_input_nodes":  # follows from the task
            found_value = found_value or SCRIPTS[script].TASK.num_features
        if name == "num_input_nodes":
            found_value = SCRIPTS[script].TASK.num_features if found_value is None else found_value
        if name == "datadir":
            assert PurePath(found_value) == PurePath(value)
        else:
            assert found_value == value and type(found_value) is type(value), name


@pytest.mark.parametrize("script", ORIGINAL)
def test_every_flag_of_the_original_is_accepted_with_a_value(script):
    argv = []
    for name, value in ORIGINAL[script].items():
        if isinstance(value, bool):
            argv.append(f"--{name}")
        elif value is not None:
            argv += [f"--{name}", str(value)]
    args = parse(script, *REQUIRED[script], *argv)
    assert args.parallel is True and args.small_dataset is True and args.eta_min == 1e-6


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("flag", ["--parallel", "--use_dataparallel"])
def test_both_spellings_of_data_parallel_mean_the_same(script, flag):
    assert parse(script, *REQUIRED[script]).parallel is False
    args = parse(script, *REQUIRED[script], flag)
    assert args.parallel is True and not hasattr(args, "use_dataparallel")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_has_a_help_text_and_its_values_pass_its_own_check(script):
    for action in SCRIPTS[script].get_args_parser()._actions:
        assert action.help, action.option_strings
        if action.type and action.default is not None:
            assert action.type(str(action.default)) == action.default


class TestPrecedence:
    def test_demo_changes_defaults_and_explicit_flags_beat_it(self):
        for script, module in SCRIPTS.items():
            plain, demo = parse(script, *REQUIRED[script]), parse(script, *REQUIRED[script], "--demo")
            for name, value in module.DEMO.items():
                if hasattr(plain, name):
                    assert getattr(demo, name) == value
            given = parse(script, *REQUIRED[script], "--demo", "--batchsize", "8", "--epochs=30", "--datadir", "x")
            assert (given.batchsize, given.epochs, given.datadir) == (8, 30, "x"), "also if they equal a default"

    def test_demo_has_no_values_for_flags_that_the_script_lacks(self):
        for script in SCRIPTS:
            plain, demo = parse(script, *REQUIRED[script]), parse(script, *REQUIRED[script], "--demo")
            assert set(vars(demo)) == set(vars(plain)), script

    def test_a_found_run_takes_over_the_search(self, tmp_path):
        flags = "--C 64 --L 9 --seed 7 --text_cp random --datadir elsewhere --epochs 3"
        saved_run(tmp_path / "s", "search", *flags.split())
        args = parse("found", "--search_exp_dir", str(tmp_path / "s"))
        assert (args.C, args.L, args.seed, args.text_cp, args.datadir) == (64, 9, 7, "random", "elsewhere")
        assert args.epochs == 30, "the search's number of epochs is not the training's"
        assert args.resume is None and args.save == "EXP"

    def test_explicit_flags_beat_the_search(self, tmp_path):
        saved_run(tmp_path / "s", "search", "--C", "64", "--seed", "7")
        args = parse("found", "--search_exp_dir", str(tmp_path / "s"), "--C", "192", "--seed", "2")
        assert (args.C, args.seed) == (192, 2), "also if they equal a default"

    def test_a_demo_search_makes_a_demo_training(self, tmp_path):
        saved_run(tmp_path / "s", "search", "--demo")
        args = parse("found", "--search_exp_dir", str(tmp_path / "s"))
        assert args.demo and args.datadir == found.DEMO["datadir"] and args.freeze_backbones
        assert args.epochs == found.DEMO["epochs"]

    def test_what_a_demo_search_was_told_is_taken_over(self, tmp_path):
        saved_run(tmp_path / "s", "search", "--demo", "--C", "32", "--datadir", "elsewhere")
        args = parse("found", "--search_exp_dir", str(tmp_path / "s"))
        assert (args.C, args.datadir) == (32, "elsewhere")

    @pytest.mark.parametrize("demo", [[], ["--demo"]])
    def test_a_test_run_takes_over_the_training(self, tmp_path, demo):
        run = saved_run(tmp_path / "e", "found", "--C", "32", "--L", "4", "--drpt", "0.3", *demo)
        args = parse("found", "--eval_exp_dir", str(tmp_path / "e"))
        own = {"eval_exp_dir", "resume", "out_dir"}
        assert {k: v for k, v in vars(args).items() if k not in own} == {
            k: v for k, v in vars(run).items() if k not in own
        }
        assert args.out_dir == str(tmp_path / "e"), "a test lies inside its training"
        assert parse("found", "--eval_exp_dir", str(tmp_path / "e"), "--f1_type", "macro").f1_type == "macro"

    def test_folders_of_the_original_have_nothing_to_take_over(self, tmp_path):
        (tmp_path / "best").mkdir()
        assert parse("found", "--search_exp_dir", str(tmp_path)).C == 192

    def test_a_folder_that_is_no_run_is_named(self, tmp_path):
        (tmp_path / "genotype.json").write_text(Path("genotypes/mmimdb_example.json").read_text())
        for words in (["--search_exp_dir"], ["--eval_exp_dir"], ["--genotype", "random", "--search_exp_dir"]):
            with pytest.raises(UserError, match=rf"{words[-1]} .* is not a run folder: it has no args\.json"):
                parse("found", *words, str(tmp_path))

    def test_a_search_is_not_tested(self, tmp_path):
        saved_run(tmp_path / "s", "search")
        with pytest.raises(UserError, match=r"--eval_exp_dir .* is a search, .*; train what it found with --search_e"):
            parse("found", "--eval_exp_dir", str(tmp_path / "s"))

    def test_a_missing_folder_is_named(self, tmp_path):
        for flag in ("--search_exp_dir", "--eval_exp_dir"):
            with pytest.raises(UserError, match=r"run folder .*nowhere does not exist"):
                parse("found", flag, str(tmp_path / "nowhere"))


class TestResume:
    @pytest.mark.parametrize("demo", [[], ["--demo"]])
    @pytest.mark.parametrize("script", SCRIPTS)
    def test_everything_is_restored(self, tmp_path, script, demo):
        run = saved_run(tmp_path / "r", script, "--seed", "9", "--eta_max", "0.5", "--L", "4", "--small_dataset", *demo)
        args = parse(script, "--resume", str(tmp_path / "r"))
        assert vars(args) == {**vars(run), "resume": str(tmp_path / "r")}

    @pytest.mark.parametrize(
        ("flags", "name", "new", "old"),
        [
            (["--eta_max", "0.1"], "eta_max", "0.1", "0.5"),
            (["--C", "192"], "C", "192", "64"),
            (["--small_dataset"], "small_dataset", "True", "False"),
            (["--amp", "bf16"], "amp", "bf16", "off"),
        ],
    )
    def test_other_settings_are_refused(self, tmp_path, flags, name, new, old):
        saved_run(tmp_path / "r", "search", "--eta_max", "0.5", "--C", "64")
        with pytest.raises(UserError) as error:
            parse("search", "--resume", str(tmp_path / "r"), *flags)
        assert f"--{name} {new} (was {old})" in str(error.value) and str(tmp_path / "r") in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("kept", ["checkpoint", "result", "neither"])
    def test_edited_arguments_are_named(self, tmp_path, kept):
        folder = tmp_path / "run"
        used = vars(saved_run(folder, "search", "--drpt", "0.2"))
        if kept == "checkpoint":
            torch.save({"arguments": json.dumps(used)}, folder / "last.pth")
        elif kept == "result":  # of an earlier version
            torch.save({"epoch": 1}, folder / "last.pth")
            (folder / "result.json").write_text(json.dumps({"arguments": used}))
        changed = {"drpt": 0.9, "C": 16, "epochs": 7, "num_workers": 1, "datadir": "elsewhere"}
        (folder / "args.json").write_text(json.dumps({**used, "epochs": 7, "num_workers": 1, "datadir": "elsewhere"}))
        assert parse("search", "--resume", str(folder), "--epochs", "8").drpt == 0.2
        (folder / "args.json").write_text(json.dumps({**used, **changed}))
        if kept == "neither":
            assert parse("search", "--resume", str(folder)).drpt == 0.9
            return
        message = "C is 16, but the run used 192, drpt is 0.9, but the run used 0.2; restore the earlier values"
        with pytest.raises(UserError, match=message):
            parse("search", "--resume", str(folder), "--epochs", "8")

    def test_every_changed_flag_is_listed(self, tmp_path):
        saved_run(tmp_path / "r", "search")
        with pytest.raises(UserError, match=r"--seed 5 \(was 2\).*--drpt 0.5 \(was 0.1\)"):
            parse("search", "--resume", str(tmp_path / "r"), "--drpt", "0.5", "--seed", "5", "--C", "192")

    def test_the_same_settings_may_be_repeated(self, tmp_path):
        run = saved_run(tmp_path / "r", "search", "--eta_max", "0.5")
        args = parse("search", "--resume", str(tmp_path / "r"), "--eta_max", "5e-1", "--C", "192")
        assert vars(args) == {**vars(run), "resume": str(tmp_path / "r")}

    def test_what_does_not_change_the_result_may_change(self, tmp_path):
        saved_run(tmp_path / "r", "search")
        free = {"epochs": 50, "num_workers": 0, "cache_features": "off", "cache_dir": "x", "device": "cpu"}
        argv = [word for name, value in free.items() for word in (f"--{name}", str(value))]
        args = parse("search", "--resume", str(tmp_path / "r"), *argv)
        assert {name: getattr(args, name) for name in free} == free

    def test_a_run_of_another_script_is_refused(self, tmp_path):
        saved_run(tmp_path / "r", "search")
        with pytest.raises(UserError, match=r"another script or a later version made that run .* and \d+ more"):
            parse("found", "--resume", str(tmp_path / "r"))

    def test_the_script_that_made_a_run_is_named(self, tmp_path):
        saved_run(tmp_path / "my r", "search")
        (tmp_path / "my r" / "run.json").write_text('{"sessions": [], "script": "main_darts_searchable_mmimdb.py"}')
        message = f"continue it with `python main_darts_searchable_mmimdb.py --resume '{tmp_path}/my r'`"
        for script in ("found", "unimodal"):
            with pytest.raises(UserError, match=re.escape(message)):
                parse(script, "--resume", str(tmp_path / "my r"))
        parse("search", "--resume", str(tmp_path / "my r"))

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_folder_without_a_run_is_refused(self, tmp_path, exists):
        if exists:
            (tmp_path / "r").mkdir()
        with pytest.raises(UserError, match=r"--resume .*/r: no args\.json there"):
            parse("search", "--resume", str(tmp_path / "r"))

    def test_damaged_arguments_are_refused(self, tmp_path):
        (tmp_path / "args.json").write_text("{")
        with pytest.raises(UserError, match=r"args\.json is not a readable JSON file"):
            parse("search", "--resume", str(tmp_path))


USAGE_ERRORS = {
    "unknown choice": (["--amp", "fp8"], "--amp"),
    "unknown flag": (["--nonsense", "3"], "--nonsense"),
    "abbreviation": (["--epoch", "3"], "--epoch"),
    "no number": (["--epochs", "many"], "--epochs.*many"),
    "fraction": (["--epochs", "1.5"], "--epochs.*1.5"),
    "zero": (["--epochs", "0"], "--epochs.*0 is out of range; expected at least 1"),
    "batch of one": (["--batchsize", "1"], "--batchsize.*at least 2"),
    "negative": (["--weight_decay", "-1"], "--weight_decay.*at least 0"),
    "dropout of one": (["--drpt", "1.0"], "--drpt.*1.0 is out of range.*below 1"),
    "not a number": (["--eta_max", "nan"], "--eta_max.*nan"),
    "infinite": (["--eta_max", "inf"], "--eta_max.*inf"),
    "rate of zero": (["--eta_max", "0"], "--eta_max.*0 is out of range"),
    "negative seed": (["--seed", "-1"], "--seed"),
    "missing value": (["--C"], "--C.*expected one argument"),
    "positional": (["folder"], "folder"),
}


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_usage_errors_are_one_line_and_exit_code_2(case, capsys):
    argv, message = USAGE_ERRORS[case]
    with pytest.raises(SystemExit) as end:
        parse("search", *argv)
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("--help\n")
    assert re.search(message, err)


def test_limits_are_inside():
    flags = "--drpt 0 --epochs 1 --batchsize 2 --weight_decay 0 --eta_min 0 --seed 0"
    args = parse("search", *flags.split())
    assert (args.drpt, args.epochs, args.batchsize, args.weight_decay, args.seed) == (0.0, 1, 2, 0.0, 0)


# Runs scripts with --help, each in a fork of a process that has only imported torch, and prints what they import.
WATCH = """
import os, runpy, sys, torch
sys.path.insert(0, ".")
for script in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        heavy = {"sklearn", "matplotlib", "cv2", "tensorboard", "torch._dynamo", "transformers"} & set(sys.modules)
        print("code", end.code, "heavy", *sorted(heavy), flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_help_loads_nothing_that_it_does_not_need():
    scripts = [f"main_{name}_mmimdb.py" for name in ("darts_searchable", "darts_found", "unimodal")]
    words = [sys.executable, "-c", WATCH, *scripts]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert process.returncode == 0 and process.stderr == "", process.stderr
    texts = process.stdout.split("code 0 heavy\n")
    assert len(texts) == 4 and texts[-1] == "", process.stdout[-200:]
    for script, text in zip(scripts, texts, strict=False):
        assert script in text and "--datadir" in text and "(default: " in text


def run_script(words):
    """Run a script in this process."""
    sys.argv = list(words)
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["main_darts_found_mmimdb.py", "--amp", "fp8"], "--amp"),
        (["main_darts_found_mmimdb.py"], "nothing to train"),
        (["main_darts_searchable_mmimdb.py", "--multiplier", "9"], "--multiplier 9"),
        (["main_unimodal_mmimdb.py"], "--modality"),
    ],
)
def test_mistakes_end_a_script_in_one_line_with_code_2(argv, message, tmp_path):
    process = start(run_script, argv, log=tmp_path / "log.txt")
    process.join(100)
    said = (tmp_path / "log.txt").read_text()
    assert process.exitcode == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said


SIZES = {"num_input_nodes": 6, "num_keep_edges": 2, "steps": 2, "multiplier": 2, "node_steps": 1, "node_multiplier": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_input_nodes": 8}, "--num_input_nodes 8: the network has 6 features"),
        ({"num_keep_edges": 3}, "--num_keep_edges 3: .*use 2"),
        ({"multiplier": 9}, "--multiplier 9 is more than the 8 states"),
        ({"node_multiplier": 4}, "--node_multiplier 4 is more than the 3 inner states"),
    ],
)
def test_sizes_in_conflict_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        flags.check_architecture(SimpleNamespace(**{**SIZES, **changes}), 6)


def test_the_number_of_input_features_follows_from_the_task_and_has_no_help():
    sizes = SimpleNamespace(**{**SIZES, "num_input_nodes": None})
    flags.check_architecture(sizes, 6)
    assert sizes.num_input_nodes == 6
    assert "num_input_nodes" not in search.get_args_parser().format_help()


@pytest.mark.parametrize("changes", [{}, {"multiplier": 8}, {"node_multiplier": 3}, {"steps": 4, "multiplier": 10}])
def test_sizes_up_to_the_limit_pass(changes):
    args = SimpleNamespace(**{**SIZES, **changes})
    flags.check_architecture(args, 6)
    assert vars(args) == {**SIZES, **changes}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "nothing to train: pass --search_exp_dir"),
        (["--fusion", "late", "--train_on", "train+dev"], r"--train_on train\+dev leaves no dev.*--select_on test"),
    ],
)
def test_found_choices_in_conflict_are_named(argv, message):
    with pytest.raises(UserError, match=message):
        found.main(argv)


def test_given_flags_are_those_of_the_command_line():
    parser = arguments.RecipeParser("")
    parser.add_argument("--size", type=int, default=3)
    parser.add_argument("--option", action="append", default=[])
    assert arguments.given_flags(parser, []) == {}
    assert arguments.given_flags(parser, ["--size", "3", "--option", "a", "--option", "b"]) == {
        "size": 3,
        "option": ["a", "b"],
    }
