"""Image-text matching (Flickr30K, COCO): what `tasks.mmnas` asks of a task, and what its scripts share."""

import logging
from pathlib import Path

from engine import arguments
from tasks.mmnas import flags
from tasks.mmnas.data import SEARCH_PARTS, common_tables, known, make_once

# Published values (specification section 9): of both scripts, then of search and of training.
PUBLISHED = {
    **flags.CONSTANTS,
    "data": "data/itm",
    "out_dir": "final_exp/itm",
    "batchsize_per_process": 64,
    "save": "itm",
}
PUBLISHED_SEARCH = {**PUBLISHED, "seed": 888, "hsize": 256, "lr": 1e-4, "epochs": 200}
PUBLISHED_SEARCH |= {"neg_rand": 32, "neg_start_epoch": 10}
PUBLISHED_TRAIN = {**PUBLISHED, "hsize": 512, "lr": 1.5e-4, "lr_decay_epochs": (36,), "epochs": 100}
PUBLISHED_TRAIN |= {"neg_rand": 64, "neg_start_epoch": 0}
SUMMED = True
VALIDATION = ("dev", "mean recall")
# Arguments besides the network's sizes that a checkpoint brings along.
KEPT = ("scores_loss",)
DATASETS = ("flickr", "coco")
# What --RUN test scores; of COCO's 5,000 images both protocols' tables come.
TEST_SPLITS = {"flickr": "test", "coco": "testall"}
FOLD = 1000
# Images and captions of a result file.
BEST = 10
# Small enough for a CPU. The scenes are without noise, so that dropout only delays.
DEMO = {
    "data": "demo/scenes/itm",
    "out_dir": "demo/scenes/runs",
    "hsize": 128,
    "enc_blocks": 2,
    "dec_blocks": 4,
    "drpt": 0.0,
    "lr": 1e-3,
    "neg_rand": 8,
}

logger = logging.getLogger("mdarts")


def recipe_parser(description):
    """Parser with the flags that both scripts have."""
    parser, data = flags.recipe_parser(description)
    data.add_argument("--data", metavar="DIR", help="folder that datasets/prepare_itm.py wrote")
    data.add_argument("--DATASET", choices=DATASETS, help="which data set (default: that of the checkpoint, or flickr)")
    loss = parser.add_argument_group("loss and hard negatives")
    loss.add_argument(
        "--scores_loss",
        choices=("bce", "margin"),
        default="bce",
        help="cross entropy of own and negative pairs, or a margin of 0.2 between them",
    )
    positive, whole = arguments.positive_int, arguments.whole
    loss.add_argument("--neg_rand", type=positive, help="random candidates of each image and caption")
    loss.add_argument("--neg_hard", type=positive, default=5, help="of them the hardest that are kept")
    loss.add_argument("--neg_every", type=positive, default=1, help="epochs from one mining to the next")
    loss.add_argument(
        "--neg_period_from",
        choices=("start", "zero"),
        default="start",
        help="count these epochs from the first mining, or from epoch 0 as in the original",
    )
    loss.add_argument("--neg_start_epoch", type=whole, help="first epoch, from 0, with mining; random before")
    memory = parser.add_argument_group("scoring of pairs (mining, dev, test)")
    memory.add_argument(
        "--eval_pairs",
        type=positive,
        default=256,
        help="pairs scored at once, about 3 MB each at width 512; a GPU is faster with more, such as 2048",
    )
    memory.add_argument(
        "--eval_captions",
        type=positive,
        default=30000,
        help="captions kept encoded at once, about 25 KB each at width 512; where there are more, images are projected "
        "again for each block",
    )
    parser.free |= {"eval_pairs", "eval_captions"}
    return parser


def check(args):
    """Raise `UserError` where flags contradict each other."""
    from util.cli import UserError

    if args.neg_hard > args.neg_rand:
        raise UserError(
            f"--neg_hard {args.neg_hard} of --neg_rand {args.neg_rand} candidates: keep no more than are drawn"
        )


def open_search(args):
    """``train`` and ``held out``, the first 80 % of the training images and the rest, and ``dev``, which is scored.

    Both parts share the negatives, which are mined among all training images, as in the original.
    """
    check(args)
    whole = _open(args, "train")
    dev = _open(args, "dev", tables(whole))
    return {name: whole.taken(part) for name, part in SEARCH_PARTS.items()} | {"dev": dev}


def open_training(args):
    """``train``, ``dev`` and the test split."""
    check(args)
    train = _open(args, "train")
    fixed, test = tables(train), TEST_SPLITS[train.dataset]
    return {"train": train, "dev": _open(args, "dev", fixed), test: _open(args, test, fixed)}


def open_checked(args, tables):
    """Name and data of the split of ``--RUN``, in the words of a checkpoint: dev for val."""
    split = "dev" if args.RUN == "val" else TEST_SPLITS[_dataset(args, tables)]
    return split, _open(args, split, tables)


