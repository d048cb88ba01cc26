"""Flags that the scripts of all BM-NAS tasks share, and checks of their combinations."""

from __future__ import annotations

from argparse import SUPPRESS, BooleanOptionalAction, Namespace, _ArgumentGroup
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine import arguments
from engine.arguments import RecipeParser
from search import strategies
from tasks.bmnas.inheritance import CELL_SIZES, genotype_source, inherited_defaults
from util.cli import UserError

if TYPE_CHECKING:
    from tasks.task import FusionTask, Modality

# How the reported epoch is chosen: --select_on -> description for the result.
PROTOCOLS = {
    "dev": "epoch with the best dev score; test scored once, at the end",
    "test": "epoch with the best TEST score (the originals' protocol: an optimistic estimate)",
    "last": "last epoch; test scored once, at the end",
}


def recipe_parser(
    description: str, modalities: Mapping[str, str], imagenet_flag: str | None = None, choice: bool = True
) -> tuple[RecipeParser, _ArgumentGroup]:
    """Parser with the flags that all scripts of a task share, and its group of backbone flags; both can be extended.

    Args:
        description: The script's docstring.
        modalities, imagenet_flag, choice: See `add_backbone_flags`.
    """
    parser = RecipeParser(description, upgrade=_upgraded)
    arguments.add_run_flags(parser)
    arguments.add_data_flags(parser)
    arguments.add_training_flags(parser)
    return parser, add_backbone_flags(parser, modalities, imagenet_flag, choice)


def _upgraded(saved):
    """Arguments of an older version, which had no ``--batchsize_per_process``, converted to the current flags."""
    return {"batchsize_per_process": None, **saved}


def add_architecture_flags(parser: RecipeParser) -> None:
    """Add the sizes of the BM-NAS search space."""
    group = parser.add_argument_group("architecture")
    group.add_argument("--C", type=arguments.positive_int, help="channels of every state")
    group.add_argument("--L", type=arguments.positive_int, help="length of every state")
    add_dropout_flag(group)
    # Of the original's command line; each has one legal value.
    group.add_argument("--num_input_nodes", type=arguments.positive_int, help=SUPPRESS)
    group.add_argument("--num_keep_edges", type=arguments.positive_int, default=2, help=SUPPRESS)
    group.add_argument("--steps", type=arguments.positive_int, help="cell steps: the paper's Cells")
    group.add_argument("--multiplier", type=arguments.positive_int, help="cell states that are concatenated at the end")
    group.add_argument(
        "--node_steps", type=arguments.positive_int, help="inner steps of a cell step: the paper's Steps"
    )
    group.add_argument("--node_multiplier", type=arguments.positive_int, help="inner states that are concatenated")
    group.add_argument(
        "--step_ops",
        nargs="+",
        metavar="OP",
        help="candidate operations of inner steps, your own as module:Class (default: the published ones)",
    )
    group.add_argument(
        "--chain_cells",
        action="store_true",
        help="let steps also read earlier steps, as in the paper's text; in the released code they read only features",
    )


def add_dropout_flag(group: _ArgumentGroup) -> None:
    """Add ``--drpt``."""
    group.add_argument("--drpt", type=arguments.fraction, help="dropout rate")


def add_alpha_flags(parser: RecipeParser, used: bool = True) -> None:
    """Add the optimiser settings of the architecture parameters; ``used``: whether they take effect, for the help."""
    group = parser.add_argument_group("architecture optimiser" if used else "accepted, without effect here")
    group.add_argument(
        "--arch_learning_rate", type=arguments.positive, default=3e-4, help="learning rate of alphas, betas, gammas"
    )
    group.add_argument("--arch_weight_decay", type=arguments.non_negative, default=1e-3, help="their L2 decay")


def add_backbone_flags(
    parser: RecipeParser, modalities: Mapping[str, str], imagenet_flag: str | None, choice: bool = True
) -> _ArgumentGroup:
    """Add the flags for the initial weights of the backbones; returns their group.

    Args:
        parser: The recipe's parser.
        modalities: Prefix of a backbone's flag ``--<prefix>_cp`` -> name of the network for the help text.
        imagenet_flag: Flag for a local file with torchvision's ImageNet weights; None: no backbone uses them.
        choice: Whether to add ``--backbone_weights``, the choice between pretrained and random weights.
    """
    group = parser.add_argument_group("backbones")
    if choice:
        group.add_argument(
            "--backbone_weights",
            choices=("pretrained", "random"),
            default="pretrained",
            help="pretrained: ImageNet weights or a checkpoint for each; random: random weights unless a file is named",
        )
    group.add_argument(
        "--backbone_batch",
        type=arguments.positive_int,
        default=8,
        help="samples that a frozen backbone processes at a time; limits its memory",
    )
    if imagenet_flag:
        text = "torchvision's ImageNet state dict, instead of its cache"
        group.add_argument(imagenet_flag, metavar="FILE", help=text)
    for prefix, name in modalities.items():
        group.add_argument(
            f"--{prefix}_cp", metavar="FILE", help=f"checkpoint of the {name} network (or its run folder), or random"
        )
    return group


