"""The conditions of a run: what must be equal to average or compare runs, and what a published row requires."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from reports.reading import NOT_RECORDED, RunRecord
from util.hashes import short_hash

# Arguments that do not affect a score, or that a row shows elsewhere. Paths are left out too.
_ASIDE = {"seed", "save", "out_dir", "resume", "num_workers", "cache_features", "backbone_batch", "device", "estimate"}
_ASIDE |= {"track", "GPU", "demo", "amp", "select_on", "datadir", "data", "cache_dir", "VERSION"}
_ASIDE |= {"search_exp_dir", "eval_exp_dir", "ARCH_PATH", "CKPT_PATH", "genotype", "eval_pairs"}
_ASIDE |= {"eval_captions", "checkpointdir", "RUN", "modality", "fusion"}


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What runs must have in common to be compared: strings, as the report shows them."""

    data: str
    split: str
    selection: str
    precision: str
    commit: str

    def differences(self, other: Conditions) -> list[str]:
        """What differs from other conditions, as a list of texts."""
        names = {
            "data": "other data",
            "split": "another split",
            "selection": "another selection rule",
            "precision": "another precision",
            "commit": "another commit",
        }
        return [
            f"{text} ({getattr(self, name)} instead of {getattr(other, name)})"
            for name, text in names.items()
            if getattr(self, name) != getattr(other, name)
        ]


def conditions_of(record: RunRecord) -> Conditions:
    """The conditions of a run."""
    data = record.result.get("data") or {}
    identity = data.get("identity") or {}
    splits = record.scored_splits
    known = short_hash(identity)[:8] if identity else f"{NOT_RECORDED}, {data.get('folder')} {data.get('samples')}"
    commits = record.commits + [c for c in (record.search.commits if record.search else []) if c not in record.commits]
    trained = record.result.get("trained_on")
    return Conditions(
        data=f"{data.get('description') or NOT_RECORDED}, identity {known}",
        split=(f"trained on {trained}, " if trained else "") + f"scored on {', '.join(splits) or 'nothing'}",
        selection=record.result.get("protocol") or NOT_RECORDED,
        precision=precision_of(record),
        commit=", ".join(commits) or NOT_RECORDED,
    )


def precision_of(record: RunRecord) -> str:
    """``float32``, ``bf16`` or ``fp16``; followed by that of the search if it differs."""
    words = [record.arguments.get("amp", NOT_RECORDED)]
    words += [record.search.arguments.get("amp", NOT_RECORDED)] if record.search else []
    shown = ["float32" if word == "off" else word for word in dict.fromkeys(words)]
    return " after a search in ".join(shown)


def settings_of(record: RunRecord) -> dict[str, Any]:
    """The arguments that a score depends on, and the number of processes if there were several.

    Paths are left out, since data are compared by their content. The number of processes matters because batch norm and
    dropout work on each process's share of a batch.
    """
    processes = (record.result.get("batch") or {}).get("processes", 1)
    arguments = {**record.arguments, **({"processes": processes} if processes != 1 else {})}
    return {
        name: value
        for name, value in sorted(arguments.items())
        if name not in _ASIDE and not (isinstance(value, str) and ("/" in value or "\\" in value))
    }


def random_backbones(record: RunRecord) -> list[str]:
    """Names of the backbones that started with random weights."""
    started = record.result.get("backbones_started_from") or {}
    return sorted(name for name, source in started.items() if str(source).startswith("random"))


def unpublished(record: RunRecord, official: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why a run cannot be compared with published rows: a list of texts, [] if it can.

    Args:
        record: The run.
        official: Entries of ``counts`` in ``docs/paper_results.json`` for its task.
    """
    data, reasons = record.result.get("data") or {}, []
    if data.get("synthetic") is not False:
        reasons.append("synthetic data" if data.get("synthetic") else "not recorded whether the data are real")
    random = random_backbones(record)
    if random and "alone" not in record.what:
        reasons.append(f"random backbones ({', '.join(random)})")
    if "test" in str(conditions_of(record).selection).lower().partition("; test scored")[0]:
        reasons.append("the epoch was selected on test")
    if record.arguments.get("small_dataset") or record.training.get("small_dataset"):
        reasons.append("--small_dataset")
    if record.arguments.get("demo") or record.training.get("demo"):
        reasons.append("settings of --demo")
    return reasons + list(_other_sizes(record, data.get("samples") or {}, official))


def _other_sizes(record, samples, official):
    """A text for each scored split whose size is not the published one."""
    for count in official:
        published = dict(zip(("train", "dev", "test"), count["paper"], strict=True))
        for split in record.scored_splits:
            if samples.get(split) is not None and samples[split] != published.get(split, samples[split]):
                yield f"another split ({samples[split]:,} {split} samples, published: {published[split]:,})"
