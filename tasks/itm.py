"""Image-text matching (Flickr30K, COCO): its `AttentionTask`, its published values, and the flags of its scripts."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.demo.scenes import make
from datasets.itm import open_itm
from engine import arguments
from metrics.retrieval import TripleAccuracy, best_of_rows, retrieval_table
from models.mmnas.heads import MatchingHead
from models.mmnas.losses import MatchingLoss
from models.mmnas.matching import MatchingNet
from tasks.itm_mining import Mining
from tasks.itm_pairs import PairScorer, Retrieval
from tasks.mmnas import flags, networks
from tasks.mmnas.data import SEARCH_PARTS, common_metadata, fixed_by
from tasks.mmnas.estimates import Pass
from tasks.task import AttentionTask, Validation
from util.cli import UserError
from util.locks import make_once

if TYPE_CHECKING:
    from datasets.itm import ITM
    from engine.run import Run
    from engine.updates import Precision
    from models.mmnas.architecture import Architecture
    from models.mmnas.net import MultimodalNet
    from tasks.task import QuestionData

# Published values: shared by both scripts, of the search, and of the training.
PUBLISHED = {
    **flags.CONSTANTS,
    "data": "data/itm",
    "out_dir": "final_exp/itm",
    "batchsize_per_process": 64,
    "save": "itm",
}
PUBLISHED_SEARCH = {**PUBLISHED, **flags.SEARCH_CONSTANTS, "seed": 888, "hsize": 256, "lr": 1e-4, "epochs": 200}
PUBLISHED_SEARCH |= {"neg_rand": 32, "neg_start_epoch": 10}
PUBLISHED_TRAIN = {**PUBLISHED, "hsize": 512, "lr": 1.5e-4, "lr_decay_epochs": (36,), "epochs": 100}
PUBLISHED_TRAIN |= {"neg_rand": 64, "neg_start_epoch": 0}
DATASETS = ("flickr", "coco")
# Split of --RUN test; both protocols of COCO are computed from its 5,000 images.
TEST_SPLITS = {"flickr": "test", "coco": "testall"}
FOLD = 1000
# Images or captions per query in predictions.json.
BEST = 10
# Small enough for a CPU. The scenes have no noise, so dropout would only slow training down.
DEMO = {
    "data": "demo/scenes/itm",
    "out_dir": "demo/scenes/runs",
    "hsize": 128,
    "enc_blocks": 2,
    "dec_blocks": 4,
    "drpt": 0.0,
    "lr": 1e-3,
    "neg_rand": 8,
    "fused_adam": True,
}

logger = logging.getLogger("mdarts")


def recipe_parser(description: str) -> arguments.RecipeParser:
    """Parser with the flags that both scripts share."""
    parser, data = flags.recipe_parser(description)
    data.add_argument("--data", metavar="DIR", help="folder that datasets/prepare_itm.py wrote")
    data.add_argument("--DATASET", choices=DATASETS, help="which data set (default: that of the checkpoint, or flickr)")
    loss = parser.add_argument_group("loss and hard negatives")
    loss.add_argument(
        "--scores_loss",
        choices=("bce", "margin"),
        default="bce",
        help="cross entropy of true and negative pairs, or a margin of 0.2 between them",
    )
    positive, count = arguments.positive_int, arguments.non_negative_int
    loss.add_argument("--neg_rand", type=positive, help="random candidates of each image and caption")
    loss.add_argument("--neg_hard", type=positive, default=5, help="how many of the hardest candidates are kept")
    loss.add_argument("--neg_every", type=positive, default=1, help="epochs from one mining to the next")
    loss.add_argument(
        "--neg_period_from",
        choices=("start", "zero"),
        default="start",
        help="count --neg_every from the first mining, or from epoch 0 as in the original",
    )
    loss.add_argument(
        "--neg_start_epoch",
        type=count,
        help="first epoch, from 0, with mining; before it negatives are random; --strategy random and evolution count "
        "the epochs of each training, and have the default of train_itm.py",
    )
    memory = parser.add_argument_group("scoring of pairs (mining, dev, test)")
    memory.add_argument(
        "--eval_pairs",
        type=positive,
        default=256,
        help="pairs scored together, about 3 MB each at width 512; a GPU is faster with more, such as 2048",
    )
    memory.add_argument(
        "--eval_captions",
        type=positive,
        default=30000,
        help="captions kept encoded, about 25 KB each at width 512; if there are more, images are projected again for "
        "each block",
    )
    parser.free |= {"eval_pairs", "eval_captions"}
    return parser


def validate_args(args: Namespace) -> None:
    """Raise a `UserError` if flags contradict each other."""
    if args.neg_hard > args.neg_rand:
        raise UserError(
            f"--neg_hard {args.neg_hard} is above --neg_rand {args.neg_rand}; keep no more candidates than are drawn"
        )


def open_search(args: Namespace) -> dict[str, QuestionData]:
    """``train``, ``held_out`` (the first 80 % of the training images and the rest) and ``dev``, which is scored.

    Both parts share the negatives, which are mined from all training images, as in the original.
    """
    full = _open(args, "train")
    dev = _open(args, "dev", metadata(full), full)
    return {name: full.taken(part) for name, part in SEARCH_PARTS.items()} | {"dev": dev}


def open_training(args: Namespace) -> dict[str, QuestionData]:
    """``train``, ``dev`` and the test split."""
    train = _open(args, "train")
    fixed, test = metadata(train), TEST_SPLITS[train.dataset]
    return {"train": train, "dev": _open(args, "dev", fixed, train), test: _open(args, test, fixed, train)}


def open_eval_split(args: Namespace, known: dict[str, Any] | None) -> tuple[str, QuestionData]:
    """Name and data of the split of ``--RUN`` (dev for val), with the vocabulary of a checkpoint's metadata."""
    split = "dev" if args.RUN == "val" else TEST_SPLITS[_dataset(args, known)]
    return split, _open(args, split, known)