def add_checkpointdir_flag(group: _ArgumentGroup) -> None:
    """Add ``--checkpointdir``, for tasks with released checkpoints."""
    group.add_argument(
        "--checkpointdir", metavar="DIR", help="folder of the released checkpoints, which are used if no other is named"
    )


def add_view_flag(group: _ArgumentGroup) -> None:
    """Add ``--augment_views``, which limits random crops so that features can be stored."""
    group.add_argument(
        "--augment_views",
        type=arguments.non_negative_int,
        default=0,
        metavar="K",
        help="use K fixed random crops of each training sample in turn, so that features can be cached; 0: new crops "
        "in every epoch, without caching",
    )


def add_search_flags(parser: RecipeParser, backbones: _ArgumentGroup) -> None:
    """Add the flags of a search script: search space, architecture optimiser, strategy, and settings of the search.

    Args:
        parser: The recipe's parser.
        backbones: Its group of backbone flags.
    """
    backbones.add_argument(
        "--backbone_mode",
        choices=("eval", "train"),
        default="eval",
        help="train: frozen backbones use dropout and batch statistics, as in the originals (MM-IMDB, NTU)",
    )
    add_architecture_flags(parser)
    add_alpha_flags(parser)
    search = parser.add_argument_group("search")
    strategies.add_strategy_flags(search)
    strategies.add_training_flags(parser)
    search.add_argument(
        "--reshape_layers",
        choices=("trained", "untrained"),
        default="trained",
        help="untrained: reshape layers stay random projections, as in the original's NTU search",
    )
    search.add_argument(
        "--dev_metric",
        choices=("step", "second_forward"),
        default="step",
        help="step: score the outputs of the architecture step; second_forward: score a second forward pass after it, "
        "as the original does",
    )
    search.add_argument(
        "--patience",
        type=arguments.non_negative_int,
        default=0,
        help="stop after this many epochs without a change of the genotype; 0: never",
    )


def add_selection_flags(parser: RecipeParser) -> _ArgumentGroup:
    """Add ``--select_on``; returns its group."""
    group = parser.add_argument_group("selection")
    group.add_argument("--select_on", choices=tuple(PROTOCOLS), default="dev", help="split that selects the epoch")
    return group


def add_found_flags(parser: RecipeParser, backbones: _ArgumentGroup) -> None:
    """Add the flags of a found script: what to train, on which data, and the selected epoch."""
    backbones.add_argument(
        "--freeze_backbones",
        action=BooleanOptionalAction,
        default=False,
        help="train only reshape layers, fusion and classifier, on cached features",
    )
    add_architecture_flags(parser)
    add_alpha_flags(parser, used=False)
    group = parser.add_argument_group("what to train")
    group.add_argument(
        "--search_exp_dir",
        metavar="DIR",
        help="run folder of a search (ours or the original's), for its genotype, data, sizes and weights",
    )
    group.add_argument("--eval_exp_dir", metavar="DIR", help="test only: run folder of a found training")
    group.add_argument(
        "--genotype",
        "--ARCH_PATH",
        metavar="FILE",
        help="a genotype file, a run folder that contains one, or random (drawn with --seed from the space of the "
        "flags, or with --search_exp_dir from that of the search)",
    )
    group.add_argument(
        "--fusion",
        choices=("genotype", "late", "concat"),
        default="genotype",
        help="baselines: late, the modalities' last features and a linear classifier; concat, with a hidden layer",
    )
    group.add_argument(
        "--modality_dropout",
        type=arguments.fraction,
        default=0.0,
        metavar="P",
        help="training drops each input of a sample with this probability, but never all; learned values replace it",
    )
    add_selection_flags(parser).add_argument(
        "--train_on",
        choices=("train", "train+dev"),
        default="train",
        help="train+dev: also train on the dev data, as in the original",
    )


def add_unimodal_flags(parser: RecipeParser, backbones: _ArgumentGroup, modalities: Mapping[str, Modality]) -> None:
    """Add the flags of a unimodal script.

    Args:
        parser: The recipe's parser.
        backbones: Its group of backbone flags.
        modalities: As in `tasks.task.FusionTask`; empty if they depend on the data.
    """
    parser.add_argument("--modality", choices=tuple(modalities) or None, help="which network to train")
    names = ", ".join(name for name, modality in modalities.items() if modality.head_only) or "pretrained networks"
    backbones.add_argument(
        "--freeze_backbones",
        action=BooleanOptionalAction,
        default=False,
        help=f"{names}: train only the head, on cached features",
    )
    backbones.add_argument("--L", type=arguments.positive_int, help="as in the search, to share its cached features")
    add_selection_flags(parser)


def check_schedule(args: Namespace) -> None:
    """Raise a `UserError` if the smallest learning rate is above the largest."""
    if args.eta_min > args.eta_max:
        raise UserError(f"--eta_min {args.eta_min} is above --eta_max {args.eta_max}")


