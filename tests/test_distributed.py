"""Two processes (gloo) do what one process does with the joint batch, and the scripts run under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main_darts_searchable_mmimdb as search
from tests import distributed_worker
from tests.narrow_backbones import run_narrowly
from tests.processes import run_ranks

ROOT = Path(__file__).resolve().parent.parent


def torchrun(processes, *command):
    """Run a Python script in ``processes`` processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run(
        [*launcher, *command], env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return outcome


@pytest.mark.parametrize("kind", ["search", "idle", "supernet", "grounding"])
def test_two_processes_equal_one(tmp_path, kind):
    """Weights and architecture parameters (and sampled paths) after steps on uneven shares agree to 1e-6.

    So do scores of fewer samples than processes (``idle``).
    """
    worker = distributed_worker.main if kind in ("search", "idle") else distributed_worker.supernet
    worker(kind, tmp_path / "1.pth")
    run_ranks(worker, kind, tmp_path / "2.pth")
    one, two = (torch.load(tmp_path / f"{n}.pth", weights_only=True) for n in (1, 2))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-6, msg=key)


@pytest.mark.parametrize("way", ["forked", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_search_in_two_processes(films, tmp_path, way):
    """One run folder, one log, resumable; features computed once per process."""
    flags = [*films.flags, "--C", "8", "--L", "4", "--epochs", "2", "--out_dir", tmp_path, "--device", "cpu"]
    if way == "torchrun":
        torchrun(2, ROOT / "tests" / "narrow_backbones.py", ROOT / "main_darts_searchable_mmimdb.py", *map(str, flags))
    else:
        run_ranks(run_narrowly, search.main, list(map(str, flags)))
    (folder,) = tmp_path.iterdir()
    assert (folder / "result.json").exists()
    assert len((folder / "log.jsonl").read_text().splitlines()) == 2
    state = torch.load(folder / "last.pth", weights_only=True)
    assert len(state["random"]) == 2 and not torch.equal(*(part["torch"] for part in state["random"]))
    run_ranks(run_narrowly, search.main, ["--resume", str(folder), "--epochs", "3"])
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3
