#!/usr/bin/env python
"""Make the notebooks from the scripts in notebooks/.

  python tools/make_notebooks.py

Each notebooks/*.py is a script in the percent format: "# %%" begins a code cell, "# %% [markdown]" a text cell. The
docstring becomes the first cell. The notebook has no outputs, so that it never shows outdated ones.
"""

import argparse
import ast
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import run_cli
from util.files import write_text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
CELL, TEXT = "# %%", "# %% [markdown]"


def get_args_parser():
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv=None):
    get_args_parser().parse_args(argv)
    for path in sorted(FOLDER.glob("*.py")):
        write_text(path.with_suffix(".ipynb"), notebook_of(path.read_text(encoding="utf-8")))
        print(f"wrote {path.with_suffix('.ipynb').relative_to(ROOT)}")


def notebook_of(script):
    """The notebook (JSON text) of a script in the percent format."""
    title, _, rest = ast.get_docstring(ast.parse(script)).partition("\n")
    cells = [_cell("markdown", f"# {title}\n{rest}")]
    lines: list[str] = []
    for line in [*script.splitlines(), CELL]:
        if line.startswith(CELL) and lines and lines[0].startswith(CELL):
            cells.append(_cell_of(lines))
        lines = [line] if line.startswith(CELL) else [*lines, line]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell_of(lines):
    head, *body = lines
    if head == TEXT:
        return _cell("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in body))
    return _cell("code", "\n".join(body))


def _cell(kind, text):
    text = text.strip("\n")
    # This format requires ids; they are made from the content, so that a notebook changes only with its script.
    number = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    cell = {"cell_type": kind, "id": number, "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


if __name__ == "__main__":
    run_cli(main)
