"""In every script, OpenMP's threads sleep early unless the user has set something else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from util.threads import SHORT_SPIN, set_openmp_defaults

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = [
    path
    for folder in (ROOT, ROOT / "benchmarks", ROOT / "datasets", ROOT / "tools")
    for path in sorted(folder.glob("*.py"))
    # The server imports none of our modules, so that it can serve any version; compare_runs.py sets its environment.
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8") and path.name != "script_server.py"
]
# Runs every script in its own process, up to its first import of util (good) or of a library with OpenMP (bad).
FIRST_IMPORT = """
import os, runpy, sys

class Stop(BaseException):
    pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("util", "torch", "sklearn", "cv2"):
            raise Stop(name)

sys.meta_path.insert(0, Finder())
sys.path.insert(0, "")
for script in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        sys.path.insert(0, os.path.dirname(script))
        try:
            runpy.run_path(script, run_name="imported")
        except Stop as stop:
            os._exit(0 if stop.args[0] == "util" else 1)
        os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        print(script)
"""


def test_a_user_who_says_nothing_gets_a_short_spin():
    environment = {}
    set_openmp_defaults(environment)
    assert SHORT_SPIN.items() <= environment.items()


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_says_stays(name):
    environment = {name: "7", "OMP_NUM_THREADS": "3"}
    set_openmp_defaults(environment)
    assert environment == {name: "7", "OMP_NUM_THREADS": "3", "OPENCV_FOR_THREADS_NUM": "1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_script_sets_it_before_it_imports_torch():
    assert len(SCRIPTS) > 30
    words = [sys.executable, "-c", FIRST_IMPORT, *map(str, SCRIPTS)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], "these import torch before util"