def check_architecture(args: Namespace, num_features: int, cell: bool = True) -> None:
    """Check that the sizes of the search space are consistent and fit the network.

    Args:
        args: The arguments.
        num_features: Features that the network offers.
        cell: Whether the sizes of the cell come from the flags.

    Raises:
        UserError: They are inconsistent or do not fit; the message names the flags.
    """
    args.num_input_nodes = args.num_input_nodes or num_features
    if args.num_input_nodes != num_features:
        raise UserError(
            f"--num_input_nodes {args.num_input_nodes}: the network has {num_features} features; use {num_features}"
        )
    if args.num_keep_edges != 2:
        raise UserError(f"--num_keep_edges {args.num_keep_edges}: every operation has two inputs; use 2")
    if not cell:
        return
    if args.multiplier > num_features + args.steps:
        raise UserError(f"--multiplier {args.multiplier} is more than the {num_features + args.steps} states of a cell")
    if args.node_multiplier > 2 + args.node_steps:
        raise UserError(f"--node_multiplier {args.node_multiplier} is more than the {2 + args.node_steps} inner states")


def parse_search(
    task: FusionTask, parser: RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> Namespace:
    """Parse a search script's command line and check it.

    Args:
        task: The `FusionTask`.
        parser, argv, demo: See `engine.arguments.parse_args`.

    Raises:
        UserError: Flags contradict each other.
    """
    args = arguments.parse_args(parser, argv, demo={**strategies.DEMO, **demo})
    strategies.check_black_box(args, parser.given)
    check_architecture(args, task.num_features)
    check_schedule(args)
    return args


def parse_unimodal(
    task: FusionTask, parser: RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> Namespace:
    """Like `parse_search`, for a script that trains one backbone."""
    args = arguments.parse_args(parser, argv, demo=demo)
    if args.modality is None:
        raise UserError(f"which network? pass {' or '.join(f'--modality {name}' for name in task.modalities)}")
    check_schedule(args)
    return args


def parse_found(
    task: FusionTask, parser: RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> Namespace:
    """Like `parse_search`, for a found script; defaults come from the run folder that the command line names.

    Raises:
        UserError: Flags contradict each other.
    """
    args = found_arguments(task.inherited, parser, argv, demo)
    check_found_architecture(args, task.num_features)
    return args


def check_found_architecture(args: Namespace, num_features: int) -> None:
    """Like `check_architecture`, for a found script, where a genotype fixes the sizes of its cell."""
    check_architecture(args, num_features, cell=args.genotype == "random" and args.fusion == "genotype")


def found_arguments(
    inherited: frozenset[str], parser: RecipeParser, argv: Sequence[str] | None, demo: Mapping[str, Any]
) -> Namespace:
    """Like `parse_found`, without the check that needs the network's number of features.

    Args:
        inherited: See `tasks.task.FusionTask`.
        parser, argv, demo: See `engine.arguments.parse_args`.
    """
    fixed: dict[str, int] = {}
    args = arguments.parse_args(
        parser, argv, demo=demo, inherit=lambda known: inherited_defaults(inherited, parser, known, fixed)
    )
    if not (args.search_exp_dir or args.eval_exp_dir or args.genotype or args.fusion != "genotype"):
        raise UserError(
            "nothing to train: pass --search_exp_dir DIR, --genotype FILE.json, --genotype random or --fusion late "
            "(or --eval_exp_dir DIR to test)"
        )
    if args.eval_exp_dir and args.estimate:
        raise UserError("--estimate is for trainings, but --eval_exp_dir only tests; drop one of them")
    if args.train_on == "train+dev" and args.select_on == "dev":
        raise UserError(
            "--train_on train+dev leaves no dev split to select on; add --select_on test or --select_on last"
        )
    if not args.resume:
        _check_given_sizes(parser.given, args, fixed)
        _check_given_genotype(parser.given, args)
    check_schedule(args)
    return args


def _check_given_sizes(given, args, fixed):
    """Raise a `UserError` if sizes of the cell on the command line differ from those of the network."""
    for name in CELL_SIZES:
        if name not in given:
            continue
        if args.fusion != "genotype":
            raise UserError(f"--{name} {given[name]}: --fusion {args.fusion} has no cell; drop the flag")
        if given[name] != fixed.get(name, given[name]):
            raise UserError(
                f"--{name} {given[name]}: the genotype of {genotype_source(args)} has {fixed[name]}, and a genotype "
                "fixes its sizes; drop the flag"
            )


def _check_given_genotype(given, args):
    """Raise a `UserError` if the genotype on the command line is not the one of the training to test."""
    from models.genotypes import has_genotype, load_genotype

    if not args.eval_exp_dir or not given.get("genotype"):
        return
    asked, tested = given["genotype"], args.eval_exp_dir
    if asked == "random" or not has_genotype(tested) or not load_genotype(asked).same_network(load_genotype(tested)):
        raise UserError(f"--genotype {asked}: --eval_exp_dir {tested} tests that run's own network; drop the flag")
