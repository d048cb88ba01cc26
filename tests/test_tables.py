"""The result tables end with what to do next, in commands that work."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import bmnas_table, mmnas_table

ROOT = Path(__file__).resolve().parent.parent
TABLES = [(bmnas_table, "--data", name) for name in bmnas_table.DEMOS]
TABLES += [(mmnas_table, "--task", name) for name in mmnas_table.TASKS]


def last_lines(module, flag, name, folder, monkeypatch, capsys):
    """What a table prints after its rows; the runs themselves are left out."""
    search = folder / "runs" / "search-EXP-1"
    runs = {"search folder": search, "search": {"folder": str(search)}}
    monkeypatch.setattr(module, "run_rows", lambda *_: runs)
    monkeypatch.setattr(module, "format_table", lambda *_: "| the table |\n")
    for sub in ("mmimdb", name):
        (folder / sub / "dataset").mkdir(parents=True, exist_ok=True)
        (folder / sub / "dataset" / "meta.json").write_text("{}")
    module.main([flag, name, "--out", str(folder)])
    return capsys.readouterr().out.split("| the table |\n")[1]


@pytest.mark.parametrize(("module", "flag", "name"), TABLES, ids=lambda value: getattr(value, "__name__", value))
def test_a_table_ends_with_places_and_commands(module, flag, name, tmp_path, monkeypatch, capsys):
    text = last_lines(module, flag, name, tmp_path, monkeypatch, capsys)
    search = tmp_path / "runs" / "search-EXP-1"
    for place in ("", "genotype.svg", "architectures", "probabilities.svg", "curves.svg"):
        assert str(search / place) in text
    assert "table.md" in text
    commands = re.findall(r"^ {4}(\S+) (\S+\.py.*)$", text, re.M)
    assert commands and "prepare_" in text and "search" in commands[-1][1]
    for interpreter, command in commands:
        assert "python" in interpreter
        script, *words = shlex.split(command)
        spec = importlib.util.spec_from_file_location("closing_script", ROOT / script)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        loaded.get_args_parser().parse_args(words)
