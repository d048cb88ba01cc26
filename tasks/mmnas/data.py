"""Data of every MMNas task: parts of a search, metadata of checkpoints, demo data, loaders, facts for results."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datasets.text.vocabulary import Vocabulary
from engine import loading
from tasks.task import QuestionData, check_parts, data_facts

if TYPE_CHECKING:
    from engine.loading import BatchLoader
    from engine.run import Run
    from tasks.task import AttentionTask

logger = logging.getLogger("mdarts")

# Share of the training data, from the start, on which a search trains the weights.
WEIGHT_SHARE = 0.8
SEARCH_PARTS = {"train": ("first", WEIGHT_SHARE), "held_out": ("last", 1 - WEIGHT_SHARE)}


def common_metadata(data: QuestionData) -> dict[str, Any]:
    """Metadata in the checkpoints of every task: vocabulary, feature width and feature extraction; plain values."""
    return {
        "vocabulary": data.vocabulary.to_dict(),
        "feature_size": data.feature_size,
        "extraction": data.extraction,
    }


def fixed_by(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments for opening a data set that the metadata of a checkpoint determine; {} without metadata."""
    if metadata is None:
        return {}
    return {"vocabulary": Vocabulary.from_dict(metadata["vocabulary"]), "feature_size": metadata["feature_size"]}


def check_data(task: AttentionTask, data: Mapping[str, QuestionData]) -> None:
    """Check that every split fits `QuestionData`.

    Raises:
        UserError: A split lacks attributes or methods.
    """
    for split, dataset in data.items():
        check_parts(dataset, QuestionData, f"the {split} data of {task.name}")


def build_loaders(
    args: Namespace, run: Run, data: Mapping[str, QuestionData], *, shuffle: bool = True, drop_last: bool = False
) -> dict[str, BatchLoader]:
    """Loaders of the splits in ``data``: split name -> `DataLoader`."""
    shared = {"seed": args.seed, "num_workers": args.num_workers, "device": run.device, "drop_last": drop_last}
    # The networks have no batch norm, so a process may have a single sample.
    shared |= {"shuffle": shuffle, "min_share": 1}
    return loading.build_loaders(data, loading.total_batch(args), **shared)


def note_data(run: Run, data: Mapping[str, QuestionData]) -> None:
    """Record the data as inputs of the run, so that it cannot be resumed on other data."""
    for split, dataset in data.items():
        run.depends_on(f"{split.replace('_', ' ')} data", dataset.identity, "--data or --features")


def describe(task: AttentionTask, run: Run, data: Mapping[str, QuestionData]) -> dict[str, Any]:
    """Facts for a result: task, metric and data; logs what the scores mean."""
    metric = task.metric_text(run.args)
    logger.info("scores: %s", metric)
    return {
        "task": task.name,
        "metric": metric,
        "batch": {"samples": loading.total_batch(run.args), "processes": run.processes},
        "data": data_facts(run.args.data, data),
    }
