"""Flags that the scripts of all MMNas tasks share, and checks of their combinations."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import arguments
from models.mmnas.architecture import read_architecture
from search import strategies
from tasks.mmnas.checkpoints import DATA, arguments_of
from util.cli import UserError

if TYPE_CHECKING:
    from tasks.task import AttentionTask

logger = logging.getLogger("mdarts")

# Spelling of the original scripts -> ours.
SPELLINGS = {
    "--SEED": "--seed",
    "--VERSION": "--save",
    "--NW": "--num_workers",
    "--BS": "--batchsize_per_process",
    "--GENO_EPOCH": "--ARCH_EPOCH",
}
# How the reported epoch is chosen: --select_on -> description for the result.
PROTOCOLS = {
    "last": "last epoch, as in the original",
    "val": "epoch with the best val score",
}
# Entries of `DATA` that only some tasks have; they identify the task of a run.
DATA_OF_A_TASK = {"DATASET", "FEAT", "min_answer_count"}
# Arguments that define the space of a search.
SPACE = ("enc_ops", "dec_ops", "enc_blocks", "dec_blocks")
# Values of --ARCH_PATH that are not files.
WORDS = ("mcan", "random")
# Constants of the original's search and training scripts, the same for every task; those of its searches.
CONSTANTS = {"num_workers": 4, "drpt": 0.1, "clip": 1.0, "enc_blocks": 12, "dec_blocks": 18, "lr_decay": 0.2}
SEARCH_CONSTANTS = {"alpha_lr": 0.1, "alpha_start": 20, "alpha_every": 5, "alpha_mode": "full", "alpha_init": "mcan"}


def recipe_parser(description: str) -> tuple[arguments.RecipeParser, argparse._ArgumentGroup]:
    """Parser with the flags that the search and the training script of a task share.

    Returns:
        (parser, its group of data flags).
    """
    parser = arguments.RecipeParser(description, SPELLINGS, _upgraded)
    arguments.add_run_flags(parser, data_parallel=False)
    parser.add_argument(
        "--GPU",
        metavar="LIST",
        help="GPUs to use, e.g. '0, 1, 2, 3', numbered within CUDA_VISIBLE_DEVICES or named as in it; starts one "
        "process per GPU",
    )
    parser.free.add("GPU")
    data = parser.add_argument_group("data")
    data.add_argument("--features", metavar="DIR", help="features outside --data: a store or a tree of .npz files")
    data.add_argument("--skip_missing", action="store_true", help="leave out samples about images without features")
    data.add_argument(
        "--small_dataset",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="the first samples of every split; val and test inherit it from the training",
    )
    data.add_argument(
        "--word_vectors",
        default="auto",
        metavar="SOURCE",
        help="initial word vectors: a GloVe text file, an .npz file, a spaCy package with vectors, or none (random); "
        "auto: a GloVe file in data/glove/ or checkpoints/, else random with a warning",
    )
    network = parser.add_argument_group("network")
    network.add_argument("--hsize", type=arguments.positive_int, help="width")
    network.add_argument(
        "--enc_blocks",
        type=arguments.positive_int,
        help="encoder blocks of a search, mcan or random; other architectures have their own number",
    )
    network.add_argument("--dec_blocks", type=arguments.positive_int, help="decoder blocks, likewise")
    for side, name in (("enc", "encoder"), ("dec", "decoder")):
        text = f"candidates of {name} blocks, for a search or random; your own as module:Class (default: as published)"
        network.add_argument(f"--{side}_ops", nargs="+", metavar="OP", help=text)
    network.add_argument("--drpt", type=arguments.number(float, 0.0, 1.0, open_high=True), help="dropout rate")
    add_training_flags(parser)
    return parser, data


def prediction_parser(description: str) -> arguments.RecipeParser:
    """Parser with the flags that every prediction script has."""
    parser = arguments.RecipeParser(description)
    parser.add_argument("--CKPT_PATH", required=True, metavar="FILE", help="run folder of a training, or its best.pth")
    parser.add_argument("--device", type=arguments.device_name, metavar="NAME", default="auto", help="auto, cpu, cuda")
    return parser


def add_training_flags(parser: arguments.RecipeParser) -> None:
    """Add epochs, batches, schedule and clipping."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=arguments.positive_int, help="number of epochs")
    arguments.add_batch_flags(parser, group, arguments.positive_int)
    group.add_argument(
        "--micro_batch",
        type=arguments.non_negative_int,
        default=0,
        help="samples per forward and backward pass; gradients are accumulated over the batch; 0: the whole batch",
    )
    group.add_argument("--lr", type=arguments.positive, help="full learning rate, reached after three epochs")
    group.add_argument(
        "--lr_decay_epochs",
        type=arguments.non_negative_int,
        nargs="*",
        default=(),
        help="epochs, from 0, in which the rate is cut",
    )
    group.add_argument("--lr_decay", type=arguments.positive, default=CONSTANTS["lr_decay"], help="factor of each cut")
    group.add_argument("--clip", type=arguments.positive, help="largest norm of the gradient")
    group.add_argument(
        "--fused_adam",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="update all weights in one pass over memory: faster, but rounds differently",
    )