def _dataset(args, known):
    return args.DATASET or (known or {}).get("dataset", DATASETS[0])


def _open(args, split, known=None, beside=None):
    """A split; the features of data that are open ``beside`` it are not opened again."""
    if args.demo and args.data == DEMO["data"]:
        data = Path(args.data)
        # The scenes of all tasks are one folder, which must be new or theirs.
        make_once(data / f"{DATASETS[0]}/meta.json", lambda: make_demo_data(data), folder=data.parent)
    options = {"features": beside.source if beside is not None else args.features, "skip_missing": args.skip_missing}
    options |= {"small": args.small_dataset, "num_hard": args.neg_hard, "seed": args.seed}
    return open_itm(args.data, _dataset(args, known), split, **options, **fixed_by(known))


def make_demo_data(folder: Path) -> None:
    """Make the demo's data: synthetic scenes of coloured shapes."""
    make(folder.parent, tasks=("itm",))


def metadata(data: ITM) -> dict[str, Any]:
    """Metadata of a checkpoint: `common_metadata` and the name of the data set."""
    return common_metadata(data) | {"dataset": data.dataset}


def build_net(
    args: Namespace, metadata: dict[str, Any], architecture: Architecture | None, trained: bool = False
) -> MultimodalNet:
    """The network; ``trained``: a checkpoint is loaded next, so no word vectors are needed."""
    head = MatchingHead(args.hsize, args.drpt)
    return networks.build_net(args, architecture, head, metadata, trained, MatchingNet)


def metric_text(args: Namespace) -> str:
    """Description of the recalls."""
    return (
        "recall at 1, 5 and 10, median and mean rank over all images and captions of the split, five captions per "
        f"image; mean_recall averages the six recalls; 1K scores average folds of {FOLD:,} images (COCO)"
    )


