"""Visual grounding (RefCOCO, RefCOCO+, RefCOCOg): its `AttentionTask`, published values, and flags of its scripts."""

from pathlib import Path

from datasets.demo.scenes import make
from datasets.vgd import open_vgd
from datasets.vgd.files import splits_of
from engine import arguments
from metrics.grounding import LEAST_OVERLAP, GroundingAccuracy, write_boxes
from models.mmnas.heads import GroundingHead
from models.mmnas.losses import GroundingLoss
from tasks.mmnas import flags, networks
from tasks.mmnas.checkpoints import write_predicted
from tasks.mmnas.data import SEARCH_PARTS, common_metadata, fixed_by, make_once
from tasks.task import AttentionTask
from util.cli import UserError

# Published values (specification section 9): of both scripts, then of search and of training.
PUBLISHED = {**flags.CONSTANTS, "data": "data/vgd", "out_dir": "final_exp/vgd", "batchsize_per_process": 64}
PUBLISHED_SEARCH = {**PUBLISHED, "save": "vgd", "seed": 888, "hsize": 256, "lr": 4e-4, "epochs": 100}
PUBLISHED_TRAIN = {
    **PUBLISHED,
    "save": "vgd",
    "hsize": 512,
    "lr": 1.4e-4,
    "lr_decay_epochs": (10, 12),
    "epochs": 13,
}
DATASETS = ("refcoco", "refcoco+", "refcocog")
TEST_SPLITS = ("testA", "testB", "test")
# Small enough for a CPU. The scenes are without noise, so that dropout only delays.
DEMO = {
    "data": "demo/scenes/vgd",
    "out_dir": "demo/scenes/runs",
    "hsize": 128,
    "enc_blocks": 2,
    "dec_blocks": 4,
    "drpt": 0.0,
    "lr": 1e-3,
}


def recipe_parser(description):
    """Parser with the flags that both scripts have."""
    parser, data = flags.recipe_parser(description)
    data.add_argument("--data", metavar="DIR", help="folder of <dataset>/*.json, and store/ or .npz features")
    data.add_argument(
        "--DATASET", choices=DATASETS, help="which data set (default: that of the checkpoint, or refcoco)"
    )
    data.add_argument(
        "--FEAT",
        choices=("vg_woref", "coco_mrcn"),
        default="vg_woref",
        help="which published features to look for in --data; of coco_mrcn the original names no files",
    )
    loss = parser.add_argument_group("loss")
    loss.add_argument(
        "--scores_loss",
        choices=("kld", "bce"),
        default="kld",
        help="of the regions' scores: divergence from the overlaps, or cross entropy of every region",
    )
    loss.add_argument(
        "--loss_lambda", type=arguments.number(float, 0.0), default=0.5, help="weight of the boxes' loss beside it"
    )
    loss.add_argument(
        "--overlap_threshold",
        type=arguments.number(float, 0.0, 1.0),
        default=0.5,
        help="overlap with the true box from which a region is right",
    )
    loss.add_argument(
        "--iou",
        choices=("pixels", "continuous"),
        default="pixels",
        help="overlaps of boxes of whole pixels (+ 1), as published, or of edges, as in torchvision",
    )
    loss.add_argument(
        "--padded_regions",
        choices=("ignore", "score"),
        default="ignore",
        help="score: padding to 100 regions is scored as well, as in the original; the same where there are 100",
    )
    return parser


def open_search(args):
    """Data of the weight steps and of the architecture steps: the first 80 % and the rest of train."""
    return {name: _open(args, "train", part=part) for name, part in SEARCH_PARTS.items()}


def open_training(args):
    """``train`` (the splits of --SPLIT), ``val`` unless trained on, and the test splits of the data set."""
    data = {"train": _open(args, args.SPLIT)}
    fixed = metadata(data["train"])
    scored = [split for split in ("val", *TEST_SPLITS) if split in data["train"].splits]
    return data | {split: _open(args, split, fixed) for split in scored if split not in args.SPLIT.split("+")}


