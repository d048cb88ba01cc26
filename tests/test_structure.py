"""The shape of the code: imports point down, files and functions stay short, signatures are typed, linters pass."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A package may import from those to its right, and from itself.
LAYERS = ["scripts", "reports", "sweeping", "tasks", "models", "search", "engine", "datasets", "metrics", "util"]
SIBLINGS = {"models", "datasets", "metrics"}
# Packages whose public signatures are annotated, and the parts of them where that is still to be done.
TYPED = ("engine", "search", "tasks", "metrics", "models", "util", "reports", "sweeping")
# Its methods have the signatures of those that they replace.
UNTYPED = ("models/mmnas/fast_layers.py",)
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


def is_for_types(node):
    """Whether a statement is ``if TYPE_CHECKING:``, which does not run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(path):
    tree = ast.Module([node for node in tree_of(path).body if not is_for_types(node)], [])
    for node in ast.walk(tree):
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


def public_functions(body, inside=""):
    """(name, definition, whether it is a method) of the functions that a module offers; special methods are public."""
    for node in body:
        special = getattr(node, "name", "").startswith("__")
        if not special and getattr(node, "name", "_").startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body, f"{inside}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{inside}{node.name}", node, bool(inside)


def missing_annotations(function, is_method):
    arguments = [*function.args.posonlyargs, *function.args.args]
    if is_method and not any(getattr(name, "id", "") == "staticmethod" for name in function.decorator_list):
        arguments = arguments[1:]
    arguments += [*function.args.kwonlyargs, *filter(None, (function.args.vararg, function.args.kwarg))]
    missing = [argument.arg for argument in arguments if argument.annotation is None]
    return missing if function.returns else [*missing, "return"]


def is_typed(path):
    return path.parts[0] in TYPED and not path.as_posix().startswith(UNTYPED)


@pytest.mark.parametrize("path", [path for path in SOURCES if is_typed(path)], ids=str)
def test_public_signatures_are_annotated(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    missing = {name: missing_annotations(node, is_method) for name, node, is_method in public_functions(tree.body)}
    assert not {name: names for name, names in missing.items() if names}


def test_every_module_says_what_it_is():
    assert not [str(path) for path in SOURCES if not ast.get_docstring(tree_of(path))]


@pytest.mark.slow  # `make lint` runs it too
def test_mypy_is_clean(tmp_path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout


def test_ruff_is_clean():
    pytest.importorskip("ruff")
    outcome = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout
