"""NTU RGB+D 60 (video + skeleton -> action): its `FusionTask`, its published values, and the flags of its scripts."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.ntu import open_ntu, open_source
from engine import arguments
from metrics.classification import Accuracy
from models.backbones.ntu import build_ntu_backbones, build_rgb_backbone, build_skeleton_backbone
from models.losses import cross_entropy
from tasks.bmnas import flags
from tasks.task import FusionTask, Modality

if TYPE_CHECKING:
    from models.backbones.hcn import SkeletonHCN
    from models.backbones.inflated_resnet import InflatedResNet50
    from tasks.task import LabelledData

# Values of the released scripts: shared by all, of the search, and of the found script. Those of the paper's Table 8
# are in tasks/bmnas/paper_recipes.py.
PUBLISHED = {
    "datadir": "BM-NAS_dataset/NTU",
    "checkpointdir": "checkpoints/ntu",
    "out_dir": "final_exp/ntu",
    "num_workers": 16,
    "batchsize": 96,
    "drpt": 0.2,
    "arch_learning_rate": 3e-4,
    "arch_weight_decay": 1e-3,
    "eta_min": 1e-6,
    "Tm": 2,
    "C": 128,
    "L": 8,
    "steps": 2,
    "multiplier": 2,
    "node_steps": 2,
    "node_multiplier": 2,
    "num_outputs": 60,
}
PUBLISHED_SEARCH = {
    **PUBLISHED,
    "epochs": 30,
    "weight_decay": 3e-4,
    "eta_max": 1e-3,
    "Ti": 1,
    "reshape_layers": "untrained",
}
# The original's found script accepts --weight_decay, with default 3e-4, but always uses 1e-4.
PUBLISHED_FOUND = {**PUBLISHED, "epochs": 50, "weight_decay": 1e-4, "eta_max": 3e-4, "Ti": 5}
# Small enough for two cores; the data are synthetic.
DEMO = {
    "datadir": "demo/ntu/dataset",
    "out_dir": "demo/ntu/runs",
    "backbone_weights": "random",
    "cache_features": "disk",
    "num_outputs": 8,
    "batchsize": 16,
    "C": 32,
    "eta_max": 3e-3,
    "augment_views": 2,
}


def recipe_parser(description: str) -> tuple[arguments.RecipeParser, argparse._ArgumentGroup]:
    """Parser with the flags that all three scripts share, and its group of backbone flags; both can be extended."""
    parser, backbones = flags.recipe_parser(description, {"rgb": "video", "ske": "skeleton"}, "--resnet_weights")
    flags.add_checkpointdir_flag(backbones)
    backbones.add_argument(
        "--visual_pool",
        choices=("7x7", "full"),
        default="7x7",
        help="last pool of the video network: 7x7 of an 8x8 map, as for the released checkpoint, or the full map",
    )
    task = parser.add_argument_group("task")
    task.add_argument("--num_outputs", type=arguments.positive_int, help="number of actions")
    task.add_argument(
        "--frame_sampling",
        choices=("original", "corrected"),
        default="original",
        help="original: the last of 24 frames is always empty, and short videos end in empty frames",
    )
    task.add_argument(
        "--channel_order",
        choices=("bgr", "rgb"),
        default="bgr",
        help="bgr: apply the colour statistics of RGB to BGR frames, as the released checkpoint was trained",
    )
    task.add_argument(
        "--absent_person",
        choices=("minus_origin", "zero"),
        default="minus_origin",
        help="joints of an absent person: minus the origin, as the released checkpoint was trained, or zero",
    )
    task.add_argument(
        "--keep_missing",
        action="store_true",
        help="keep the samples that can be read among the 302 with missing skeletons",
    )
    flags.add_view_flag(task)
    return parser, backbones


def add_search_split_flag(parser: arguments.RecipeParser) -> None:
    """Add ``--train_split``: the subjects of the weight steps of a search."""
    parser.add_argument(
        "--train_split",
        choices=("train_exp", "train"),
        default="train_exp",
        help="subjects of the weight steps: the published 8, or all 16 of the training set",
    )


def open_splits(args: Namespace, splits: Iterable[str]) -> dict[str, LabelledData]:
    """The splits, as `datasets.ntu.NTU`, of data that are opened once; training splits are cropped at random."""
    source = open_source(Path(args.datadir))
    options = {
        "small": args.small_dataset,
        "seed": args.seed,
        "views": args.augment_views,
        "frame_sampling": args.frame_sampling,
        "channel_order": args.channel_order,
        "absent_person": args.absent_person,
        "keep_missing": args.keep_missing,
    }
    return {split: open_ntu(source, split, augment=split.startswith("train"), **options) for split in splits}


def build_backbones(args: Namespace, weights: str | None = None) -> dict[str, InflatedResNet50 | SkeletonHCN]:
    """The video and the skeleton network; ``weights="random"`` if a complete checkpoint is loaded next."""
    options = {"checkpointdir": args.checkpointdir, "dropout": args.drpt, "pool": args.visual_pool}
    if weights == "random":
        return build_ntu_backbones(args.num_outputs, weights="random", **options)
    return build_ntu_backbones(
        args.num_outputs,
        weights=args.backbone_weights,
        resnet_weights=args.resnet_weights,
        rgb_cp=args.rgb_cp,
        skeleton_cp=args.ske_cp,
        **options,
    )


def build_unimodal_backbone(args: Namespace, weights: str | None = None) -> InflatedResNet50 | SkeletonHCN:
    """The network of ``--modality``: video from the weights of the flags, skeleton from scratch or a checkpoint."""
    if args.modality == "skeleton":
        return build_skeleton_backbone(args.num_outputs, args.ske_cp, args.checkpointdir, dropout=args.drpt)
    return build_rgb_backbone(
        args.num_outputs,
        weights or args.backbone_weights,
        args.resnet_weights,
        args.rgb_cp,
        args.checkpointdir,
        pool=args.visual_pool,
    )


TASK = FusionTask(
    name="ntu",
    modalities={
        "rgb": Modality(("Video_1", "Video_2", "Video_3", "Video_4"), head_only=True, published="rgbnet"),
        "skeleton": Modality(
            ("Skeleton_1", "Skeleton_2", "Skeleton_3", "Skeleton_4"), head_only=False, published="skenet"
        ),
    },
    open_split=lambda args, split: open_splits(args, [split])[split],
    open_splits=open_splits,
    build_backbones=build_backbones,
    build_unimodal_backbone=build_unimodal_backbone,
    loss=cross_entropy,
    metric=lambda args: Accuracy(),
    # Pool over time only, to L steps.
    pool=lambda args: (args.L, 1),
    train_splits={"train": ("train",), "train+dev": ("train+dev",)},
    multilabel=False,
    later_wins_ties=True,
    inherited=frozenset(
        {
            "drpt",
            "checkpointdir",
            "visual_pool",
            "frame_sampling",
            "channel_order",
            "absent_person",
            "keep_missing",
            "augment_views",
        }
    ),
    demo=DEMO,
    demo_data=("ntu",),
)
