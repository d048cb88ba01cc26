"""The notebooks are what their scripts say, and the scripts run, also without a network."""

import ast
import json
import runpy
from pathlib import Path

import pytest

from tools.make_notebooks import FOLDER, notebook_of
from util.cli import UserError

SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_notebook_is_made_of_its_script(script):
    made = notebook_of(script.read_text(encoding="utf-8"))
    assert script.with_suffix(".ipynb").read_text(encoding="utf-8") == made, "run: python tools/make_notebooks.py"
    cells = json.loads(made)["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells) and cells[0]["source"][0].startswith("# ")
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            ast.parse("".join(cell["source"]))


def test_cells_begin_at_their_marks():
    script = '"""Title\n\nText.\n"""\n\n# %%\na = 1\n\n# %% [markdown]\n# ## Head\n#\n# words\n\n# %%\nb = 2\n'
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook_of(script))["cells"]]
    assert cells == [
        ("markdown", "# Title\n\nText."),
        ("code", "a = 1"),
        ("markdown", "## Head\n\nwords"),
        ("code", "b = 2"),
    ]


def test_the_notebook_on_own_data_runs_without_a_network(tmp_path, monkeypatch, capsys):
    def offline(*unused):
        raise UserError("no network")

    monkeypatch.setattr("datasets.own.sources.fetch_wheel", offline)
    monkeypatch.setenv("NOTEBOOK_FOLDER", str(tmp_path))
    monkeypatch.setenv("NOTEBOOK_EPOCHS", "1")
    made = runpy.run_path(str(FOLDER / "own_data.py"))
    assert "a synthetic table takes its place" in capsys.readouterr().out
    assert made["trained"]["data"]["synthetic"] and set(made["report"]["without"]) <= {"warmth", "motion", "note"}
    folder = Path(made["trained"]["folder"])
    files = {path.name for path in folder.iterdir()}
    assert files >= {"genotype.svg", "MODEL_CARD.md", "robustness.svg", "inputs.json"}
    values = made["model"].predict_values(made["values"])[0]
    assert values["prediction"] in ("drift", "glow", "race", "rest")