def _today(text):
    """The current name of a value that ``--unsampled`` had in version 0.1.0."""
    names = {"drift": "keep_momentum", "still": "freeze"}
    return names.get(text, text) if isinstance(text, str) else text


def add_search_flags(parser: arguments.RecipeParser) -> None:
    """Add the architecture optimiser and settings of the search."""
    search = parser.add_argument_group("search")
    strategies.add_strategy_flags(search)
    strategies.add_training_flags(parser)
    count = arguments.non_negative_int
    search.add_argument(
        "--alpha_start", type=count, default=SEARCH_CONSTANTS["alpha_start"], help="first epoch with architecture steps"
    )
    search.add_argument(
        "--alpha_every",
        type=arguments.positive_int,
        default=SEARCH_CONSTANTS["alpha_every"],
        help="weight steps between two architecture steps",
    )
    search.add_argument(
        "--alpha_mode",
        choices=("full", "two"),
        default=SEARCH_CONSTANTS["alpha_mode"],
        help="operations of a block that an architecture step compares: all, or only two",
    )
    search.add_argument(
        "--alpha_lr", type=arguments.positive, default=SEARCH_CONSTANTS["alpha_lr"], help="learning rate of the alphas"
    )
    search.add_argument(
        "--alpha_init",
        choices=("mcan", "uniform"),
        default=SEARCH_CONSTANTS["alpha_init"],
        help="mcan: start with a preference for MCAN's operations, as published; uniform: start with equal weights",
    )
    search.add_argument(
        "--unsampled",
        type=_today,
        choices=("keep_momentum", "freeze"),
        default="keep_momentum",
        help="operations that a step did not sample: Adam's momentum moves them, as in the original, or they stay",
    )
    search.add_argument(
        "--patience",
        type=arguments.non_negative_int,
        default=0,
        help="stop after this many epochs with architecture steps, but no change of the architecture; 0: never",
    )


