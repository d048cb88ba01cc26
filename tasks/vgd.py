"""Visual grounding (RefCOCO, RefCOCO+, RefCOCOg): its `AttentionTask`, published values, and flags of its scripts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.demo.scenes import make
from datasets.vgd import open_vgd
from datasets.vgd.files import splits_of
from engine import arguments
from metrics.grounding import MIN_OVERLAP, GroundingAccuracy, write_boxes
from models.mmnas.heads import GroundingHead
from models.mmnas.losses import GroundingLoss
from tasks.mmnas import flags, networks
from tasks.mmnas.checkpoints import write_predicted
from tasks.mmnas.data import SEARCH_PARTS, common_metadata, fixed_by
from tasks.task import AttentionTask, Validation
from util.cli import UserError
from util.locks import make_once

if TYPE_CHECKING:
    from datasets.vgd import VGD
    from engine.run import Run
    from engine.training import Evaluation
    from engine.updates import Precision
    from models.mmnas.architecture import Architecture
    from models.mmnas.net import MultimodalNet
    from tasks.task import QuestionData

# Published values: shared by both scripts, of the search, and of the training.
PUBLISHED = {**flags.CONSTANTS, "data": "data/vgd", "out_dir": "final_exp/vgd", "batchsize_per_process": 64}
PUBLISHED_SEARCH = {
    **PUBLISHED,
    **flags.SEARCH_CONSTANTS,
    "save": "vgd",
    "seed": 888,
    "hsize": 256,
    "lr": 4e-4,
    "epochs": 100,
}
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
# Small enough for a CPU. The scenes have no noise, so dropout would only slow training down.
DEMO = {
    "data": "demo/scenes/vgd",
    "out_dir": "demo/scenes/runs",
    "hsize": 128,
    "enc_blocks": 2,
    "dec_blocks": 4,
    "drpt": 0.0,
    "lr": 1e-3,
    "fused_adam": True,
}


def recipe_parser(description: str) -> arguments.RecipeParser:
    """Parser with the flags that both scripts share."""
    parser, data = flags.recipe_parser(description)
    data.add_argument("--data", metavar="DIR", help="folder of <dataset>/*.json, and store/ or .npz features")
    data.add_argument(
        "--DATASET", choices=DATASETS, help="which data set (default: that of the checkpoint, or refcoco)"
    )
    data.add_argument(
        "--FEAT",
        choices=("vg_woref", "coco_mrcn"),
        default="vg_woref",
        help="which published features to look for in --data; the original does not name the files of coco_mrcn",
    )
    loss = parser.add_argument_group("loss")
    loss.add_argument(
        "--scores_loss",
        choices=("kld", "bce"),
        default="kld",
        help="loss of the region scores: KL divergence from the overlaps, or cross entropy of every region",
    )
    loss.add_argument("--loss_lambda", type=arguments.number(float, 0.0), default=0.5, help="weight of the box loss")
    loss.add_argument(
        "--overlap_threshold",
        type=arguments.number(float, 0.0, 1.0),
        default=0.5,
        help="minimum overlap of a correct region with the true box",
    )
    loss.add_argument(
        "--iou",
        choices=("pixels", "continuous"),
        default="pixels",
        help="compute overlaps from pixels (+ 1), as published, or from edges, as in torchvision",
    )
    loss.add_argument(
        "--padded_regions",
        choices=("ignore", "score"),
        default="ignore",
        help="score: padding up to 100 regions is scored too, as in the original; no difference with 100 regions",
    )
    return parser


def open_search(args: Namespace) -> dict[str, QuestionData]:
    """Data of the weight steps and of the architecture steps: the first 80 % of train and the rest."""
    data: dict[str, QuestionData] = {}
    for name, part in SEARCH_PARTS.items():
        data[name] = _open(args, "train", part=part, beside=data.get("train"))
    return data


def open_training(args: Namespace) -> dict[str, QuestionData]:
    """``train`` (the splits of --SPLIT), ``val`` unless trained on, and the test splits of the data set."""
    train = _open(args, args.SPLIT)
    scored = [split for split in ("val", *TEST_SPLITS) if split in train.splits and split not in args.SPLIT.split("+")]
    return {"train": train} | {split: _open(args, split, metadata(train), beside=train) for split in scored}


def open_eval_split(args: Namespace, known: dict[str, Any] | None) -> tuple[str, QuestionData]:
    """Name and data of the split of ``--RUN`` and ``--TEST_SPLIT``, with the vocabulary of a checkpoint."""
    if args.RUN == "val":
        return "val", _open(args, "val", known)
    dataset = args.DATASET or (known or {}).get("dataset", DATASETS[0])
    splits = [split for split in (*TEST_SPLITS, "val") if split in splits_of(dataset)]
    split = args.TEST_SPLIT or splits[0]
    if split not in splits:
        raise UserError(f"--TEST_SPLIT {split}: {dataset} has {', '.join(splits)}")
    return split, _open(args, split, known)


def _open(args, split, known=None, part=None, beside=None):
    """A split, or a part of it; the features of data that are open ``beside`` it are not opened again."""
    if args.demo and args.data == DEMO["data"]:
        data = Path(args.data)
        # The scenes of all tasks are one folder, which must be new or theirs.
        make_once(data / "store/meta.json", lambda: make_demo_data(data), folder=data.parent)
    dataset = args.DATASET or (known or {}).get("dataset", DATASETS[0])
    options = {
        "features": beside.source if beside is not None else args.features,
        "feature_kind": args.FEAT,
        "small": args.small_dataset,
    }
    options |= {"skip_missing": args.skip_missing, "padding": "full" if args.padded_regions == "score" else "batch"}
    return open_vgd(args.data, dataset, split, part=part, **options, **fixed_by(known))


def make_demo_data(folder: Path) -> None:
    """Make the demo's data: synthetic scenes of coloured shapes."""
    make(folder.parent, tasks=("vgd",))


