"""Your own data: the `FusionTask` of a prepared folder (docs/own_data.md), and the flags of its scripts."""

from __future__ import annotations

import argparse
import functools
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from datasets.own import open_own, read_manifest
from datasets.own.manifest import MANIFEST_FILE
from datasets.prepare_own import main as prepare_own
from engine import arguments
from metrics.classification import AccuracyAndF1, MultilabelF1
from metrics.regression import Regression
from models import losses
from search import strategies
from tasks import own_encoders, own_split
from tasks.bmnas import flags
from tasks.own_split import SavedSplit, TrainSplit
from tasks.task import FusionTask, Modality
from util.cli import UserError
from util.locks import make_once

if TYPE_CHECKING:
    from datasets.own import Manifest
    from engine.run import Run
    from models.backbone_net import UnimodalNet
    from models.bmnas.fusion_net import FusionNet
    from models.encoders.build import Plan
    from tasks.own_split import Split
    from tasks.task import DescribedMetric

# Defaults for a few thousand samples, chosen on the two real data sets of benchmarks/own_table.py.
DEFAULTS = {
    "datadir": "data/own",
    "out_dir": "final_exp/own",
    "epochs": 30,
    "batchsize": 64,
    "drpt": 0.2,
    "weight_decay": 1e-4,
    "eta_max": 3e-3,
    "eta_min": 1e-6,
    "Tm": 2,
    "C": 64,
    "node_steps": 1,
    "node_multiplier": 1,
    "arch_learning_rate": 3e-3,
    "derive": "perturbation",
    "freeze_backbones": True,
}
DEMO = {"datadir": "demo/htad/dataset", "out_dir": "demo/htad/runs"}
# Largest default number of cell steps.
MAX_STEPS = 4
# Kind of label -> scores that may select an epoch (larger is better), starting with the default.
SCORES = {"class": ("accuracy", "macro_f1"), "number": ("r2", "correlation")}
# For parsers, which do not know the data yet: the data determine the modalities.
ANY_MODALITY: dict[str, Modality] = {}
INHERITED = own_encoders.INHERITED | {"loss", "class_weights", "f1_type", "drpt", "select_score", "sentiment"}


def recipe_parser(description: str) -> tuple[arguments.RecipeParser, argparse._ArgumentGroup]:
    """Parser with the flags that all three scripts share, and its group of backbone flags; both can be extended."""
    parser, backbones = flags.recipe_parser(description, {}, choice=False)
    parser.free.add("encoder_weights")  # files may have moved; their content is compared
    own_encoders.add_encoder_flags(backbones)
    task = parser.add_argument_group("task")
    task.add_argument(
        "--num_outputs", type=arguments.positive_int, help="number of classes (default: that of the data)"
    )
    task.add_argument(
        "--class_weights", choices=("none", "balanced"), default="none", help="balanced: rare classes count more"
    )
    task.add_argument("--loss", choices=("mse", "l1"), default="mse", help="loss if the label is a number")
    task.add_argument("--sentiment", action="store_true", help="labels in -3..3: also report sentiment scores")
    task.add_argument(
        "--select_score",
        choices=tuple(score for scores in SCORES.values() for score in scores),
        help="score that selects an epoch (default: accuracy for a class, r2 for a number)",
    )
    task.add_argument(
        "--f1_type",
        choices=("weighted", "macro", "micro", "samples"),
        default="weighted",
        help="average of the F1 score if samples have several classes",
    )
    return parser, backbones


