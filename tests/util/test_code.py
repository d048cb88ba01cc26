"""The digest of code: which changes affect it, and which do not."""

import importlib
import sys

import pytest
from torch import nn

from models.backbones.inflated_resnet import InflatedResNet50
from util.code import _source, code_digest, versions


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """Function (files of a package) -> digest of its class ``main.Net``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "digested").mkdir()

    def of(**files):
        for name, content in ({"__init__": ""} | files).items():
            (tmp_path / "digested" / f"{name}.py").write_text(content)
        for name in [name for name in sys.modules if name.partition(".")[0] == "digested"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return code_digest([importlib.import_module("digested.main").Net])

    yield of
    for name in [name for name in sys.modules if name.partition(".")[0] == "digested"]:
        del sys.modules[name]


MAIN = "from digested.part import scale\n\n\nclass Net:\n    def run(self, x):\n        return scale(x)\n"
PART = "def scale(x):\n    return 2 * x\n"


def test_comments_docstrings_and_layout_do_not_count(digest):
    wordy = '"""A net."""\n# By whom?\n' + MAIN.replace("class Net:\n", 'class Net:\n    """It runs."""\n\n')
    assert digest(main=MAIN, part=PART) == digest(main=wordy, part=PART.replace("return 2 * x", "return (2*x)"))


@pytest.mark.parametrize("word", ["from digested.part import scale", "import digested.part", "from . import part"])
def test_code_of_an_imported_module_counts(digest, word):
    main = MAIN.replace("from digested.part import scale", word)
    assert digest(main=main, part="scale = max\n") != digest(main=main, part="scale = min\n")
    lazy = "class Net:\n    def run(self, x):\n        " + word + "\n"
    assert digest(main=lazy, part="scale = max\n") != digest(main=lazy, part="scale = min\n")


def test_code_of_a_parent_counts_and_of_a_neighbour_does_not(digest):
    main = "from digested.part import Base\n\n\nclass Net(Base):\n    pass\n"
    one = digest(main=main, part="class Base:\n    rate = 1\n", other="x = 1\n")
    assert one == digest(main=main, part="class Base:\n    rate = 1\n", other="x = 2\n")
    assert one != digest(main=main, part="class Base:\n    rate = 2\n", other="x = 2\n")


def test_modules_that_import_each_other(digest):
    other = "import digested.main\nX = {}\n"
    assert digest(main=MAIN + "import digested.part\n", part=PART + other.format(1)) != digest(
        part=PART + other.format(2)
    )


def test_a_library_counts_by_its_version(monkeypatch):
    before = code_digest([nn.Linear])
    monkeypatch.setattr("torch.__version__", "0.0.1")
    assert code_digest([nn.Linear]) != before


def test_our_backbones_come_with_what_they_are_built_of():
    assert code_digest([InflatedResNet50]) == code_digest([InflatedResNet50])
    assert _source("models.backbones.resnet3d").is_file()


def test_versions_of_what_is_installed():
    assert list(versions(["pytest", "no-such-distribution"])) == ["pytest"]