def _dataset(args, tables):
    return args.DATASET or (tables or {}).get("dataset", DATASETS[0])


def _open(args, split, tables=None):
    from datasets.itm import open_itm

    if args.demo and args.data == DEMO["data"]:
        make_once(args, f"{DATASETS[0]}/meta.json", lambda: make_demo_data(Path(args.data)))
    options = {"features": args.features, "small": args.small_dataset, "skip_missing": args.skip_missing}
    options |= {"num_hard": args.neg_hard, "seed": args.seed}
    return open_itm(args.data, _dataset(args, tables), split, **options, **known(tables))


def make_demo_data(folder):
    """Make the demo's data: synthetic scenes of coloured shapes."""
    from datasets.demo_scenes import make

    make(folder.parent, tasks=("itm",))


def tables(data):
    """What a checkpoint carries: `common_tables`, and of which data they are."""
    return common_tables(data) | {"dataset": data.dataset}


def build_net(args, tables, architecture, trained=False):
    """The network; ``trained``: a checkpoint follows, so that no word vectors are looked up."""
    from models.mmnas.heads import MatchingHead
    from models.mmnas.matching import MatchingNet
    from tasks.mmnas import networks

    head = MatchingHead(args.hsize, args.drpt)
    return networks.build_net(args, architecture, head, tables, trained, MatchingNet)


def criterion(args):
    """The `MatchingLoss` of the flags."""
    from models.mmnas.losses import MatchingLoss

    return MatchingLoss(args.scores_loss)


def describe_metric(args):
    """What the recalls mean, in words."""
    return (
        "recall at 1, 5 and 10, median and mean rank over all images and captions of the split, five captions per "
        f"image; mean recall averages the six recalls; 1K scores average folds of {FOLD:,} images (COCO)"
    )


def training_metric(args, data):
    """Share of the training samples whose own pair scores above both hard negatives."""
    from metrics.retrieval import TripleAccuracy

    return TripleAccuracy()


def _pair_scorer(args, run, net, data, precision):
    from tasks.itm_pairs import PairScorer

    return PairScorer(net, data, run.device, precision, pairs=args.eval_pairs, hold=args.eval_captions)


def scorer(args, run, data, precision, title):
    """`Retrieval` of one split."""
    from tasks.itm_pairs import Retrieval

    fold = FOLD if data.dataset == "coco" and data.num_images > FOLD else None
    return Retrieval(lambda net: _pair_scorer(args, run, net, data, precision), title, fold)


def passes(args, data, scored):
    """Scoring of all pairs of the splits, and mining.

    As if every pair were a forward of its own: more than it is, as captions are encoded and images projected once.
    """
    from tasks.mmnas.networks import Pass

    size, train = args.eval_pairs, data["train"]
    whole = train.read(range(min(size, len(train))))
    like = {name: value if name in ("label", "index") else value[:, 0] for name, value in whole.items()}
    pairs = {f"evaluation on {split}, at most": 5 * data[split].num_images ** 2 for split in scored}
    pairs["mining, at most"] = 6 * train.num_images * args.neg_rand
    return [Pass(title, like, size, count, 0.0) for title, count in pairs.items()]


def before_epoch(args, run, net, data, precision):
    """`Mining` of the training split's hard negatives."""
    from tasks.itm_mining import Mining

    train = data["train"]
    if not train.has_boxes and net.encoder_decoder.can_use_relation:
        logger.warning(
            "%s: operations on the relations of regions see the same of all; features with boxes give them something "
            "to see",
            train.description,
        )
    turns = {"start": args.neg_start_epoch, "every": args.neg_every, "period_from": args.neg_period_from}
    return Mining(_pair_scorer(args, run, net, train, precision), args.seed, candidates=args.neg_rand, **turns)


def write_predictions(args, run, data, scorer):
    """Write the best captions of every image and the best images of every caption; returns the paths.

    A caption is named by its image's id and its number, ``<id>#0`` to ``<id>#4``. ``retrieval.txt`` has the lines
    in which the original reports.
    """
    import json

    from metrics.retrieval import best_of_rows, retrieval_table

    ids = data.image_ids.tolist()
    names = [f"{image}#{number}" for image in ids for number in range(5)]
    captions, images = (best_of_rows(matrix, BEST).tolist() for matrix in (scorer.matrix, scorer.matrix.T))
    lines = retrieval_table(scorer.scores)
    found = {
        "i2t": {str(image): [names[row] for row in rows] for image, rows in zip(ids, captions, strict=True)},
        "t2i": {name: [ids[row] for row in rows] for name, rows in zip(names, images, strict=True)},
    }
    run.write("predictions.json", json.dumps(found) + "\n")
    run.write("retrieval.txt", "".join(f"{line}\n" for line in lines))
    for line in lines:
        logger.info("%s", line)
    return [str(run.folder / name) for name in ("predictions.json", "retrieval.txt")]
