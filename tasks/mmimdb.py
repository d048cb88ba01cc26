"""MM-IMDB (poster + plot -> genres): what its search, found and unimodal scripts share.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""

from pathlib import Path

from engine import arguments
from util.cli import UserError

NUM_FEATURES = 6
# Published values of both scripts (paper section 4.1 and the original flags).
PUBLISHED = {
    "datadir": "BM-NAS_dataset/mmimdb/dataset",
    "out_dir": "final_exp/mmimdb",
    "epochs": 30,
    "batchsize": 8,
    "drpt": 0.1,
    "weight_decay": 1e-4,
    "eta_max": 1e-3,
    "eta_min": 1e-6,
    "Ti": 1,
    "Tm": 2,
    "C": 192,
    "L": 16,
    "num_input_nodes": NUM_FEATURES,
    "steps": 2,
    "multiplier": 2,
    "node_steps": 1,
    "node_multiplier": 1,
    "num_outputs": 23,
}
# Small enough for two cores; the data are easy-VQA's pictures and questions.
DEMO = {
    "datadir": "demo/mmimdb/dataset",
    "out_dir": "demo/runs",
    "backbone_weights": "random",
    "cache_features": "disk",
    "num_outputs": 13,
    "batchsize": 64,
    "C": 64,
    "eta_max": 3e-3,
}
# How the reported epoch is chosen: --select_on -> what the result says of it.
PROTOCOLS = {
    "dev": "epoch with the best dev score; test scored once, at the end",
    "test": "epoch with the best TEST score (the originals' protocol: an optimistic estimate)",
    "last": "last epoch; test scored once, at the end",
}


def recipe_parser(description):
    """Parser with the flags that all three scripts have, and its group of backbone flags, to be extended."""
    parser = arguments.RecipeParser(description)
    arguments.add_run_flags(parser)
    arguments.add_data_flags(parser)
    arguments.add_training_flags(parser)
    backbones = arguments.add_backbone_flags(parser, ("image", "text"), "--vgg_weights")
    task = parser.add_argument_group("task")
    task.add_argument("--num_outputs", type=arguments.positive_int, help="number of genres")
    task.add_argument(
        "--f1_type", choices=("weighted", "macro", "micro", "samples"), default="weighted", help="average of the F1 score"
    )
    return parser, backbones


def open_splits(args, splits):
    """Open the named splits; the demo's data are made when missing.

    Returns:
        Split name -> `datasets.mmimdb.MMIMDB`.

    Raises:
        UserError: missing or unfit data.
    """
    from datasets.mmimdb import open_mmimdb

    if args.demo and not (Path(args.datadir) / "meta.json").exists():
        from datasets.make_demo import main as make_demo

        make_demo(["mmimdb", "--source", "easy-vqa", "--out", str(Path(args.datadir).parent)])
    opened = {split: open_mmimdb(args.datadir, split, args.small_dataset) for split in splits}
    for data in opened.values():
        if data.num_labels != args.num_outputs:
            raise UserError(
                f"{args.datadir} has {data.num_labels} labels, --num_outputs is {args.num_outputs}; "
                f"pass --num_outputs {data.num_labels}"
            )
    return opened


def describe(args, data):
    """What a result says of its data and of the weights it started from."""
    first = next(iter(data.values()))
    weights = {
        "image": args.image_cp or (args.vgg_weights or "ImageNet" if args.backbone_weights == "pretrained" else "random"),
        "text": args.text_cp or "random",
    }
    return {
        "data": {
            "folder": str(args.datadir),
            "description": first.description,
            "synthetic": first.synthetic,
            "samples": {split: len(dataset) for split, dataset in data.items()},
        },
        "backbones_started_from": weights,
    }


def build_loaders(args, run, net, data, precision):
    """Loaders of the splits in ``data``, shuffled, with the features of frozen backbones kept.

    Returns:
        Split name -> `DataLoader`.
    """
    from engine.features import FeatureCache
    from engine.loading import build_loader

    folder = args.cache_dir or Path(args.datadir) / "features"
    cache = FeatureCache(net, args.cache_features, folder, run.device, precision, args.num_workers)
    shared = {"shuffle": True, "seed": args.seed, "num_workers": args.num_workers, "device": run.device}
    return {split: build_loader(cache(dataset), args.batchsize, **shared) for split, dataset in data.items()}


def square_pool_of(args):
    """The reshape layers' pool for ``--L``.

    Raises:
        UserError: ``--L`` is no square.
    """
    from models.bilevel.fusion_net import square_pool

    try:
        return square_pool(args.L)
    except ValueError as error:
        raise UserError(f"--L {args.L}: {error}") from None


def build_backbones(args, weights=None):
    """The image and the text network; ``weights="random"`` where a checkpoint of everything follows."""
    from models.backbones.mmimdb import build_mmimdb_backbones

    if weights == "random":
        return build_mmimdb_backbones(args.num_outputs, weights="random")
    return build_mmimdb_backbones(
        args.num_outputs,
        weights=args.backbone_weights,
        vgg_weights=args.vgg_weights,
        image_cp=args.image_cp,
        text_cp=args.text_cp,
    )


def build_unimodal_backbone(args):
    """The network of ``--modality``: the image network from its usual weights, the text network from scratch."""
    from models.backbones.mmimdb import build_image_backbone, build_text_backbone

    if args.modality == "image":
        return build_image_backbone(args.num_outputs, args.backbone_weights, args.vgg_weights, args.image_cp)
    return build_text_backbone(args.num_outputs, "random", args.text_cp)


def build_net(args, backbones, fusion, used, **kwargs):
    """The complete network around ``fusion``; further arguments go to `FusionNet`."""
    from models.backbones.mmimdb import INPUT_NAMES
    from models.bilevel.fusion_net import FusionNet

    return FusionNet(
        backbones,
        fusion,
        used,
        channels=args.C,
        pool=square_pool_of(args),
        dropout=args.drpt,
        num_outputs=args.num_outputs,
        input_names=INPUT_NAMES,
        **kwargs,
    )


def binary_cross_entropy(outputs, batch):
    """Binary cross entropy of logits (N, K) with ``batch["label"]``, mean over all elements."""
    from torch.nn import functional as F

    return F.binary_cross_entropy_with_logits(outputs, batch["label"])


def build_updater(args, run, net, precision, num_train):
    """The updater of the network's weights: Adam under the cosine schedule."""
    import torch

    from engine.training import Updater, data_parallel
    from util.schedules import CosineRestarts

    parameters = net.weights()
    optimizer = torch.optim.Adam(parameters, lr=args.eta_max, weight_decay=args.weight_decay)
    schedule = CosineRestarts(
        args.eta_max, args.eta_min, args.Ti, args.Tm, num_train / args.batchsize, restarts=args.lr_restarts
    )
    parallel = data_parallel(run, find_unused=not net.uses_all_weights())
    return Updater(
        net, parameters, binary_cross_entropy, optimizer, schedule=schedule, precision=precision, parallel=parallel
    )


