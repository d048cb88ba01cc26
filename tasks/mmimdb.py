"""MM-IMDB (poster + plot -> genres): its `FusionTask`, its published values, and the flags of its scripts."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from datasets.mmimdb import open_mmimdb_splits
from engine import arguments
from metrics.classification import MultilabelF1
from models.backbone_net import square_pool
from models.backbones.mmimdb import build_image_backbone, build_mmimdb_backbones, build_text_backbone
from models.losses import binary_cross_entropy
from tasks.bmnas import flags
from tasks.task import FusionTask, Modality
from util.cli import UserError

if TYPE_CHECKING:
    from models.backbones.maxout_mlp import MaxOutMLP
    from models.backbones.vgg import VGG19Taps
    from tasks.task import LabelledData

# Values of both released scripts. Those of the paper's Table 8 are in tasks/bmnas/paper_recipes.py.
PUBLISHED = {
    "datadir": "BM-NAS_dataset/mmimdb/dataset",
    "out_dir": "final_exp/mmimdb",
    "epochs": 30,
    "batchsize": 8,
    "drpt": 0.1,
    "weight_decay": 1e-4,
    "arch_learning_rate": 3e-4,
    "arch_weight_decay": 1e-3,
    "eta_max": 1e-3,
    "eta_min": 1e-6,
    "Ti": 1,
    "Tm": 2,
    "C": 192,
    "L": 16,
    "steps": 2,
    "multiplier": 2,
    "node_steps": 1,
    "node_multiplier": 1,
    "num_outputs": 23,
}
# Small enough for two cores; the data are the images and questions of easy-VQA.
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


def recipe_parser(description: str) -> tuple[arguments.RecipeParser, argparse._ArgumentGroup]:
    """Parser with the flags that all three scripts share, and its group of backbone flags; both can be extended."""
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


def open_splits(args: Namespace, splits: Iterable[str]) -> dict[str, LabelledData]:
    """Open splits as `datasets.mmimdb.MMIMDB`; returns split -> data."""
    return open_mmimdb_splits(args.datadir, splits, args.small_dataset)


def pool(args: Namespace) -> tuple[int, int]:
    """Size (rows, columns) to which the reshape layers pool: a square of ``--L`` positions.

    Raises:
        UserError: ``--L`` is not a square.
    """
    try:
        return square_pool(args.L)
    except ValueError as error:
        raise UserError(f"--L {args.L}: {error}") from None


def build_backbones(args: Namespace, weights: str | None = None) -> dict[str, VGG19Taps | MaxOutMLP]:
    """The image and the text network; ``weights="random"`` if a checkpoint of the complete network is loaded next."""
    if weights == "random":
        return build_mmimdb_backbones(args.num_outputs, weights="random")
    return build_mmimdb_backbones(
        args.num_outputs,
        weights=args.backbone_weights,
        vgg_weights=args.vgg_weights,
        image_cp=args.image_cp,
        text_cp=args.text_cp,
    )


def build_unimodal_backbone(args: Namespace, weights: str | None = None) -> VGG19Taps | MaxOutMLP:
    """The network of ``--modality``: image from the weights of the flags, text from scratch or a checkpoint."""
    if args.modality == "image":
        return build_image_backbone(args.num_outputs, weights or args.backbone_weights, args.vgg_weights, args.image_cp)
    return build_text_backbone(args.num_outputs, args.text_cp)


TASK = FusionTask(
    name="mmimdb",
    modalities={
        "image": Modality(("Image_1", "Image_2", "Image_3", "Image_4"), head_only=True, published="imagenet"),
        "text": Modality(("Text_1", "Text_2"), head_only=False, published="textnet"),
    },
    open_split=lambda args, split: open_splits(args, [split])[split],
    open_splits=open_splits,
    build_backbones=build_backbones,
    build_unimodal_backbone=build_unimodal_backbone,
    loss=binary_cross_entropy,
    metric=lambda args: MultilabelF1(args.f1_type),
    pool=pool,
    train_splits={"train": ("train",), "train+dev": ("train", "dev")},
    multilabel=True,
    later_wins_ties=False,
    inherited=frozenset({"f1_type", "drpt"}),
    demo=DEMO,
    # Real images and questions instead of posters and plots.
    demo_data=("mmimdb", "--source", "easy-vqa"),
)
