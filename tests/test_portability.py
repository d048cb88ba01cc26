"""Systems other than Linux, as far as they can be simulated: Python there lacks modules and functions of POSIX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("reports", "sweeping", "tasks", "engine", "models", "datasets", "metrics", "util")
SOURCES = sorted([*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))])
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}
POSIX_NAMES = {
    "os": {
        *("fchmod", "fchown", "chown", "fork", "forkpty", "wait", "waitpid", "killpg", "getpgid", "setsid", "mkfifo"),
        *("geteuid", "getuid", "getgid", "sysconf", "statvfs", "uname", "getloadavg", "register_at_fork"),
        *("sched_getaffinity", "sched_setaffinity", "posix_fallocate", "posix_fadvise", "O_DIRECT", "O_NOFOLLOW"),
    },
    "signal": {"SIGKILL", "SIGBUS", "SIGCHLD", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "alarm", "setitimer"},
}
# Where the name is looked for first, or its absence is caught.
GUARDED = {
    ("util/processors.py", "os.sched_getaffinity"),
    ("engine/data_workers.py", "os.statvfs"),
    ("engine/data_workers.py", "resource"),
    ("engine/report.py", "resource"),
    ("util/memory.py", "os.sysconf"),
}


def posix_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in POSIX_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
            yield node.module
        elif isinstance(node, ast.Attribute) and node.attr in POSIX_NAMES.get(getattr(node.value, "id", None), ()):
            yield f"{node.value.id}.{node.attr}"


def test_names_of_posix_stand_only_where_they_are_guarded():
    found = {(path.relative_to(ROOT).as_posix(), name) for path in SOURCES for name in posix_names(path)}
    assert found <= GUARDED


def test_text_files_are_opened_with_their_encoding():
    """Without it Windows takes a code page, which lacks most letters."""
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--preview", "--select", "PLW1514", *map(str, SOURCES)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout


# As on Windows: no POSIX modules and functions, and processes that start anew instead of forking.
SCRIPT = """
import importlib, multiprocessing, os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("fchmod", "sched_getaffinity", "sysconf", "statvfs", "fork", "geteuid", "posix_fallocate"):
    if hasattr(os, name):
        delattr(os, name)

import numpy as np, torch
from pathlib import Path
from datasets.mmimdb import open_mmimdb
from datasets.prepare_mmimdb import prepare
from datasets.regions.store import RegionStore, RegionStoreWriter
from datasets.regions.store import encode_regions
from datasets.regions.files import Regions
from engine.loading import build_loader
from engine.report import peak_memory_mb
from tests.datasets.mmimdb_files import write_official

def main():
    for name in sys.argv[2:]:
        importlib.import_module(name)
    multiprocessing.set_start_method("spawn")
    folder = Path(sys.argv[1])
    with RegionStoreWriter(folder / "regions") as writer:
        regions = Regions(np.ones((2, 4), np.float32), np.ones((2, 4), np.float32), 10.0, 10.0)
        writer.add(5, "stamp", encode_regions(regions, writer.dtype), 2, 4, (10, 10))
        writer.finish([5], {})
    assert RegionStore(folder / "regions", "").load(0).features.shape == (2, 4)
    hdf5, _ = write_official(folder)
    prepare(hdf5, folder / "films")
    data = open_mmimdb(folder / "films", "train")
    loader = build_loader(data, 4, shuffle=False, seed=0, num_workers=1, device=torch.device("cpu"))
    assert loader.num_workers == 1
    assert torch.cat([batch["index"] for batch in loader]).tolist() == list(range(len(data)))
    peak_memory_mb(torch.device("cpu"))
    print("done")

if __name__ == "__main__":
    main()
"""


def test_everything_imports_and_data_are_written_and_read_without_posix(tmp_path):
    script = tmp_path / "without_posix.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}", encoding="utf-8")
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES if path.name != "__init__.py"]
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "data"), *names]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert outcome.stdout.endswith("done\n"), outcome.stderr