def build_found_net(args, frozen, weights=None, genotype=None):
    """The network that the found script's flags name: a genotype's, a random one's, or late fusion.

    Args:
        args: The found script's arguments.
        frozen: Backbones get no gradients and stay in evaluation mode.
        weights: See `build_backbones`.
        genotype: The genotype to build, instead of what the flags name.

    Returns:
        (network, genotype or None).
    """
    from models.backbones.mmimdb import LAST_INPUTS
    from models.bilevel.cells import FusionCell, LateFusion

    square_pool_of(args)
    backbones = build_backbones(args, weights)
    if args.fusion == "late":
        fusion, used, genotype = LateFusion(LAST_INPUTS, args.C, args.L), LAST_INPUTS, None
    else:
        genotype = genotype or find_genotype(args)
        fusion, used = FusionCell.fixed(genotype, NUM_FEATURES, args.C, args.L, args.drpt), genotype.used_inputs()
    return build_net(args, backbones, fusion, used, frozen=frozen), genotype


def find_genotype(args):
    """The genotype that ``--genotype`` or ``--search_exp_dir`` names, checked.

    Raises:
        UserError: there is none, or it does not fit.
    """
    import dataclasses
    import random

    from models.backbones.mmimdb import INPUT_NAMES
    from models.bilevel.operations import STEP_OPERATIONS
    from models.genotypes import check_genotype, load_genotype, random_genotype

    if args.genotype == "random":
        sizes = {name: getattr(args, name) for name in ("steps", "multiplier", "node_steps", "node_multiplier")}
        rng = random.Random(args.seed)
        return random_genotype(rng, list(STEP_OPERATIONS), num_inputs=NUM_FEATURES, inputs=INPUT_NAMES, **sizes)
    path = args.genotype or _first_existing(args.search_exp_dir, "genotype.json", "best/best_genotype.pkl")
    genotype = dataclasses.replace(load_genotype(path), inputs=INPUT_NAMES)
    check_genotype(genotype, STEP_OPERATIONS, NUM_FEATURES, path)
    return genotype


def load_found_net(args):
    """The trained network of ``--eval_exp_dir``: a run folder of ours or of the original code.

    Raises:
        UserError: its files are missing or do not fit.
    """
    from models.backbones.mmimdb import PUBLISHED_NAMES
    from models.bilevel.published import from_published
    from models.genotypes import FusionGenotype, load_genotype
    from util.checkpoint import load_checkpoint, load_state_dict_file, load_weights

    path = _first_existing(args.eval_exp_dir, "best.pth", "best/best_test_model.pt")
    if path.name == "best.pth":
        best = load_checkpoint(path)
        state = best["net"]
        genotype = FusionGenotype.from_dict(best["genotype"]) if best["genotype"] else None
    else:
        genotype = load_genotype(_first_existing(args.eval_exp_dir, "best/best_test_genotype.pkl"))
        state = from_published(load_state_dict_file(path), PUBLISHED_NAMES, genotype)
    net, _ = build_found_net(args, frozen=True, weights="random", genotype=genotype)
    load_weights(net, state, path)
    return net


def _first_existing(folder, *names):
    for name in names:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise UserError(f"{folder} has no {' or '.join(names)}; name the folder of a finished run")
