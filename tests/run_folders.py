"""Run folders as the scripts leave them, made without a run: for tests of what reads many of them."""

import json
from pathlib import Path

from engine.report import checksum
from util.files import write_json

GENOTYPE = Path(__file__).resolve().parent.parent / "genotypes" / "mmimdb_example.json"
DATA = {
    "folder": "data",
    "description": "films",
    "synthetic": False,
    "samples": {"train": 15552, "dev": 2608, "test": 7799},
    "identity": {"train": "a1", "dev": "a2", "test": "a3"},
}
PROTOCOL = "epoch with the best dev score; test scored once, at the end"


def make_run(place, seed=0, score=0.5, kind="training", epochs=3, name="EXP", finished=True, **changes):
    """A run folder on MM-IMDB; returns its path.

    Args:
        place: Folder of the run folder.
        seed: The seed; also part of the folder's name.
        score: F1 on test (of a search: on dev) in the last epoch, which is the selected one.
        kind: ``training`` or ``search``.
        epochs: Logged epochs.
        name: Value of ``--save``.
        finished: Whether there is a result.
        **changes: ``arguments``, ``data``, ``commit``, ``sessions``, ``id`` and entries of the result.
    """
    folder = Path(place) / f"{'eval' if kind == 'training' else kind}-{name}-{seed}"
    folder.mkdir(parents=True)
    arguments = {"seed": seed, "save": name, "epochs": epochs, "amp": "off", "C": 8, "resume": None}
    arguments |= changes.pop("arguments", {})
    write_json(folder / "args.json", arguments)
    script = "main_darts_found_mmimdb.py" if kind == "training" else "main_darts_searchable_mmimdb.py"
    commit = changes.pop("commit", "c" * 40)
    sessions = changes.pop("sessions", [{"started": f"2026-01-01T00:00:0{seed % 10}", "git_commit": commit}])
    identity = {"id": changes.pop("id", f"{kind}-{name}-{folder}"), "script": script, "sessions": sessions}
    identity["command"] = f"python {script} --seed {seed}"
    write_json(folder / "run.json", identity)
    genotype = json.loads(GENOTYPE.read_text(encoding="utf-8"))
    lines = [_line(epoch, epochs, score, kind, genotype, seed) for epoch in range(epochs)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if finished:
        write_result(folder, lines[-1], kind, score, genotype, arguments, identity, commit, changes)
    return folder


def _line(epoch, epochs, score, kind, genotype, seed):
    dev = score if kind == "search" else 0.25
    scores = {
        "train": {"loss": 1.0 / (epoch + 1) + 1e-6 * (seed or 0), "f1": 0.3},
        "dev": {"loss": 0.6, "f1": dev - 0.01 * (epochs - 1 - epoch)},
    }
    line = {"epoch": epoch, **scores, "best": True, "seconds": 1.0}
    if kind == "search":
        share = 0.5 + 0.1 * epoch / epochs
        rows = {"gammas, step 1": {"step": {"Sum": share, "ConcatFC": 1 - share}}}
        line |= {
            "genotype": genotype,
            "probabilities": rows,
            "entropy": {"gammas, step 1": 0.6},
            "stable_epochs": epoch,
        }
    return line


def write_result(folder, line, kind, score, genotype, arguments, identity, commit, changes):
    """Write ``result.json`` with its checksum, and final scores into ``log.txt``."""
    metrics = {"dev": line["dev"]}
    if kind == "training":
        metrics["test"] = {"loss": 0.7, "f1": score}
    else:
        metrics = {"train": line["train"], **metrics}
    result = {
        "kind": kind,
        "task": "mmimdb",
        "protocol": PROTOCOL if kind == "training" else "genotype of the epoch with the best dev score",
        "selected_epoch": line["epoch"],
        "epochs": line["epoch"] + 1,
        "metrics": metrics,
        "genotype": genotype,
        "parameters": {"backbones": 1000, "fusion": 40, "classifier": 2, "fusion_part": 40, "architecture": 9},
        "data": DATA,
        "seconds": 10.0,
        "peak_memory_mb": 500.0,
        "device": "cpu: x",
        "git_commit": commit,
        "run": identity,
        "arguments": arguments,
    }
    if kind == "training":
        result |= {"trained_on": "train", "fusion": "genotype", "architecture": {"from": "random"}}
    result |= changes
    result["checksum"] = checksum(result)
    write_json(folder / "result.json", result)
    told = [f"2026-01-01 00:00:00,000 INFO {split}: " + ", ".join(f"{n} {v:.4f}" for n, v in scores.items())
            for split, scores in metrics.items()]  # fmt: skip
    (folder / "log.txt").write_text("\n".join(told) + "\n", encoding="utf-8")


def edit(path, change):
    """Change a JSON file in place, as somebody with an editor would."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
