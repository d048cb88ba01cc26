"""EgoGesture (RGB + depth -> gesture): its `FusionTask`, its published values, and the flags of its scripts."""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.ego import open_ego
from datasets.ego.annotation import ANNOTATION_FILE
from engine import arguments
from metrics.classification import Accuracy
from models.backbones.ego import build_ego_backbone, build_ego_backbones
from models.losses import cross_entropy
from tasks.bmnas import flags
from tasks.task import FusionTask, Modality

if TYPE_CHECKING:
    from models.backbones.resnext3d import ResNeXt101
    from tasks.task import LabelledData

# Values of the released scripts: shared by all, of the search, and of the found script. Those of the paper's Table 8
# are in tasks/bmnas/paper_recipes.py.
PUBLISHED = {
    "datadir": "EgoGesture",
    "checkpointdir": "checkpoints/ego",
    "out_dir": "final_exp/ego",
    "num_workers": 16,
    "batchsize": 96,
    "weight_decay": 1e-4,
    "arch_learning_rate": 3e-4,
    "arch_weight_decay": 1e-3,
    "eta_max": 3e-3,
    "eta_min": 1e-6,
    "Ti": 5,
    "Tm": 2,
    "C": 128,
    "L": 8,
    "steps": 2,
    "multiplier": 2,
    "node_steps": 3,
    "node_multiplier": 3,
    "num_outputs": 83,
}
PUBLISHED_SEARCH = {**PUBLISHED, "epochs": 30, "drpt": 0.0}
# The original does not train its backbones in the found stage either.
PUBLISHED_FOUND = {**PUBLISHED, "epochs": 50, "drpt": 0.2, "freeze_backbones": True}
# Small enough for two cores; the data are synthetic.
DEMO = {
    "datadir": "demo/ego/dataset",
    "out_dir": "demo/ego/runs",
    "backbone_weights": "random",
    "cache_features": "disk",
    "num_outputs": 8,
    "batchsize": 16,
    "C": 32,
    "sample_size": 32,
    "sample_duration": 16,
    "augment_views": 2,
}


def recipe_parser(description: str, choice: bool = True) -> tuple[arguments.RecipeParser, argparse._ArgumentGroup]:
    """Parser with the flags that all three scripts share, and its group of backbone flags; both can be extended.

    Args:
        description: The script's docstring.
        choice: See `flags.add_backbone_flags`.
    """
    parser, backbones = flags.recipe_parser(description, {"rgb": "colour", "depth": "depth"}, choice=choice)
    flags.add_checkpointdir_flag(backbones)
    task = parser.add_argument_group("task")
    task.add_argument("--num_outputs", type=arguments.positive_int, help="number of gestures")
    task.add_argument(
        "--annotation",
        metavar="FILE",
        help=f"annotation of the raw data (default: {ANNOTATION_FILE} there or in --checkpointdir)",
    )
    task.add_argument(
        "--sample_size", type=arguments.number(int, 16), default=112, help="height and width of a clip in pixels"
    )
    task.add_argument("--sample_duration", type=arguments.number(int, 2), default=32, help="frames of a clip")
    task.add_argument("--skip_invalid", action="store_true", help="leave out clips with missing frames")
    flags.add_view_flag(task)
    return parser, backbones


def open_split(args: Namespace, split: str) -> LabelledData:
    """Open a split as `datasets.ego.EgoGesture`; training splits are cropped at random."""
    return open_ego(
        args.datadir,
        split,
        annotation=_find_annotation(args),
        small=args.small_dataset,
        augment=split.startswith("train"),
        seed=args.seed,
        views=args.augment_views,
        sample_size=args.sample_size,
        sample_duration=args.sample_duration,
        skip_invalid=args.skip_invalid,
    )


def _find_annotation(args):
    """Path of the annotation, which may be in ``--checkpointdir``, like the checkpoints; None: the default place."""
    in_checkpoints = Path(args.checkpointdir) / (args.annotation or ANNOTATION_FILE)
    if args.annotation:
        return in_checkpoints if in_checkpoints.exists() and not Path(args.annotation).exists() else args.annotation
    in_data = [Path(args.datadir) / name for name in (ANNOTATION_FILE, "meta.json")]
    return in_checkpoints if in_checkpoints.exists() and not any(path.exists() for path in in_data) else None


def build_backbones(args: Namespace, weights: str | None = None) -> dict[str, ResNeXt101]:
    """The colour and the depth network; ``weights="random"`` if a checkpoint of the complete network is loaded next."""
    if weights == "random":
        return build_ego_backbones(args.num_outputs, weights="random", checkpointdir=args.checkpointdir)
    return build_ego_backbones(
        args.num_outputs,
        weights=args.backbone_weights,
        rgb_cp=args.rgb_cp,
        depth_cp=args.depth_cp,
        checkpointdir=args.checkpointdir,
    )


def build_unimodal_backbone(args: Namespace, weights: str | None = None) -> ResNeXt101:
    """The network of ``--modality``, from the named checkpoint; random without one or with ``weights="random"``."""
    checkpoint = None if weights == "random" else args.rgb_cp if args.modality == "rgb" else args.depth_cp
    return build_ego_backbone(args.modality, args.num_outputs, checkpoint, args.checkpointdir)


TASK = FusionTask(
    name="ego",
    modalities={
        "rgb": Modality(("RGB_1", "RGB_2", "RGB_3", "RGB_4"), head_only=True, published="rgb_net"),
        "depth": Modality(("Depth_1", "Depth_2", "Depth_3", "Depth_4"), head_only=True, published="depth_net"),
    },
    open_split=open_split,
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
        {"checkpointdir", "annotation", "sample_size", "sample_duration", "augment_views", "skip_invalid"}
    ),
    demo=DEMO,
    demo_data=("ego",),
)
