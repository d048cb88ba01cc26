"""Data of every BM-NAS task from the scripts' arguments: splits, the demo's data, loaders."""

import logging
from pathlib import Path

from util.cli import UserError

logger = logging.getLogger("mdarts")


def open_splits(task, args, splits):
    """Open the named splits; the demo's data are made when missing.

    Returns:
        Split name -> data set.

    Raises:
        UserError: missing or unfit data.
    """
    if args.demo and args.datadir == task.DEMO["datadir"]:
        _make_demo_data(task, args)
    opened = {split: task.open_split(args, split) for split in splits}
    for data in opened.values():
        found, expected = data.num_labels, args.num_outputs
        if found > expected or (task.MULTILABEL and found < expected):
            raise UserError(
                f"{args.datadir} has {found} labels, --num_outputs is {expected}; pass --num_outputs {found}"
            )
    return opened


def _make_demo_data(task, args):
    """Make the demo's data if they are missing: once, whatever the number of processes."""
    from util.distributed import barrier, init_distributed, rank

    init_distributed(args.device)
    folder = Path(args.datadir)
    if rank() == 0 and not (folder / "meta.json").exists():
        from datasets.make_demo import main as make_demo

        make_demo([*task.DEMO_DATA, "--out", str(folder.parent)])
    barrier()


def build_loaders(args, run, net, data, precision, mode=None):
    """Loaders of the splits in ``data``, shuffled, with the features of frozen backbones kept.

    ``mode`` stands in for ``--cache_features``: nothing is worth keeping for a single pass.

    Returns:
        Split name -> `DataLoader`.
    """
    from engine.features import FeatureCache
    from engine.loading import build_loader, total_batch

    folder = args.cache_dir or Path(args.datadir) / "features"
    cache = FeatureCache(net, mode or args.cache_features, folder, run.device, precision, args.num_workers)
    shared = {"shuffle": True, "seed": args.seed, "num_workers": args.num_workers, "device": run.device}
    size = total_batch(args)
    return {split: build_loader(cache(dataset), size, **shared) for split, dataset in data.items()}


def note_data(run, data):
    """Note of which data a run is."""
    for split, dataset in data.items():
        run.depends_on(f"{split} data", dataset.identity, "--datadir")


def log_metric(task, args):
    """Say in the log what the scores of this run mean."""
    logger.info("scores: %s", task.metric(args).description)


def describe(task, args, data, net):
    """What a result says of its scores and data, and of the weights that its backbones started from."""
    from engine.loading import total_batch
    from util.distributed import world_size

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
