"""Flags that the scripts of every MMNas task share, and what must hold between them."""

import sys
from pathlib import Path

from engine import arguments
from util.cli import UserError

# Spelling of the original scripts -> ours.
SPELLINGS = {
    "--SEED": "--seed",
    "--VERSION": "--save",
    "--NW": "--num_workers",
    "--BS": "--batchsize",
    "--GENO_EPOCH": "--ARCH_EPOCH",
}
# How the reported epoch is chosen: --select_on -> what the result says of it.
PROTOCOLS = {
    "last": "last epoch, as in the original",
    "val": "epoch with the best val score",
}
# Arguments that say which data a run used.
DATA = ("data", "features", "DATASET", "FEAT", "min_answer_count", "skip_missing")
# What the original's search and training scripts hold as constants, the same for every task.
CONSTANTS = {"num_workers": 4, "drpt": 0.1, "clip": 1.0, "enc_blocks": 12, "dec_blocks": 18}


def recipe_parser(description):
    """Parser with the flags that the search and the training script of a task share.

    Returns:
        (parser, its group of data flags).
    """
    parser = arguments.RecipeParser(description, SPELLINGS)
    arguments.add_run_flags(parser, data_parallel=False)
    parser.add_argument(
        "--GPU",
        metavar="LIST",
        help="GPUs to use, e.g. '0, 1, 2, 3', counted within CUDA_VISIBLE_DEVICES or named as there: starts one "
        "process for each by itself",
    )
    parser.free.add("GPU")
    data = parser.add_argument_group("data")
    data.add_argument("--features", metavar="DIR", help="features elsewhere: a store or a tree of .npz files")
    data.add_argument("--skip_missing", action="store_true", help="leave out samples about images without features")
    data.add_argument("--small_dataset", action="store_true", help="the first samples of every split")
    data.add_argument(
        "--word_vectors",
        default="auto",
        metavar="SOURCE",
        help="what words start from: a GloVe text file, an .npz file, a spaCy package with vectors, or none (random); "
        "auto: a GloVe file in data/glove/ or checkpoints/, or a warning (default: %(default)s)",
    )
    network = parser.add_argument_group("network")
    network.add_argument("--hsize", type=arguments.positive_int, help="width")
    network.add_argument(
        "--enc_blocks", type=arguments.positive_int, help="encoder blocks of a search, of mcan and of random"
    )
    network.add_argument("--dec_blocks", type=arguments.positive_int, help="decoder blocks, likewise")
    network.add_argument("--drpt", type=arguments.number(float, 0.0, 1.0, open_high=True), help="dropout rate")
    add_training_flags(parser)
    return parser, data


def prediction_parser(description):
    """Parser with the flags that every prediction script has."""
    parser = arguments.RecipeParser(description)
    parser.add_argument("--CKPT_PATH", required=True, metavar="FILE", help="run folder of a training, or its best.pth")
    parser.add_argument("--device", type=arguments.device_name, metavar="NAME", default="auto", help="auto, cpu, cuda")
    return parser


