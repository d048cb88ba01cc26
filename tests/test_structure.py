"""The shape of the code: imports point down, files and functions stay short, ruff is clean."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A package may import from those to its right, and from itself.
LAYERS = ["scripts", "tasks", "models", "search", "engine", "datasets", "metrics", "util"]
SIBLINGS = {"models", "datasets", "metrics"}
SOURCES = sorted(
    path
    for path in (found.relative_to(ROOT) for found in ROOT.rglob("*.py"))
    if path.parts[0] not in ("tests", "demo") and not path.parts[0].startswith(".")
)


@functools.cache
def tree_of(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def layer_of(path):
    return path.parts[0] if path.parts[0] in LAYERS else "scripts"


def imports_of(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


def test_imports_point_down():
    faults = []
    for path in SOURCES:
        own = layer_of(path)
        for name in imports_of(path):
            top = name.split(".")[0]
            if top not in LAYERS or top == own:
                continue
            if LAYERS.index(top) < LAYERS.index(own) or {own, top} <= SIBLINGS:
                faults.append(f"{path} imports {name}")
    assert not faults


def test_files_and_functions_stay_short():
    faults = [str(path) for path in SOURCES if len((ROOT / path).read_text(encoding="utf-8").splitlines()) > 400]
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                limit = 80 if "parser" in node.name else 60
                if node.end_lineno - node.lineno + 1 > limit:
                    faults.append(f"{path}: {node.name}")
    assert not faults


def test_every_module_says_what_it_is():
    assert not [str(path) for path in SOURCES if not ast.get_docstring(tree_of(path))]


def test_ruff_is_clean():
    pytest.importorskip("ruff")
    outcome = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout
