"""MM-IMDB (poster + plot -> genres): what `tasks.bmnas` asks of a task, and what its three scripts share."""

from engine import arguments
from tasks.bmnas import flags
from util.cli import UserError

NUM_FEATURES = 6
INPUT_NAMES = ("Image_1", "Image_2", "Image_3", "Image_4", "Text_1", "Text_2")
LAST_INPUTS = (3, 5)
MODALITIES = {"image": True, "text": False}
PUBLISHED_NAMES = {"image": "imagenet", "text": "textnet"}
TRAINED = {"train": ("train",), "train+dev": ("train", "dev")}
LATER_WINS_TIES = False
MULTILABEL = True
INHERITED = {"f1_type", "drpt"}
# Values of both released scripts. Those of the paper's Table 8 are in tasks/bmnas/paper_recipes.py.
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
DEMO_DATA = ("mmimdb", "--source", "easy-vqa")
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
    parser, backbones = flags.recipe_parser(description, {"image": "image", "text": "text"}, "--vgg_weights")
    task = parser.add_argument_group("task")
    task.add_argument("--num_outputs", type=arguments.positive_int, help="number of genres")
    task.add_argument(
        "--f1_type",
        choices=("weighted", "macro", "micro", "samples"),
        default="weighted",
        help="average of the F1 score",
    )
    return parser, backbones


def search_splits(args):
    """Splits of the weight steps and of the architecture steps."""
    return "train", "dev"


def open_split(args, split):
    """One split, as `datasets.mmimdb.MMIMDB`."""
    from datasets.mmimdb import open_mmimdb

    return open_mmimdb(args.datadir, split, args.small_dataset)


def criterion(outputs, batch):
    """Binary cross entropy of the logits."""
    from models.losses import binary_cross_entropy

    return binary_cross_entropy(outputs, batch)


def metric(args):
    """F1 over the epoch."""
    from metrics.classification import MultilabelF1

    return MultilabelF1(args.f1_type)


def pool(args):
    """The reshape layers' pool for ``--L``.

    Raises:
        UserError: ``--L`` is no square.
    """
    from models.bmnas.reshape import square_pool

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


def build_unimodal_backbone(args, weights=None):
    """The network of ``--modality``: the image network from its usual weights, the text network from scratch."""
    from models.backbones.mmimdb import build_image_backbone, build_text_backbone

    if args.modality == "image":
        return build_image_backbone(args.num_outputs, weights or args.backbone_weights, args.vgg_weights, args.image_cp)
    return build_text_backbone(args.num_outputs, args.text_cp)