def add_train_flags(parser: arguments.RecipeParser) -> None:
    """Add the flags of a training script: what to do, with which architecture and checkpoint."""
    group = parser.add_argument_group("what to do")
    group.add_argument(
        "--RUN",
        choices=("train", "val", "test"),
        default="train",
        help="train; or score val; or write the predictions of test",
    )
    group.add_argument(
        "--ARCH_PATH",
        "--genotype",
        metavar="FILE",
        help="architecture: a JSON file (arch.json, genotype.json), a run folder that contains one, mcan, or random",
    )
    group.add_argument(
        "--search_exp_dir",
        metavar="DIR",
        help="run folder of a search, for its architecture and data; with --ARCH_PATH random or mcan, for its space",
    )
    group.add_argument(
        "--ARCH_EPOCH",
        type=arguments.non_negative_int,
        help="which epoch of --ARCH_PATH (default: the last), by its key in arch.json: the log's epoch + 1",
    )
    group.add_argument(
        "--CKPT_PATH", metavar="FILE", help="checkpoint, or run folder of a training: for val, test, and with --RESUME"
    )
    group.add_argument("--RESUME", action="store_true", help="continue the run of --CKPT_PATH")
    # A changed architecture is detected by its content.
    parser.free |= {"RESUME", "ARCH_EPOCH"}
    group.add_argument(
        "--compile", action="store_true", help="compile the network's training step (torch.compile; for GPUs)"
    )
    group.add_argument("--select_on", choices=tuple(PROTOCOLS), default="last", help="how the epoch is selected")


def _upgraded(saved):
    """Arguments of an older version, whose ``--batchsize`` was per process, converted to the current flags."""
    if "unsampled" in saved:
        saved = {**saved, "unsampled": _today(saved["unsampled"])}
    if "batchsize_per_process" in saved:
        # Trainings of VQA with --demo once kept both, and used the total.
        both = saved.get("demo") and None not in (saved.get("batchsize"), saved["batchsize_per_process"])
        return {**saved, "batchsize_per_process": None} if both else saved
    saved = {**saved, "batchsize": None, "batchsize_per_process": saved.get("batchsize")}
    if "ARCH_PATH" in saved:
        saved = {"search_exp_dir": None, "enc_ops": None, "dec_ops": None, **saved}
    # Mining counted its period from epoch 0.
    return {"neg_period_from": "zero", **saved} if "neg_every" in saved else saved


def _inherited(task, parser, args, fixed):
    """Defaults from the run that this one uses; sizes fixed by an architecture are also added to ``fixed``."""
    if args.RESUME:
        return {}
    if args.RUN == "train":
        source = args.search_exp_dir or (args.ARCH_PATH if args.ARCH_PATH not in WORDS else None)
        defaults = _of_search(parser, args, source, fixed) if source else {}
    else:
        source = args.CKPT_PATH
        defaults = _of_checkpoint(task, args, source, fixed) if source else {}
    folder = arguments.run_folder_of(source) if source else None
    # A run that uses another run is written into that run's folder.
    return {**defaults, **fixed, **({"out_dir": str(folder)} if folder else {})}


def _of_checkpoint(task, args, source, fixed):
    """Arguments of the training that made the checkpoint ``source``."""
    # The architecture of --demo is only for trainings.
    architecture = args.ARCH_PATH or args.search_exp_dir
    defaults = {"ARCH_PATH": architecture, **arguments_of(task, source, fixed)}
    if not fixed and architecture and architecture not in WORDS:
        fixed.update(read_architecture(architecture, args.ARCH_EPOCH)[0].sizes())
    return defaults


def _of_search(parser, args, source, fixed):
    """Arguments from the architecture to train and from its search run ``source``."""
    defaults = {"ARCH_PATH": args.ARCH_PATH or args.search_exp_dir}
    if defaults["ARCH_PATH"] not in WORDS:
        architecture, defaults["ARCH_EPOCH"] = read_architecture(defaults["ARCH_PATH"], args.ARCH_EPOCH)
        fixed.update(architecture.sizes())
    elif not Path(source).exists():
        raise UserError(f"--search_exp_dir {source} does not exist; name the folder that the search printed")
    folder = arguments.run_folder_of(source)
    saved = arguments.earlier_arguments(folder) if folder else {}
    if defaults["ARCH_PATH"] in WORDS and not saved:
        raise UserError(
            f"--search_exp_dir {source} is not a run folder: it has no args.json; name the folder that the search"
            " printed"
        )
    own = {action.dest for action in parser._actions}
    if saved and DATA_OF_A_TASK & own == DATA_OF_A_TASK & set(saved):
        defaults |= {name: saved[name] for name in DATA if name in saved}
    elif saved:
        logger.info("%s is a run of another task: its data are not used", folder)
    if defaults["ARCH_PATH"] in WORDS:
        if saved and not saved.keys() >= set(SPACE):
            raise UserError(
                f"--search_exp_dir {source} is not the run of an MMNas search; name a run folder of a search_* script"
            )
        names = SPACE if defaults["ARCH_PATH"] == "random" else ("enc_blocks", "dec_blocks")
        defaults |= {name: saved[name] for name in names if name in saved}
    return defaults


