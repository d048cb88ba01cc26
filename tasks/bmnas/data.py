"""Data of every BM-NAS task from the scripts' arguments: splits, demo data, loaders, and facts for results."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.make_demo import main as make_demo
from engine.features import FeatureCache
from engine.loading import build_loaders, total_batch
from tasks.task import LabelledData, check_parts, data_facts
from util.cli import UserError
from util.locks import make_once

if TYPE_CHECKING:
    from engine.loading import BatchLoader
    from engine.run import Run
    from engine.updates import Precision
    from models.backbone_net import UnimodalNet
    from models.bmnas.fusion_net import FusionNet
    from tasks.task import DescribedMetric, FusionTask

logger = logging.getLogger("mdarts")


def open_splits(task: FusionTask, args: Namespace, splits: Iterable[str]) -> dict[str, LabelledData]:
    """Open the named splits. The demo's data are made if they are missing.

    Returns:
        Split name -> `tasks.task.LabelledData`.

    Raises:
        UserError: The data are missing or do not fit the task or ``--num_outputs``.
    """
    if args.demo and task.demo_data and args.datadir == task.demo["datadir"]:
        folder = Path(args.datadir)
        make_once(folder / "meta.json", lambda: make_demo([*task.demo_data, "--out", str(folder.parent)]))
    if task.open_splits is not None:
        opened = task.open_splits(args, tuple(splits))
    else:
        opened = {split: task.open_split(args, split) for split in splits}
    for split, data in opened.items():
        check_parts(data, LabelledData, f"the {split} data of {task.name}")
        if data.num_labels > args.num_outputs or (task.multilabel and data.num_labels < args.num_outputs):
            raise UserError(
                f"{args.datadir} has {data.num_labels} labels, but --num_outputs is {args.num_outputs}; pass "
                f"--num_outputs {data.num_labels}"
            )
    return opened


def feature_loaders(
    args: Namespace,
    run: Run,
    net: FusionNet | UnimodalNet,
    data: Mapping[str, LabelledData],
    precision: Precision,
    mode: str | None = None,
) -> dict[str, BatchLoader]:
    """Build shuffled loaders of the splits in ``data``. Features of frozen backbones are computed once and stored.

    The run records its data, so that it cannot be resumed on other data.

    Args:
        args, run, net, data, precision: As in the recipes.
        mode: Overrides ``--cache_features``, e.g. with ``off`` for a single pass.

    Returns:
        Split name -> `DataLoader`.
    """
    for split, dataset in data.items():
        run.depends_on(f"{split} data", dataset.identity, "--datadir")
    folder = args.cache_dir or Path(args.datadir) / "features"
    cache = FeatureCache(net, mode or args.cache_features, folder, run.device, precision, args.num_workers)
    shared = {"shuffle": True, "seed": args.seed, "num_workers": args.num_workers, "device": run.device}
    return build_loaders(cache(data), total_batch(args), **shared)


def describe(
    task: FusionTask,
    run: Run,
    data: Mapping[str, LabelledData],
    net: FusionNet | UnimodalNet,
    metric: DescribedMetric,
) -> dict[str, Any]:
    """Facts for a result: task, metric, data, and the initial weights of the backbones; plain values.

    It also logs what the scores mean.

    Args:
        task, run, data, net: As in the recipes.
        metric: The metric of the scores.
    """
    logger.info("scores: %s", metric.description)
    names = getattr(next(iter(data.values())), "label_names", None)
    return {
        "task": task.name,
        "metric": metric.description,
        **({"classes": list(names)} if names else {}),
        "batch": {"samples": total_batch(run.args), "processes": run.processes},
        "data": data_facts(run.args.datadir, data),
        "backbones_started_from": {name: backbone.source for name, backbone in net.backbones.items()},
    }