def add_training_flags(parser):
    """Epochs, batches, schedule and clipping."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=arguments.positive_int, help="number of epochs")
    group.add_argument(
        "--batchsize", type=arguments.positive_int, help="samples of a batch on each process, as in the original"
    )
    group.add_argument(
        "--micro_batch",
        type=arguments.whole,
        default=0,
        help="samples of a forward and backward pass, gradients add up over a batch; 0: all at once",
    )
    group.add_argument("--lr", type=arguments.positive, help="full learning rate, reached after three epochs")
    group.add_argument(
        "--lr_decay_epochs", type=arguments.whole, nargs="*", default=(), help="epochs, from 0, that cut the rate"
    )
    group.add_argument("--lr_decay", type=arguments.positive, default=0.2, help="what they multiply it by")
    group.add_argument("--clip", type=arguments.positive, help="largest norm of the gradient")


def add_search_flags(parser):
    """Search space, architecture optimiser, and how the search is watched."""
    space = parser.add_argument_group("search space")
    for side, name in (("enc", "encoder"), ("dec", "decoder")):
        text = f"candidates of {name} blocks (default: the published ones)"
        space.add_argument(f"--{side}_ops", nargs="+", metavar="OP", help=text)
    search = parser.add_argument_group("search")
    search.add_argument("--alpha_start", type=arguments.whole, default=20, help="first epoch with architecture steps")
    search.add_argument(
        "--alpha_every", type=arguments.positive_int, default=5, help="weight steps between two architecture steps"
    )
    search.add_argument(
        "--alpha_mode",
        choices=("full", "two"),
        default="full",
        help="operations of a block that an architecture step compares: all, or two of them",
    )
    search.add_argument("--alpha_lr", type=arguments.positive, default=0.1, help="learning rate of the alphas")
    search.add_argument(
        "--alpha_init",
        choices=("mcan", "uniform"),
        default="mcan",
        help="mcan: start in favour of MCAN's operations, as published; uniform: all alike",
    )
    search.add_argument(
        "--unsampled",
        choices=("drift", "still"),
        default="drift",
        help="operations that a step did not sample: Adam's momentum moves them on, as in the original, or they stay",
    )
    search.add_argument(
        "--patience",
        type=arguments.whole,
        default=0,
        help="stop once the architecture stands for this many epochs with architecture steps; 0: never",
    )


def add_train_flags(parser):
    """What a training script does, with which architecture and checkpoint."""
    group = parser.add_argument_group("what to do")
    group.add_argument(
        "--RUN",
        choices=("train", "val", "test"),
        default="train",
        help="train; or score val; or write the predictions of test",
    )
    group.add_argument(
        "--ARCH_PATH", metavar="FILE", help="architecture: a JSON file, the run folder of a search, mcan, or random"
    )
    group.add_argument(
        "--ARCH_EPOCH",
        type=arguments.whole,
        help="which epoch of --ARCH_PATH (default: the last), by its key in arch.json: the log's epoch + 1",
    )
    group.add_argument(
        "--CKPT_PATH", metavar="FILE", help="checkpoint, or run folder of a training: for val, test, and with --RESUME"
    )
    group.add_argument("--RESUME", action="store_true", help="continue the run of --CKPT_PATH")
    parser.free.add("RESUME")
    group.add_argument(
        "--compile", action="store_true", help="compile the network's training step (torch.compile; for GPUs)"
    )
    group.add_argument("--select_on", choices=tuple(PROTOCOLS), default="last", help="what chooses the epoch")


def _inherited(args):
    """What a checkpoint to use, or the search run whose architecture is trained, says of data and network."""
    if args.RUN != "train":
        from tasks.supernet.checkpoints import arguments_of

        return arguments_of(args)
    folder = Path(args.ARCH_PATH or "")
    folder = folder if folder.is_dir() else folder.parent
    path = folder / "args.json"
    saved = arguments.read_arguments(path) if args.ARCH_PATH and path.is_file() else {}
    return {name: saved[name] for name in DATA if name in saved}


def parse_train(parser, argv, demo):
    """Parse a training script's command line and check it; what is not given comes from the checkpoint to use.

    Raises:
        UserError: the flags in conflict.
    """
    args = arguments.parse_args(parser, argv, demo=demo, inherit=_inherited)
    if args.RESUME and not args.resume:
        if not args.CKPT_PATH:
            raise UserError("--RESUME needs --CKPT_PATH with the run folder to continue")
        path = Path(args.CKPT_PATH)
        words = sys.argv[1:] if argv is None else argv
        folder = path if path.is_dir() else path.parent
        if not (folder / "args.json").exists():
            raise UserError(
                f"--RESUME: {folder} is no run folder of this script; checkpoints of the original code can be scored "
                "(--RUN val), not continued"
            )
        return arguments.parse_args(parser, [*words, "--resume", str(folder)], demo=demo)
    if args.RUN == "train" and not args.ARCH_PATH:
        raise UserError(
            "which architecture? pass --ARCH_PATH with a JSON file (those in arch/), the run folder of a search, mcan, "
            "or random"
        )
    if args.RUN != "train" and not args.CKPT_PATH:
        raise UserError(f"--RUN {args.RUN} needs --CKPT_PATH with the run folder or a checkpoint of a training")
    return args
