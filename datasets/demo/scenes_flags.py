"""Synthetic scenes of coloured shapes with expressions, captions and questions, for the three tasks of MMNas."""

from pathlib import Path

from datasets.demo import scenes
from util.cli import quoted

HELP = "pictures of synthetic shapes in the file formats of RefCOCO, Flickr30K and VQA v2"


def add_arguments(parser):
    """Add the flags of ``make_demo.py scenes``."""
    what = parser.add_argument_group("what to make")
    what.add_argument("--out", required=True, help="folder for pictures, official files and the prepared data")
    what.add_argument(
        "--tasks",
        nargs="+",
        choices=scenes.TASKS,
        help="tasks to prepare; others can be added later (default: all; with --level hard: vqa)",
    )
    what.add_argument(
        "--level",
        choices=scenes.LEVELS,
        default="plain",
        help="hard: questions about several shapes and how they relate, and noisy region features (default: "
        "%(default)s)",
    )
    what.add_argument("--seed", type=int, default=0, help="seed of every choice (default: %(default)s)")
    size = parser.add_argument_group("size")
    size.add_argument("--train", type=int, default=scenes.TRAIN, help="training pictures (default: %(default)s)")
    size.add_argument(
        "--scored",
        type=int,
        default=scenes.SCORED,
        help="pictures of each of val, testA and testB (default: %(default)s)",
    )
    size.add_argument(
        "--matched",
        type=int,
        default=scenes.MATCHED,
        help="pictures of dev and of test of image-text matching (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")


def make(args):
    """Make the scenes that the flags describe; see `datasets.demo.scenes.make`."""
    sizes = {"train": args.train, "scored": args.scored, "matched": args.matched}
    meta = scenes.make(args.out, **sizes, seed=args.seed, tasks=args.tasks, workers=args.workers, level=args.level)
    for task in meta["tasks"]:
        print(f"next: python search_{task}.py --demo --data {quoted(Path(args.out) / task)}")
