"""The code of docs/extend.md: written into a copy of the project and run, section by section."""

import contextlib
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading

import pytest

from tests.documents import ROOT, blocks
from tools.script_server import ScriptError, ScriptServer

PARTS = ("datasets", "engine", "genotypes", "metrics", "models", "search", "tasks", "util")
SECTIONS = list(dict.fromkeys(block.heading for block in blocks("docs/extend.md")))


# What ``python`` is in the page's blocks: hands its words to the server of `served`, and ends as the script did.
ASK = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as ask:
    ask.connect(os.environ["PLACE"])
    ask.sendall(json.dumps([os.path.abspath(sys.argv[1]), *sys.argv[2:]]).encode() + b"\\n")
    code, text = json.load(ask.makefile())
print(text)
sys.exit(code)
"""


@contextlib.contextmanager
def served(folder, log):
    """A server that has imported torch runs the page's scripts, each in a process of its own; yields its socket."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            log.write_bytes(b"")
            code = 0
            try:
                scripts.run(json.loads(self.rfile.readline()), folder, log)
            except ScriptError:
                code = 1
            self.wfile.write(json.dumps([code, log.read_text(errors="replace")]).encode() + b"\n")

    place = str(log.with_suffix(".socket"))
    with ScriptServer(log.with_suffix(".cache")) as scripts, socketserver.UnixStreamServer(place, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield place
        server.shutdown()


class Copy:
    """A copy of the project with the page's files in it.

    Args:
        folder: Where to make it.
        place: Socket of `served`.
    """

    def __init__(self, folder, place):
        self.folder, self.place = folder, place
        folder.mkdir()
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
        asking = f'"{sys.executable}" -S -c "$ASK"'
        lines = f'set -euo pipefail\npython() {{ {asking} "$@"; }}\n{block.text}'
        environment = {**os.environ, "ASK": ASK, "PLACE": self.place}
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
    assert list(copy.folder.glob("final_exp/clips/search-EXP-*/eval-EXP-*/robustness.json"))


def check_a_strategy(copy):
    arguments = copy.result("clips/search-annealed-*")["arguments"]
    assert (arguments["strategy"], arguments["strategy_option"]) == ("annealed:Annealed", ["temperature=(2.0, 0.1)"])
    assert copy.result("vqa/search-annealed-*")["arguments"]["strategy"] == "annealed:Annealed"
    assert copy.result("clips/search-hill-*")["arguments"]["strategy"] == "hill:Hill"


def check_an_operation_of_bm_nas(copy):
    candidates = {"Sum", "LinearGLU", "product:ScaledProduct"}
    search = copy.result("clips/search-product-*")
    assert operations(search["genotype"]) <= candidates
    assert copy.result("clips/search-product-*/eval-EXP-*")["genotype"] == search["genotype"]
    drawn = copy.result("clips/search-product-*/eval-random-*")
    assert "product:ScaledProduct" in operations(drawn["genotype"]) <= candidates


def check_an_operation_of_mmnas(copy):
    search = copy.result("vqa/search-swiglu-*")
    assert {name for block in search["genotype"]["dec"] for name in block} <= {"guided_att_64", "swiglu:SwiGLU"}
    assert copy.result("vqa/search-swiglu-*/train-*")["genotype"] == search["genotype"]


def check_an_encoder_of_bm_nas(copy):
    assert copy.result("mmimdb_resnet/search-*")["genotype"]["inputs"][:2] == ["Stage_1", "Stage_2"]
    assert 0 <= copy.result("mmimdb_resnet/search-*/eval-*")["metrics"]["test"]["f1"] <= 1


def check_an_encoder_of_own_data(copy):
    run = copy.result("own/unimodal-audio-*")["folder"]
    assert run in copy.result("own/search-fourier-*")["backbones_started_from"]["audio"]
    assert list(copy.folder.glob("data/own_clips/features/**/*"))


def check_an_encoder_of_mmnas(copy):
    assert copy.result("vqa/search-conv-*/train-*")["metrics"]


def check_a_data_set_for_own_data(copy):
    search = copy.result("own/search-EXP-*")
    assert search["genotype"]["inputs"][0].startswith("sensor_") and search["data"]["samples"]["train"] == 36
    assert set(search["metrics"]["dev"]) >= {"r2", "correlation"} and search["data"]["synthetic"] is True


CHECKS = {
    "A task": check_a_task,
    "A search strategy": check_a_strategy,
    "An operation of BM-NAS": check_an_operation_of_bm_nas,
    "An operation of MMNas": check_an_operation_of_mmnas,
    "An encoder of BM-NAS": check_an_encoder_of_bm_nas,
    "An encoder of own data": check_an_encoder_of_own_data,
    "An encoder of MMNas": check_an_encoder_of_mmnas,
    "A data set for own data": check_a_data_set_for_own_data,
}


def test_every_section_has_a_check():
    assert list(CHECKS) == SECTIONS


@pytest.mark.skipif(not (shutil.which("bash") and hasattr(socket, "AF_UNIX")), reason="the page is for bash")
@pytest.mark.long
def test_the_page_runs(tmp_path):
    """One test, since later sections use what earlier ones make. Nothing of the suite is edited."""
    with served(tmp_path / "project", tmp_path / "log") as place:
        copy = Copy(tmp_path / "project", place)
        for section, check in CHECKS.items():
            copy.run(section)
            check(copy)
    for name in copy.suite:
        assert (copy.folder / name).read_bytes() == (ROOT / name).read_bytes(), name
