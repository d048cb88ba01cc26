"""MM-IMDB (poster + plot -> genres): what its search, found and unimodal scripts share.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""

from pathlib import Path

from engine import arguments
from util.cli import UserError

NUM_FEATURES = 6
INPUT_NAMES = ("Image_1", "Image_2", "Image_3", "Image_4", "Text_1", "Text_2")
# The last feature of each modality, for late fusion.
LAST_INPUTS = (3, 5)
# Our backbone names -> the original's prefixes in a state dict.
PUBLISHED_NAMES = {"image": "imagenet", "text": "textnet"}
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
        "--f1_type",
        choices=("weighted", "macro", "micro", "samples"),
        default="weighted",
        help="average of the F1 score",
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

    if args.demo and args.datadir == DEMO["datadir"]:
        _make_demo_data(args)
    opened = {split: open_mmimdb(args.datadir, split, args.small_dataset) for split in splits}
    for data in opened.values():
        if data.num_labels != args.num_outputs:
            raise UserError(
                f"{args.datadir} has {data.num_labels} labels, --num_outputs is {args.num_outputs}; "
                f"pass --num_outputs {data.num_labels}"
            )
    return opened


def _make_demo_data(args):
    """Make the demo's data if they are missing: once, whatever the number of processes."""
    from util.distributed import barrier, init_distributed, rank

    init_distributed(args.device)
    folder = Path(args.datadir)
    if rank() == 0 and not (folder / "meta.json").exists():
        from datasets.make_demo import main as make_demo

        make_demo(["mmimdb", "--source", "easy-vqa", "--out", str(folder.parent)])
    barrier()


def describe(args, data, net):
    """What a result says of its data and of the weights that its backbones started from."""
    first = next(iter(data.values()))
    return {
        "data": {
            "folder": str(args.datadir),
            "description": first.description,
            "synthetic": first.synthetic,
            "samples": {split: len(dataset) for split, dataset in data.items()},
        },
        "backbones_started_from": {name: backbone.source for name, backbone in net.backbones.items()},
    }


def pool(args):
    """The reshape layers' pool for ``--L``.

    Raises:
        UserError: ``--L`` is no square.
    """
    from models.bilevel.reshape import square_pool

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
    return build_text_backbone(args.num_outputs, args.text_cp)


def binary_cross_entropy(outputs, batch):
    """Binary cross entropy of logits (N, K) with ``batch["label"]``, mean over all elements."""
    from torch.nn import functional as F

    return F.binary_cross_entropy_with_logits(outputs, batch["label"])
