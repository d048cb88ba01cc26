"""The command line is frozen: a flag that comes, goes or changes is a decision that shows in the diff."""

import argparse
import re

import pytest

from engine.arguments import RecipeParser, non_negative_int, number, positive_int
from tools.freeze_command_line import COMMAND, FROZEN, changes, command_lines, describe_parser, load, scripts
from util.files import read_json


def test_no_flag_has_changed():
    found = changes(read_json(FROZEN), command_lines())
    assert not found, "\n".join(["the command line has changed:", *found, f"if that is intended, run: {COMMAND}"])


def parser(**changed):
    made = RecipeParser("", {"--BS": "--batchsize", "--GENO_EPOCH": "--ARCH_EPOCH"})
    made.add_argument("--batchsize", type=changed.get("type", positive_int), default=changed.get("default", 8))
    made.add_argument("--mode", "--m", choices=changed.get("choices", ("a", "b")), dest=changed.get("dest"))
    made.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True)
    if changed.get("more"):
        made.add_argument("--rates", type=number(float, 0), nargs="*", default=(1, 2.5))
    return describe_parser("script.py", made)


def test_a_parser_is_described():
    flags = parser(more=True)["script.py"]
    assert list(flags) == ["--batchsize", "--keep", "--mode", "--rates"]
    size = {"default": 8, "spellings": ["--batchsize", "--BS"], "type": "whole number", "accepts": ["1", "2"]}
    assert flags["--batchsize"] == size
    assert flags["--mode"] == {"default": None, "spellings": ["--mode", "--m"], "choices": ["a", "b"]}
    assert flags["--keep"]["spellings"] == ["--keep", "--no-keep"]
    assert flags["--rates"]["default"] == [1, 2.5] and flags["--rates"]["nargs"] == "*"


def test_every_kind_of_change_is_named():
    old = parser()
    assert changes(old, parser()) == []
    assert changes(old, parser(default=16)) == ["script.py --batchsize: default 8 -> 16"]
    wider = 'script.py --batchsize: accepts ["1", "2"] -> ["0", "1", "2"]'
    assert changes(old, parser(type=non_negative_int)) == [wider]
    assert changes(old, parser(choices=("a",))) == ['script.py --mode: choices ["a", "b"] -> ["a"]']
    assert changes(old, parser(dest="way")) == ['script.py --mode: dest null -> "way"']
    assert changes(old, parser(more=True)) == ["script.py --rates: new"]
    assert changes(parser(more=True), old) == ["script.py --rates: missing"]
    assert changes(old, {}) == ["script.py: missing"] and changes({}, old) == ["script.py: new"]


def test_a_subcommand_is_a_script_of_its_own():
    made = argparse.ArgumentParser()
    inner = made.add_subparsers(dest="task").add_parser("ntu")
    inner.add_argument("place")
    inner.add_argument("--out", required=True)
    flags = {"--out": {"default": None, "required": True}, "place": {"default": None}}
    assert describe_parser("make.py", made) == {"make.py": {}, "make.py ntu": flags}


def test_no_default_is_shown_twice_and_errors_take_one_line(capsys):
    for path in scripts():
        made = load(path).get_args_parser()
        inner = [action.choices.values() for action in made._actions if isinstance(action, argparse._SubParsersAction)]
        for one in (made, *(part for parts in inner for part in parts)):
            texts = " ".join(one.format_help().split())
            assert not re.search(r"\(default: [^()]*\) \(default", texts), path.name
        if path.parent.name not in ("benchmarks", "tools"):
            with pytest.raises(SystemExit):
                made.parse_args(["--no_such_flag"])
            assert capsys.readouterr().err.count("\n") == 1, path.name
