"""A digest of code, which changes whenever the code might compute something else."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path


def code_digest(classes: Iterable[type]) -> str:
    """Short hex string that changes with the code of ``classes``.

    It covers the modules that define the classes and their base classes, and the modules that these import from their
    own package, without comments, docstrings and layout. Classes of installed libraries contribute the version of the
    library.

    Args:
        classes: Classes, in any order.
    """
    modules = {base.__module__ for cls in classes for base in cls.__mro__ if base is not object}
    facts, waiting = {}, sorted(modules)
    while waiting:
        name = waiting.pop()
        if name in facts:
            continue
        version = getattr(sys.modules.get(name.partition(".")[0]), "__version__", None)
        facts[name], imported = (str(version), ()) if version else _parsed(name, _content(name))
        waiting += imported
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(facts):
        digest.update(f"{name}\n{facts[name]}\n".encode())
    return digest.hexdigest()


def versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions ``names``: name -> version. Those that are not installed are left out."""
    installed = {}
    for name in names:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _content(name: str) -> bytes:
    """Content of a module's file; empty if there is no Python source of that name."""
    path = _source(name)
    try:
        return path.read_bytes() if path else b""
    except OSError:
        return b""


@functools.cache
def _parsed(name, content):
    """Plain source of a module, and the names that it imports. Cached, since parsing takes far longer than reading."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return "", ()
    imported = _imports(tree, name)  # first, because `_plain` changes the tree
    return _plain(tree), imported


def _source(name: str) -> Path | None:
    """The file of a module, located without importing it; None if there is none."""
    known = getattr(sys.modules.get(name), "__file__", None)
    if known:
        return Path(known)
    top, *parts = name.split(".")
    for folder in getattr(sys.modules.get(top), "__path__", ()):
        path = Path(folder, *parts)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _plain(tree: ast.Module) -> str:
    """Source of a tree without comments and docstrings, in a uniform layout."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _imports(tree: ast.Module, name: str) -> list[str]:
    """Names of all modules that the module ``name`` imports from its own package."""
    top, imported = name.partition(".")[0], set()
    package = name if getattr(sys.modules.get(name), "__path__", None) else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = importlib.util.resolve_name("." * node.level + module, package)
            # An imported name may itself be a module.
            imported |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return sorted(other for other in imported if other.partition(".")[0] == top)