def _pair_scorer(args, run, net, data, precision):
    return PairScorer(net, data, run.device, precision, pairs=args.eval_pairs, hold=args.eval_captions)


def build_scorer(args: Namespace, run: Run, data: ITM, precision: Precision, split: str) -> Retrieval:
    """`Retrieval` of one split, a function net -> scores."""
    fold = FOLD if data.dataset == "coco" and data.num_images > FOLD else None
    return Retrieval(lambda net: _pair_scorer(args, run, net, data, precision), split, fold)


def estimate_passes(args: Namespace, data: Mapping[str, ITM], scored: Sequence[str]) -> list[Pass]:
    """Passes for scoring all pairs of the splits, and for mining.

    This counts a full forward pass per pair, which is an upper bound: captions are encoded and images projected once.
    """
    size, train = args.eval_pairs, data["train"]
    sample = train.read(range(min(size, len(train))))
    like = {name: value if name in ("label", "index") else value[:, 0] for name, value in sample.items()}
    pairs = {f"evaluation on {split}, at most": 5 * data[split].num_images ** 2 for split in scored}
    pairs["mining, at most"] = 6 * train.num_images * args.neg_rand
    return [Pass(title, like, size, count, 0.0) for title, count in pairs.items()]


def before_epoch(args: Namespace, run: Run, net: MatchingNet, data: Mapping[str, ITM], precision: Precision) -> Mining:
    """`Mining` of hard negatives of the training split."""
    train = data["train"]
    if not train.has_boxes and net.encoder_decoder.can_use_relation:
        logger.warning(
            "%s has no boxes, so operations on the relations of regions see equal relations; use features with boxes",
            train.description,
        )
    turns = {"start": args.neg_start_epoch, "every": args.neg_every, "period_from": args.neg_period_from}
    return Mining(_pair_scorer(args, run, net, train, precision), args.seed, candidates=args.neg_rand, **turns)


def write_predictions(args: Namespace, run: Run, data: ITM, scorer: Retrieval) -> list[str]:
    """Write the best captions of every image and the best images of every caption; returns the paths.

    Captions are named by the id of the image and a number, ``<id>#0`` to ``<id>#4``. ``retrieval.txt`` has the lines
    that the original prints.
    """
    ids = data.image_ids.tolist()
    names = [f"{image}#{number}" for image in ids for number in range(5)]
    captions, images = (best_of_rows(matrix, BEST).tolist() for matrix in (scorer.matrix, scorer.matrix.T))
    lines = retrieval_table(scorer.scores)
    predictions = {
        "i2t": {str(image): [names[row] for row in rows] for image, rows in zip(ids, captions, strict=True)},
        "t2i": {name: [ids[row] for row in rows] for name, rows in zip(names, images, strict=True)},
    }
    run.write("predictions.json", json.dumps(predictions) + "\n")
    run.write("retrieval.txt", "".join(f"{line}\n" for line in lines))
    for line in lines:
        logger.info("%s", line)
    return [str(run.folder / name) for name in ("predictions.json", "retrieval.txt")]


TASK = AttentionTask(
    name="itm",
    open_search=open_search,
    open_training=open_training,
    open_eval_split=open_eval_split,
    metadata=metadata,
    build_net=build_net,
    loss=lambda args: MatchingLoss(args.scores_loss),
    loss_reduction="sum",
    # Share of the training samples whose true pair scores higher than both hard negatives.
    training_metric=lambda args, data: TripleAccuracy(),
    metric_text=metric_text,
    build_scorer=build_scorer,
    validation=Validation("dev", "mean_recall"),
    write_predictions=write_predictions,
    checkpoint_args=("scores_loss",),
    demo=DEMO,
    before_epoch=before_epoch,
    estimate_passes=estimate_passes,
    validate_args=validate_args,
    # Supernets start to mine later, and trainings of a few epochs would never.
    candidate_args={"neg_start_epoch": PUBLISHED_TRAIN["neg_start_epoch"]},
)