def parse_search(
    parser: arguments.RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> tuple[FusionTask, Namespace]:
    """Parse and check a search's command line; returns the task of the data that it names, and the arguments.

    Raises:
        UserError: The data are not prepared, or flags contradict each other.
    """
    args = arguments.parse_args(parser, argv, demo={**strategies.DEMO, **demo})
    strategies.check_black_box(args, parser.given)
    task = open_task(args)
    flags.check_architecture(args, task.num_features)
    flags.check_schedule(args)
    return task, args


def parse_found(
    parser: arguments.RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> tuple[FusionTask, Namespace]:
    """Like `parse_search`, for a found script."""
    args = flags.found_arguments(INHERITED, parser, argv, demo)
    if args.eval_exp_dir:
        _make_demo_data(args)
        own_split.check_same_data(args.eval_exp_dir, args.datadir)
    task = open_task(args)
    inherited = "num_input_nodes" not in parser.given
    if args.eval_exp_dir and inherited and args.num_input_nodes not in (None, task.num_features):
        raise UserError(
            f"{args.datadir}: its encoders offer {task.num_features} features ({', '.join(task.feature_names)}), but "
            f"{args.eval_exp_dir} has {args.num_input_nodes}; pass the encoders and taps of that training, or none"
        )
    flags.check_found_architecture(args, task.num_features)
    return task, args


def parse_unimodal(
    parser: arguments.RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> tuple[FusionTask, Namespace]:
    """Like `parse_search`, for a script that trains one encoder."""
    args = arguments.parse_args(parser, argv, demo=demo)
    task = open_task(args)
    if args.modality not in task.modalities:
        names = " or ".join(f"--modality {name}" for name in task.modalities)
        problem = "which encoder?" if args.modality is None else f"--modality {args.modality}: {args.datadir} has none;"
        raise UserError(f"{problem} pass {names}")
    flags.check_schedule(args)
    return task, args


def open_task(args: Namespace) -> FusionTask:
    """The `FusionTask` of ``--datadir``; sets arguments that depend on the data, unless the command line does.

    Raises:
        UserError: The folder is not prepared, or flags do not fit it.
    """
    _make_demo_data(args)
    manifest = read_manifest(args.datadir)
    plans = own_encoders.plans(args, manifest)
    classes = len(manifest.label.classes) or 1
    args.num_outputs = args.num_outputs or classes
    args.L = args.L or default_length(plans)
    # Candidates that are trained one by one have their own schedules.
    trained_one_by_one = strategies.is_black_box(args) if hasattr(args, "strategy") else False
    args.Ti = args.Ti or (args.training_epochs if trained_one_by_one else args.epochs)
    if hasattr(args, "steps"):
        # A step reads two features; with one step per modality, all modalities can be read.
        args.steps = args.steps or min(MAX_STEPS, max(2, len(plans)))
        args.multiplier = args.multiplier or args.steps
    return _build_task(args, manifest, plans, TrainSplit(args))


def _make_demo_data(args):
    """Make the demo's data if they are missing, in one process only."""
    if args.demo and args.datadir == DEMO["datadir"]:
        make_once(
            Path(args.datadir) / MANIFEST_FILE, lambda: prepare_own(["--embedded", "htad", "--out", args.datadir])
        )


def default_length(plans: Mapping[str, Plan]) -> int:
    """Default of ``--L``: 1 if no modality has positions, 16 (a square) if there are pictures, else 8."""
    kinds = {plan.kind for plan in plans.values()}
    flat = all(len(shape) == 1 for plan in plans.values() if plan.kind == "layers" for shape in plan.size)
    if kinds <= {"vector", "layers"} and flat:
        return 1
    return 16 if "picture" in kinds else 8


def pool(args: Namespace, plans: Mapping[str, Plan]) -> tuple[int, int]:
    """(rows, columns) of features: a square if there are pictures and ``--L`` is a square, else ``--L`` time steps."""
    side = round(args.L**0.5)
    square = side * side == args.L and any(plan.kind in ("picture", "layers") for plan in plans.values())
    return (side, side) if square else (args.L, 1)


def _build_task(args, manifest, plans, split, names=None):
    # Taps and widths are only known once the networks are built; their weights are read later.
    size = pool(args, plans)
    build = functools.partial(own_encoders.build_encoders, args, plans, split, pool=size)
    with torch.random.fork_rng(devices=[]):
        outlines = build(names or plans, follows=True)
    prepare = {name: encoder.preparation for name, encoder in outlines.items() if encoder.preparation is not None}
    loss, metric = _score_of(args, manifest, split)
    return FusionTask(
        name=f"own ({manifest.name})",
        modalities={
            name: Modality(tuple(f"{name}_{tap}" for tap in encoder.taps), head_only=plans[name].starts_trained)
            for name, encoder in outlines.items()
        },
        # When one encoder is trained, no other modality is read.
        open_split=lambda args, split: open_own(
            args.datadir, split, prepare, args.small_dataset, [args.modality] if hasattr(args, "modality") else None
        ),
        build_backbones=lambda args, weights=None: build(outlines, follows=weights == "random"),
        build_unimodal_backbone=lambda args, weights=None: build([args.modality], follows=weights == "random")[
            args.modality
        ],
        loss=loss,
        metric=lambda args: metric(),
        pool=lambda args: size,
        train_splits={"train": ("train",), "train+dev": ("train", "dev")},
        multilabel=manifest.label.kind == "classes",
        optional=frozenset(name for name, modality in manifest.modalities.items() if any(modality.missing.values())),
        inherited=INHERITED,
        demo=DEMO,
    )


def _score_of(
    args: Namespace, manifest: Manifest, split: Split
) -> tuple[Callable[[Any, Any], Any], Callable[[], DescribedMetric]]:
    """(Loss, function that makes the metric) for the kind of label."""
    kind = manifest.label.kind
    if args.class_weights == "balanced" and kind != "class":
        raise UserError(f"--class_weights balanced: the label {manifest.label.name} is not one class; drop the flag")
    if args.select_score and args.select_score not in SCORES.get(kind, ()):
        known = f"use {' or '.join(SCORES[kind])}" if kind in SCORES else "drop the flag"
        raise UserError(f"--select_score {args.select_score} does not fit the label {manifest.label.name}; {known}")
    if kind == "classes":
        return losses.binary_cross_entropy, lambda: MultilabelF1(args.f1_type)
    select = args.select_score or SCORES[kind][0]
    if kind == "class":
        weights = split.class_weights(args.num_outputs) if args.class_weights == "balanced" else None
        loss = losses.WeightedCrossEntropy(weights) if weights else losses.cross_entropy
        return loss, lambda: AccuracyAndF1(args.num_outputs, select)
    mean, deviation = split.moments()
    metric = functools.partial(Rescaled, mean=mean, deviation=deviation)
    return losses.StandardisedError(mean, deviation, args.loss), lambda: metric(Regression(args.sentiment, select))


class Rescaled:
    """A metric of numbers in their own units, for a network whose outputs are (number - mean) / deviation.

    Args:
        metric: The metric.
        mean, deviation: See `models.losses.StandardisedError`.
    """

    def __init__(self, metric: DescribedMetric, mean: float, deviation: float) -> None:
        self.metric, self.mean, self.deviation = metric, mean, deviation
        self.name, self.description = metric.name, metric.description

    def reset(self) -> None:
        """Start a pass."""
        self.metric.reset()

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add outputs (N, 1) for a batch."""
        self.metric.update(outputs * self.deviation + self.mean, batch)

    def compute(self) -> dict[str, float]:
        """Scores of the pass."""
        return self.metric.compute()


def keep_inputs(run: Run, task: FusionTask, args: Namespace, net: FusionNet | UnimodalNet) -> None:
    """Write what a user of the network needs in addition to its weights into the run folder, see `tasks.own_split`."""
    own_split.keep_inputs(run, task, own_encoders.plans(args, read_manifest(args.datadir)), net)


def saved_task(args: Namespace, folder: Path | str) -> tuple[FusionTask, SavedSplit]:
    """The task of a training, and what its run folder records about the data; the data themselves are not read.

    Args:
        args: The training's arguments.
        folder: The run folder.

    Raises:
        UserError: The folder is damaged, or is not that of a training on own data.
    """
    split = SavedSplit(folder)
    return _build_task(args, split.manifest, split.plans, split, split.reads), split


def facts(args: Namespace, net: Any) -> dict[str, Any]:
    """Facts for a result: encoders and taps, samples without a modality by split, licence and citation of the data."""
    encoders = {
        name: {"encoder": encoder.settings["name"], "taps": list(encoder.taps), "channels": list(encoder.channels)}
        for name, encoder in net.backbones.items()
    }
    data = read_manifest(args.datadir)
    missing = {name: modality.missing for name, modality in data.modalities.items() if any(modality.missing.values())}
    stated = {"missing": missing, "licence": data.license, "citation": data.citation}
    return {"encoders": encoders, **{name: value for name, value in stated.items() if value}}
