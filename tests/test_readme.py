"""Every command of the README names a script that exists and flags that its parser accepts."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    """The `python ...` lines of code blocks and tables, with placeholders filled in."""
    lines = [line for block in re.findall(r"```\n(.*?)```", README, re.S) for line in block.splitlines()]
    lines += re.findall(r"`((?:\.venv/bin/)?python [^`]+\.py[^`]*)`", README)
    filled = [re.sub(r"<[^>]+>", "some/folder", line) for line in lines]
    return [line for line in filled if re.match(r"(\.venv/bin/)?python \S+\.py", line)]


def test_the_readme_has_commands():
    assert len(commands()) >= 14


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_command_parses(command):
    script, *flags = shlex.split(command)[1:]
    spec = importlib.util.spec_from_file_location("readme_script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.get_args_parser().parse_args(flags)


def test_make_runs_what_the_readme_says():
    makefile = (ROOT / "Makefile").read_text()
    for plain in ("benchmarks/bmnas_table.py", "benchmarks/mmnas_table.py --rows searched", "-m pytest"):
        assert f"$(RUN) {plain}" in makefile and f".venv/bin/python {plain}" in README


def test_links_and_files_exist():
    names = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    names += re.findall(r"`((?:\w+/)+\w+\.(?:py|json|md))`", README)
    missing = [n for n in names if not (ROOT / n).exists() and not n.startswith(("architectures/", "final_exp/"))]
    assert not missing
