"""The provenance recorded with every result: versions, commit, machine and memory."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.identity import git_commit
from util.files import json_text
from util.hashes import short_hash

if TYPE_CHECKING:
    import torch

# Names in results and logs of version 0.1.0 -> current names.
RENAMED = {
    "held out": "held_out",
    "share of epoch": "epoch_share",
    "mean recall": "mean_recall",
    "1K mean recall": "1K mean_recall",
    "stopped early": "stopped_early",
}
# Entries of an epoch's record that come from `search.monitor.ArchitectureMonitor`.
ABOUT_ARCHITECTURE = ("genotype", "probabilities", "entropy")


def environment(device: torch.device) -> dict[str, Any]:
    """Return the library versions, device, number of threads and git commit of this run, for its result."""
    import torch
    import torchvision

    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": versions,
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
    }


def scores_of(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The scores of a logged epoch: name of the pass -> {score: float}. Entries about the architecture are left out."""
    return {
        name: values
        for name, values in record.items()
        if name not in ABOUT_ARCHITECTURE and isinstance(values, dict) and all(map(_is_number, values.values()))
    }


def line_of(record: Mapping[str, Any]) -> str:
    """A logged epoch in one line."""
    parts = [f"epoch {record['epoch']}"]
    for split, values in scores_of(record).items():
        parts.append(f"{split} " + " ".join(f"{name} {value:.4f}" for name, value in values.items()))
    if record["best"]:
        parts.append("best so far")
    return " | ".join([*parts, f"{record['seconds']:.1f} s"])


def _is_number(value):
    return isinstance(value, float)


def restored_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a logged epoch back to its record: null becomes NaN, and names of version 0.1.0 become current ones.

    JSON has no NaN, see `util.files.json_text`.
    """
    return {RENAMED.get(name, name): v if name == "genotype" else _restored(v) for name, v in record.items()}


def _restored(value):
    if isinstance(value, dict):
        return {RENAMED.get(name, name): math.nan if v is None else _restored(v) for name, v in value.items()}
    return value


def with_present_names(value: Any) -> Any:
    """Replace the names of version 0.1.0 in the plain data of a result by the current ones."""
    if isinstance(value, dict):
        return {RENAMED.get(name, name): with_present_names(inner) for name, inner in value.items()}
    return value


def checksum(result: Mapping[str, Any]) -> str:
    """Hex string that changes with the content of a result, to detect a ``result.json`` that was edited by hand.

    Args:
        result: Content of the file. An entry ``checksum`` is ignored.
    """
    return short_hash({name: value for name, value in json.loads(json_text(result)).items() if name != "checksum"})


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory so far in MiB: memory allocated on a GPU, or resident memory of this process on a CPU.

    None if the system does not report it (Windows).
    """
    if device.type == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        # getrusage starts from the peak of the parent process; this file does not.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10, 1)
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
