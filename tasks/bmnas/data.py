"""Data of every BM-NAS task from the scripts' arguments: splits, the demo's data, loaders, and what a result says."""

import logging
from pathlib import Path

from datasets.make_demo import main as make_demo
from engine.features import FeatureCache
from engine.loading import build_loader, total_batch
from tasks.task import LabelledData, check_parts
from util.cli import UserError
from util.distributed import barrier, init_distributed, rank, world_size

logger = logging.getLogger("mdarts")


def open_splits(task, args, splits):
    """Open the named splits; the demo's data are made when missing. The log says what the scores will mean.

    Returns:
        Split name -> `tasks.task.LabelledData`.

    Raises:
        UserError: missing or unfit data.
    """
    if args.demo and task.demo_data and args.datadir == task.demo["datadir"]:
        _make_demo_data(task, args)
    opened = {split: task.open_split(args, split) for split in splits}
    for split, data in opened.items():
        check_parts(data, LabelledData, f"the {split} data of {task.name}")
        if data.num_labels > args.num_outputs or (task.multilabel and data.num_labels < args.num_outputs):
            raise UserError(
                f"{args.datadir} has {data.num_labels} labels, --num_outputs is {args.num_outputs}; pass "
                f"--num_outputs {data.num_labels}"
            )
    logger.info("scores: %s", task.metric(args).description)
    return opened


def _make_demo_data(task, args):
    """Make the demo's data if they are missing: once, whatever the number of processes."""
    init_distributed(args.device)
    folder = Path(args.datadir)
    if rank() == 0 and not (folder / "meta.json").exists():
        make_demo([*task.demo_data, "--out", str(folder.parent)])
    barrier()


def feature_loaders(args, run, net, data, precision, mode=None):
    """Loaders of the splits in ``data``, shuffled; what frozen backbones compute is computed once and kept.

    The run notes which data it reads, so that it is not resumed on others.

    Args:
        args, run, net, data, precision: As in the recipes.
        mode: Instead of ``--cache_features``: ``off`` for a single pass.

    Returns:
        Split name -> `DataLoader`.
    """
    for split, dataset in data.items():
        run.depends_on(f"{split} data", dataset.identity, "--datadir")
    folder = args.cache_dir or Path(args.datadir) / "features"
    cache = FeatureCache(net, mode or args.cache_features, folder, run.device, precision, args.num_workers)
    shared = {"shuffle": True, "seed": args.seed, "num_workers": args.num_workers, "device": run.device}
    return {split: build_loader(cache(dataset), total_batch(args), **shared) for split, dataset in data.items()}


def describe(task, args, data, net):
    """What a result says of its scores and data, and of the weights that its backbones started from."""
    first = next(iter(data.values()))
    return {
        "metric": task.metric(args).description,
        "batch": {"samples": total_batch(args), "processes": world_size()},
        "data": {
            "folder": str(args.datadir),
            "description": first.description,
            "synthetic": first.synthetic,
            "samples": {split: len(dataset) for split, dataset in data.items()},
            "identity": {split: dataset.identity for split, dataset in data.items()},
        },
        "backbones_started_from": {name: backbone.source for name, backbone in net.backbones.items()},
    }