def metadata(data: VGD) -> dict[str, Any]:
    """Metadata of a checkpoint: `common_metadata` and the name of the data set."""
    return common_metadata(data) | {"dataset": data.options["dataset"]}


def build_net(
    args: Namespace, metadata: dict[str, Any], architecture: Architecture | None, trained: bool = False
) -> MultimodalNet:
    """The network; ``trained``: a checkpoint is loaded next, so no word vectors are needed."""
    choices = {"scores_loss": args.scores_loss, "padded_regions": args.padded_regions}
    head = GroundingHead(args.hsize, args.drpt, **choices)
    return networks.build_net(args, architecture, head, metadata, trained)


def loss(args: Namespace) -> GroundingLoss:
    """The `GroundingLoss` of the flags."""
    return GroundingLoss(args.scores_loss, args.loss_lambda, args.overlap_threshold, args.iou)


def metric_text(args: Namespace) -> str:
    """Description of the accuracy."""
    boxes = {"pixels": "boxes count whole pixels", "continuous": "boxes are their edges"}
    padding = {"ignore": "are never chosen", "score": "are scored and chosen like any other"}
    return (
        f"share of boxes with IoU >= {MIN_OVERLAP}; {boxes[args.iou]} (--iou {args.iou}); padded regions "
        f"{padding[args.padded_regions]} (--padded_regions {args.padded_regions})"
    )


def build_scorer(args: Namespace, run: Run, data: VGD, precision: Precision, split: str) -> Evaluation:
    """`Evaluation` of the accuracy on one split, a function net -> scores."""
    return networks.scorer(args, run, data, precision, split, loss(args), GroundingAccuracy(args.iou))


def write_predictions(args: Namespace, run: Run, data: VGD, scorer: Evaluation) -> list[str]:
    """Write every expression with its box and the overlap with the true box; returns the paths."""
    results = scorer.metric.results()
    # Several data sets and splits are tested; their files must not overwrite each other.
    part = f"_{data.options['dataset']}_{data.split}"
    return write_predicted(
        args, run, lambda place: write_boxes(place, results, data.image_ids, data.expressions()), part
    )


TASK = AttentionTask(
    name="vgd",
    open_search=open_search,
    open_training=open_training,
    open_eval_split=open_eval_split,
    metadata=metadata,
    build_net=build_net,
    loss=loss,
    # The original's loss is already a mean.
    loss_reduction="mean",
    training_metric=lambda args, data: GroundingAccuracy(args.iou),
    metric_text=metric_text,
    build_scorer=build_scorer,
    validation=Validation("val", "accuracy"),
    write_predictions=write_predictions,
    checkpoint_args=("scores_loss", "loss_lambda", "overlap_threshold", "iou", "padded_regions"),
    demo=DEMO,
)