def open_eval_split(args, known):
    """Name and data of the split of ``--RUN`` and ``--TEST_SPLIT``, in the words of a checkpoint's metadata."""
    if args.RUN == "val":
        return "val", _open(args, "val", known)
    dataset = args.DATASET or (known or {}).get("dataset", DATASETS[0])
    splits = [split for split in (*TEST_SPLITS, "val") if split in splits_of(dataset)]
    split = args.TEST_SPLIT or splits[0]
    if split not in splits:
        raise UserError(f"--TEST_SPLIT {split}: {dataset} has {', '.join(splits)}")
    return split, _open(args, split, known)


def _open(args, split, known=None, part=None):
    if args.demo and args.data == DEMO["data"]:
        make_once(args, "store/meta.json", lambda: make_demo_data(Path(args.data)))
    dataset = args.DATASET or (known or {}).get("dataset", DATASETS[0])
    options = {"features": args.features, "feature_kind": args.FEAT, "small": args.small_dataset}
    options |= {"skip_missing": args.skip_missing, "padding": "full" if args.padded_regions == "score" else "batch"}
    return open_vgd(args.data, dataset, split, part=part, **options, **fixed_by(known))


def make_demo_data(folder):
    """Make the demo's data: synthetic scenes of coloured shapes."""
    make(folder.parent, tasks=("vgd",))


def metadata(data):
    """What a checkpoint carries: `common_metadata`, and of which data they are."""
    return common_metadata(data) | {"dataset": data.options["dataset"]}


def build_net(args, metadata, architecture, trained=False):
    """The network; ``trained``: a checkpoint follows, so that no word vectors are looked up."""
    choices = {"scores_loss": args.scores_loss, "padded_regions": args.padded_regions}
    head = GroundingHead(args.hsize, args.drpt, **choices)
    return networks.build_net(args, architecture, head, metadata, trained)


def loss(args):
    """The `GroundingLoss` of the flags."""
    return GroundingLoss(args.scores_loss, args.loss_lambda, args.overlap_threshold, args.iou)


def metric_text(args):
    """What the accuracy means, in words."""
    boxes = {"pixels": "boxes count whole pixels", "continuous": "boxes are their edges"}
    padding = {"ignore": "are never chosen", "score": "are scored and chosen like any other"}
    return (
        f"share of boxes with IoU >= {LEAST_OVERLAP}; {boxes[args.iou]} (--iou {args.iou}); padded regions "
        f"{padding[args.padded_regions]} (--padded_regions {args.padded_regions})"
    )


def build_scorer(args, run, data, precision, split):
    """Accuracy of a network on one split: function net -> scores."""
    return networks.scorer(args, run, data, precision, split, loss(args), GroundingAccuracy(args.iou))


def write_predictions(args, run, data, scorer):
    """Write the box of every expression beside the expression and the overlap with the true box; returns the paths."""
    found = scorer.metric.results()
    # Several data sets and splits are tested: none may take another's place.
    part = f"_{data.options['dataset']}_{data.split}"
    return write_predicted(args, run, lambda place: write_boxes(place, found, data.image_ids, data.expressions()), part)


TASK = AttentionTask(
    name="vgd",
    open_search=open_search,
    open_training=open_training,
    open_eval_split=open_eval_split,
    metadata=metadata,
    build_net=build_net,
    loss=loss,
    # The original's loss is an average already.
    loss_reduction="mean",
    training_metric=lambda args, data: GroundingAccuracy(args.iou),
    metric_text=metric_text,
    build_scorer=build_scorer,
    validation=("val", "accuracy"),
    write_predictions=write_predictions,
    checkpoint_args=("scores_loss", "loss_lambda", "overlap_threshold", "iou", "padded_regions"),
    demo=DEMO,
)
