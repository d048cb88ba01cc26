"""The shape of the code: imports point down, files and functions stay short, ruff is clean."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A package may import from those to its right, and from itself.
LAYERS = ["scripts", "tasks", "engine", "models", "datasets", "metrics", "util"]
SIBLINGS = {"models", "datasets", "metrics"}
SOURCES = sorted(
    path
    for path in (found.relative_to(ROOT) for found in ROOT.rglob("*.py"))
    if path.parts[0] not in ("tests", "demo") and not path.parts[0].startswith(".")
)


def layer_of(path):
    return path.parts[0] if path.parts[0] in LAYERS else "scripts"


def imports_of(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_down(path):
    own = layer_of(path)
    for name in imports_of(path):
        top = name.split(".")[0]
        if top in LAYERS and top != own:
            assert LAYERS.index(top) > LAYERS.index(own), f"{path} imports {name}"
            assert not {own, top} <= SIBLINGS, f"{path} imports its sibling {name}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_files_and_functions_stay_short(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            limit = 80 if "parser" in node.name else 60
            assert node.end_lineno - node.lineno + 1 <= limit, f"{path}: {node.name}"


def test_every_module_says_what_it_is():
    assert not [str(path) for path in SOURCES if not ast.get_docstring(ast.parse((ROOT / path).read_text("utf-8")))]


def test_ruff_is_clean():
    pytest.importorskip("ruff")
    outcome = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout
