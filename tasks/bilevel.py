"""What the scripts of every BM-NAS task share: flags and choices of the found stage, networks, loaders, updaters.

``task`` is the task's module (`tasks.mmimdb`, ...). It states ``NUM_FEATURES``, ``INPUT_NAMES``, ``LAST_INPUTS`` and
``PUBLISHED_NAMES``, and has ``pool(args)`` and ``build_backbones(args, weights=None)``. Heavy imports stand inside the
functions, so that `--help` answers at once.
"""

import dataclasses
import random
from pathlib import Path

from engine import arguments
from util.cli import UserError

# How the reported epoch is chosen: --select_on -> what the result says of it.
PROTOCOLS = {
    "dev": "epoch with the best dev score; test scored once, at the end",
    "test": "epoch with the best TEST score (the originals' protocol: an optimistic estimate)",
    "last": "last epoch; test scored once, at the end",
}
# What a found network takes over from the search unless told otherwise; checkpoints and weight files come with it.
INHERITED = {
    "demo",
    "seed",
    "device",
    "amp",
    "datadir",
    "small_dataset",
    "cache_dir",
    "f1_type",
    "C",
    "L",
    "drpt",
    "num_outputs",
}
INHERITED_ENDINGS = ("_cp", "_weights")


def add_selection_flags(parser):
    """Which epoch counts."""
    group = parser.add_argument_group("selection")
    group.add_argument("--select_on", choices=tuple(PROTOCOLS), default="dev", help="split that chooses the epoch")
    return group


def add_found_flags(parser, backbones):
    """What a found script trains, on what, and which epoch counts.

    Args:
        parser: The recipe's parser.
        backbones: Its group of backbone flags.
    """
    backbones.add_argument(
        "--freeze_backbones",
        action="store_true",
        help="train reshape layers, fusion and classifier alone, on kept features",
    )
    arguments.add_architecture_flags(parser)
    arguments.add_alpha_flags(parser, used=False)
    found = parser.add_argument_group("what to train")
    found.add_argument("--search_exp_dir", metavar="DIR", help="run folder of a search (ours or the original's)")
    found.add_argument("--eval_exp_dir", metavar="DIR", help="test only: run folder of a found training")
    found.add_argument("--genotype", metavar="FILE", help="a genotype file, or random (drawn from --seed)")
    found.add_argument(
        "--fusion", choices=("genotype", "late"), default="genotype", help="late: the late-fusion baseline"
    )
    add_selection_flags(parser).add_argument(
        "--train_on",
        choices=("train", "train+dev"),
        default="train",
        help="train+dev: a pass over each, as in the original",
    )


def inherit(args):
    """Defaults from the run folder that the flags name."""
    if args.eval_exp_dir:
        own = {"resume", "save", "eval_exp_dir", "search_exp_dir", "device", "num_workers", "parallel"}
        return {k: v for k, v in arguments.earlier_arguments(args.eval_exp_dir).items() if k not in own}
    if not args.search_exp_dir:
        return {}
    earlier = arguments.earlier_arguments(args.search_exp_dir)
    return {k: v for k, v in earlier.items() if k in INHERITED or k.endswith(INHERITED_ENDINGS)}


def check_found(task, args):
    """Conflicting or missing choices.

    Raises:
        UserError: the flags in conflict.
    """
    if not (args.search_exp_dir or args.eval_exp_dir or args.genotype or args.fusion == "late"):
        raise UserError(
            "nothing to train: pass --search_exp_dir DIR, --genotype FILE.json, --genotype random or --fusion late "
            "(or --eval_exp_dir DIR to test)"
        )
    if args.train_on == "train+dev" and args.select_on == "dev":
        raise UserError(
            "--train_on train+dev leaves no dev split to select on; add --select_on test or --select_on last"
        )
    arguments.check_architecture(args, task.NUM_FEATURES)


def build_loaders(args, run, net, data, precision, mode=None):
    """Loaders of the splits in ``data``, shuffled, with the features of frozen backbones kept.

    ``mode`` stands in for ``--cache_features``: nothing is worth keeping for a single pass.

    Returns:
        Split name -> `DataLoader`.
    """
    from engine.features import FeatureCache
    from engine.loading import build_loader

    folder = args.cache_dir or Path(args.datadir) / "features"
    cache = FeatureCache(net, mode or args.cache_features, folder, run.device, precision, args.num_workers)
    shared = {"shuffle": True, "seed": args.seed, "num_workers": args.num_workers, "device": run.device}
    return {split: build_loader(cache(dataset), args.batchsize, **shared) for split, dataset in data.items()}


def build_search_net(task, args):
    """The supernet: frozen backbones and a fusion cell with every edge and operation."""
    from models.bilevel.cells import FusionCell

    backbones = task.build_backbones(args)
    fusion = FusionCell.mixed(task.NUM_FEATURES, args.C, args.L, args.drpt, **cell_sizes(args))
    return build_net(task, args, backbones, fusion, range(task.NUM_FEATURES), backbone_mode=args.backbone_mode)


def cell_sizes(args):
    """Steps and multipliers of the cell and its nodes."""
    return {name: getattr(args, name) for name in ("steps", "multiplier", "node_steps", "node_multiplier")}


def build_net(task, args, backbones, fusion, used, **kwargs):
    """The complete network around ``fusion``; further arguments go to `FusionNet`."""
    from models.bilevel.fusion_net import FusionNet

    return FusionNet(
        backbones,
        fusion,
        used,
        channels=args.C,
        pool=task.pool(args),
        dropout=args.drpt,
        num_outputs=args.num_outputs,
        input_names=task.INPUT_NAMES,
        **kwargs,
    )


def build_updater(args, run, net, criterion, precision, num_train):
    """The updater of the network's weights: Adam under the cosine schedule."""
    import torch

    from engine.training import Updater, data_parallel
    from util.schedules import CosineRestarts

    parameters = net.weights()
    optimizer = torch.optim.Adam(parameters, lr=args.eta_max, weight_decay=args.weight_decay)
    schedule = CosineRestarts(
        args.eta_max, args.eta_min, args.Ti, args.Tm, num_train / args.batchsize, restarts=args.lr_restarts
    )
    parallel = data_parallel(run, precision, find_unused=not net.uses_all_weights())
    return Updater(net, parameters, criterion, optimizer, schedule=schedule, precision=precision, parallel=parallel)


def build_found_net(task, args, frozen, weights=None, genotype=None):
    """The network that the found script's flags name: a genotype's, a random one's, or late fusion.

    Args:
        task, args: The task's module and the found script's arguments.
        frozen: Backbones get no gradients and stay in evaluation mode.
        weights: See `build_backbones`.
        genotype: The genotype to build, instead of what the flags name.

    Returns:
        (network, genotype or None).
    """
    from models.bilevel.cells import FusionCell, LateFusion

    # What a typing mistake can spoil is checked before weights are fetched.
    task.pool(args)
    genotype = None if args.fusion == "late" else genotype or find_genotype(task, args)
    backbones = task.build_backbones(args, weights)
    if genotype is None:
        fusion, used = LateFusion(task.LAST_INPUTS, args.C, args.L), task.LAST_INPUTS
    else:
        fusion, used = FusionCell.fixed(genotype, task.NUM_FEATURES, args.C, args.L, args.drpt), genotype.used_inputs()
    return build_net(task, args, backbones, fusion, used, frozen=frozen), genotype


def find_genotype(task, args):
    """The genotype that ``--genotype`` or ``--search_exp_dir`` names, checked.

    Raises:
        UserError: there is none, or it does not fit.
    """
    from models.bilevel.operations import STEP_OPERATIONS
    from models.genotypes import check_genotype, load_genotype, random_genotype

    if args.genotype == "random":
        rng = random.Random(args.seed)
        return random_genotype(
            rng, list(STEP_OPERATIONS), num_inputs=task.NUM_FEATURES, inputs=task.INPUT_NAMES, **cell_sizes(args)
        )
    path = args.genotype or _first_existing(args.search_exp_dir, "genotype.json", "best/best_genotype.pkl")
    genotype = dataclasses.replace(load_genotype(path), inputs=task.INPUT_NAMES)
    check_genotype(genotype, STEP_OPERATIONS, task.NUM_FEATURES, path)
    return genotype


def load_found_net(task, args):
    """The trained network of ``--eval_exp_dir``: a run folder of ours or of the original code.

    Raises:
        UserError: its files are missing or do not fit.
    """
    from models.bilevel.operations import STEP_OPERATIONS
    from models.bilevel.published import from_published
    from models.genotypes import FusionGenotype, check_genotype, load_genotype
    from util.checkpoint import load_checkpoint, load_state_dict_file, load_weights

    path = _first_existing(args.eval_exp_dir, "best.pth", "best/best_test_model.pt")
    if path.name == "best.pth":
        best = load_checkpoint(path)
        if not isinstance(best, dict) or not {"net", "genotype"} <= set(best):
            raise UserError(f"{path} was not written by the found script; name the folder of a finished found training")
        state = best["net"]
        genotype = FusionGenotype.from_dict(best["genotype"]) if best["genotype"] else None
    else:
        genotype = load_genotype(_first_existing(args.eval_exp_dir, "best/best_test_genotype.pkl"))
        state = from_published(load_state_dict_file(path), task.PUBLISHED_NAMES, genotype)
    if genotype is not None:
        check_genotype(genotype, STEP_OPERATIONS, task.NUM_FEATURES, args.eval_exp_dir)
    net, _ = build_found_net(task, args, frozen=True, weights="random", genotype=genotype)
    load_weights(net, state, path)
    return net


def _first_existing(folder, *names):
    for name in names:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise UserError(f"{folder} has no {' or '.join(names)}; name the folder of a finished run")
