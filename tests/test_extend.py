"""The code of docs/extend.md: written into a copy of the project and run, section by section."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.documents import ROOT, blocks

PARTS = ("datasets", "engine", "genotypes", "metrics", "models", "search", "tasks", "util")
SECTIONS = list(dict.fromkeys(block.heading for block in blocks("docs/extend.md")))


class Copy:
    """A copy of the project with the page's files in it.

    Args:
        folder: Where to make it.
    """

    def __init__(self, folder):
        self.folder = folder
        for part in PARTS:
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.glob("*.py"):
            shutil.copy(path, folder)
        self.suite = set(self.files())

    def files(self):
        """Python files, from the root of the copy."""
        return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.py")]

    def run(self, section):
        """Write and run the blocks of a section."""
        for block in blocks("docs/extend.md"):
            if block.heading == section:
                self.use(block)

    def use(self, block):
        """Write a block of Python into the file that the text before it names last; run one of bash."""
        if block.language == "python":
            path = self.folder / re.findall(r"`([\w/]+\.py)`", block.before)[-1]
            assert not path.exists(), "the page adds files and edits none"
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            return
        assert block.language == "bash"
        lines = f'set -euo pipefail\npython() {{ "{sys.executable}" "$@"; }}\n{block.text}'
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            ["bash", "-c", lines], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def result(self, pattern):
        """The one result.json whose folder fits a glob pattern."""
        (path,) = self.folder.glob(f"final_exp/{pattern}/result.json")
        return json.loads(path.read_text(encoding="utf-8"))


def operations(genotype):
    return {name for step in genotype["steps"] for name in step["inner_steps"]}


def check_a_task(copy):
    search, found = copy.result("clips/search-EXP-*"), copy.result("clips/search-EXP-*/eval-EXP-*")
    assert search["genotype"]["inputs"] == [f"{m}_{i}" for m in ("video", "audio", "text") for i in (1, 2)]
    assert search["backbones_started_from"]["audio"] == "random, drawn from the seed"
    assert search["backbones_started_from"]["video"] != "random, drawn from the seed"
    tested = copy.result("clips/search-EXP-*/eval-EXP-*/test-*")
    assert tested["metrics"]["test"] == pytest.approx(found["metrics"]["test"])


def check_a_strategy(copy):
    arguments = copy.result("clips/search-annealed-*")["arguments"]
    assert (arguments["strategy"], arguments["strategy_option"]) == ("annealed:Annealed", ["temperature=(2.0, 0.1)"])
    assert copy.result("vqa/search-annealed-*")["arguments"]["strategy"] == "annealed:Annealed"


def check_an_operation_of_bm_nas(copy):
    candidates = {"Sum", "LinearGLU", "product:Product"}
    search = copy.result("clips/search-product-*")
    assert operations(search["genotype"]) <= candidates
    assert copy.result("clips/search-product-*/eval-EXP-*")["genotype"] == search["genotype"]
    drawn = copy.result("clips/search-product-*/eval-random-*")
    assert "product:Product" in operations(drawn["genotype"]) <= candidates


def check_an_operation_of_mmnas(copy):
    search = copy.result("vqa/search-swiglu-*")
    assert {name for block in search["genotype"]["dec"] for name in block} <= {"guided_att_64", "swiglu:SwiGLU"}
    assert copy.result("vqa/search-swiglu-*/train-*")["genotype"] == search["genotype"]


def check_an_encoder_of_bm_nas(copy):
    assert copy.result("mmimdb_resnet/search-*")["genotype"]["inputs"][:2] == ["Stage_1", "Stage_2"]
    assert 0 <= copy.result("mmimdb_resnet/search-*/eval-*")["metrics"]["test"]["f1"] <= 1


def check_an_encoder_of_mmnas(copy):
    assert copy.result("vqa/search-conv-*/train-*")["metrics"]


CHECKS = {
    "A task": check_a_task,
    "A search strategy": check_a_strategy,
    "An operation of BM-NAS": check_an_operation_of_bm_nas,
    "An operation of MMNas": check_an_operation_of_mmnas,
    "An encoder of BM-NAS": check_an_encoder_of_bm_nas,
    "An encoder of MMNas": check_an_encoder_of_mmnas,
}


def test_every_section_has_a_check():
    assert list(CHECKS) == SECTIONS


@pytest.mark.skipif(shutil.which("bash") is None, reason="the page's commands are for bash")
def test_the_page_runs(tmp_path):
    """One test, since later sections use what earlier ones make. Nothing of the suite is edited."""
    copy = Copy(tmp_path)
    for section, check in CHECKS.items():
        copy.run(section)
        check(copy)
    for name in copy.suite:
        assert (copy.folder / name).read_bytes() == (ROOT / name).read_bytes(), name
