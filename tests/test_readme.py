"""The README and the pages of docs/: their commands parse, their links lead somewhere, their pictures are current."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, blocks, commands, read
from tools import documentation_pictures, gallery
from util.cli import UserError

README = read("README.md")
# What pages name and a repository does not hold: results of runs, data.
MADE = ("architectures/", "final_exp/", "data/", "demo/")
# Pages whose files are their own: a test runs them.
RUN = ("docs/extend.md",)
COMMANDS = sorted({command for page in PAGES if page not in RUN for command in commands(page)})
LEAST_COMMANDS = {"README.md": 8, "docs/mmimdb.md": 12, "docs/ntu.md": 10, "docs/ego.md": 8, "docs/vqa.md": 12}
LEAST_COMMANDS |= {"docs/vgd.md": 7, "docs/itm.md": 7, "docs/experiments.md": 16, "docs/comparing.md": 3}
LEAST_COMMANDS |= {"docs/own_data.md": 9, "docs/report.md": 8, "docs/use.md": 10}


@pytest.mark.parametrize(("page", "least"), LEAST_COMMANDS.items())
def test_the_pages_have_commands(page, least):
    assert len(commands(page)) >= least


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command):
    script, *flags = shlex.split(command)[1:]
    spec = importlib.util.spec_from_file_location("readme_script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.get_args_parser().parse_args(flags)


def test_every_code_block_of_the_pages_is_looked_at():
    """Blocks without a language hold commands or trees; others are run, or shown in a notebook."""
    languages = {(page, block.language) for page in PAGES for block in blocks(page) if block.language}
    assert languages == {
        ("README.md", "python"),
        *((page, language) for page in RUN for language in ("python", "bash")),
    }


def test_the_notebook_lines_work():
    (notebook,) = [block.text for block in blocks("README.md") if block.language == "python"]
    shown = {}
    exec("\n".join(line for line in notebook.splitlines() if "<run folder>" not in line), shown)
    assert callable(shown["load_result"])


def test_make_runs_what_the_readme_says():
    makefile = (ROOT / "Makefile").read_text()
    for plain in ("benchmarks/own_table.py", "benchmarks/mmnas_table.py --rows searched", "-m pytest"):
        assert f"$(RUN) {plain}" in makefile and f".venv/bin/python {plain}" in README


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text, folder = read(page), (ROOT / page).parent
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert not [name for name in linked if not (folder / name).exists()]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN])
def test_named_files_exist(page):
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|json|md))(?::[\w.]+)?`", read(page))
    assert not [name for name in named if not (ROOT / name).exists() and not name.startswith(MADE)]


def test_named_functions_exist():
    """`docs/design.md` names functions as ``file.py:function`` or ``file.py:Class.method``."""
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", read("docs/design.md"))
    assert len(named) >= 10
    for name, path in named:
        text, *parts = (ROOT / name).read_text(encoding="utf-8"), *path.split(".")
        for part in parts:
            assert re.search(rf"^\s*(?:def|class) {part}\b", text, re.M), f"{name}:{path}"


def test_every_page_is_reached_from_the_readme():
    linked = set(re.findall(r"\]\((docs/\w+\.md)", README))
    assert linked == {page for page in PAGES if page != "README.md"}


def test_the_readme_stays_short_and_design_is_one_page():
    assert len(README.splitlines()) <= 200
    assert len(read("docs/design.md").splitlines()) <= 120


def test_the_pictures_are_up_to_date(tmp_path, monkeypatch):
    documentation_pictures.main(["--check"])
    monkeypatch.setattr(documentation_pictures, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"run python tools/documentation_pictures\.py"):
        documentation_pictures.main(["--check"])
    shown = {Path(name).name for page in PAGES for name in re.findall(r"\]\((\S+\.svg)\)", read(page))}
    # Those of the gallery come from runs, which a test would take minutes to repeat.
    assert shown - {one.name for one in gallery.PICTURES} == set(documentation_pictures.pictures())
    assert read("docs/gallery.md") == gallery.page()
    files = list(gallery.FOLDER.iterdir())
    assert {path.name for path in files} == {one.name for one in gallery.PICTURES}
    assert sum(path.stat().st_size for path in files) < gallery.MAX_BYTES