def parse_search(
    task: AttentionTask, parser: arguments.RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> argparse.Namespace:
    """Parse a search script's command line and check it.

    Args:
        task: The `AttentionTask`.
        parser, argv, demo: See `engine.arguments.parse_args`.

    Raises:
        UserError: Flags contradict each other.
    """
    args = arguments.parse_args(parser, argv, demo={**strategies.DEMO, **demo})
    strategies.check_black_box(args, parser.given)
    if strategies.is_black_box(args) and args.estimate:
        raise UserError("--estimate: a search by trainings costs as much as they do; estimate one with train_*.py")
    if strategies.is_black_box(args) and not args.resume:
        vars(args).update({name: value for name, value in task.candidate_args.items() if name not in parser.given})
    task.validate_args(args)
    return args


def parse_train(
    task: AttentionTask, parser: arguments.RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> argparse.Namespace:
    """Like `parse_search`, for a training script; defaults come from the run that it uses.

    Raises:
        UserError: Flags contradict each other.
    """
    fixed: dict[str, int] = {}
    args = arguments.parse_args(parser, argv, demo=demo, inherit=lambda known: _inherited(task, parser, known, fixed))
    if args.RESUME and not args.resume:
        if not args.CKPT_PATH:
            raise UserError("--RESUME needs --CKPT_PATH with the run folder to continue")
        path = Path(args.CKPT_PATH)
        words = sys.argv[1:] if argv is None else argv
        folder = path if path.is_dir() else path.parent
        if not (folder / "args.json").exists():
            raise UserError(
                f"--RESUME: {folder} is not a run folder of this script; checkpoints of the original code can be "
                "scored (--RUN val), but not continued"
            )
        return arguments.parse_args(parser, [*words, "--resume", str(folder)], demo=demo)
    if args.RUN == "train" and not args.ARCH_PATH:
        raise UserError(
            "which architecture? pass --ARCH_PATH with a JSON file (those in arch/), the run folder of a search, mcan, "
            "or random"
        )
    if args.RUN != "train" and not args.CKPT_PATH:
        raise UserError(f"--RUN {args.RUN} needs --CKPT_PATH with the run folder or a checkpoint of a training")
    if not args.resume:
        _check_architecture_flags(args, fixed)
    if args.RUN == "train":
        task.validate_args(args)
        validation = task.validation.split
        if args.select_on == "val" and validation in args.SPLIT.split("+"):
            raise UserError(f"--select_on val: --SPLIT {args.SPLIT} trains on {validation}; use --select_on last")
    return args


def _check_architecture_flags(args, fixed):
    """Raise a `UserError` if sizes or candidates in the flags differ from those of the network."""
    source = args.CKPT_PATH if args.RUN != "train" else args.ARCH_PATH
    for name, size in fixed.items():
        if getattr(args, name) != size:
            side = {"enc_blocks": "encoder", "dec_blocks": "decoder"}[name]
            raise UserError(
                f"--{name} {getattr(args, name)}: the architecture of {source} has {size} {side} blocks; drop the "
                "flag (only a search, mcan and random use it)"
            )
    for name in ("enc_ops", "dec_ops"):
        if getattr(args, name) and args.ARCH_PATH != "random":
            raise UserError(f"--{name}: only a search and --ARCH_PATH random choose operations; drop the flag")
