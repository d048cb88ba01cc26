#!/usr/bin/env python
"""Convert easy-VQA, a small real data set for visual question answering, to the official form of VQA-v2.

    python datasets/prepare_easy_vqa.py --out data/easy_vqa

The data are inside the Python package easy-vqa: 4,000 + 1,000 pictures of one coloured shape each, 48,248 questions,
and 13 answers.

- test2015: the package's own test pictures and questions. The official test set has no annotations; here they are
  written as well (v2_mscoco_test2015_annotations.json), so that the test questions can be scored. Nothing else reads
  that file.
- val2014: every tenth of the package's training pictures (number k with k % 10 == 9), with their questions.
- train2014: the other training pictures, with their questions.

Picture k of the package's training set has the id 10000 + k, picture k of its test set 20000 + k. Question j of a
picture has the picture's id times 1000, plus j. The script also makes region features (`extract_features.py --backbone
pixels`).
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import OneLineParser, UserError, quoted, run_cli

SPLITS = ("train2014", "val2014", "test2015")
FEATURES = "features"
META_FILE = "meta.json"
VAL_EVERY = 10
# The id of a picture is one of these plus its number in the package.
TRAIN_IDS, TEST_IDS = 10_000, 20_000
LICENSE = {"url": "https://github.com/vzhou842/easy-VQA/blob/master/LICENSE", "name": "MIT License"}
DESCRIPTION = (
    "easy-VQA (real; by Victor Zhou, MIT licence): the pictures, questions and answers of the Python package easy-vqa"
    " in the form of VQA-v2"
)
SPLIT_RULE = (
    "test2015: the package's own test set, with annotations; val2014: the pictures k of its training set with"
    f" k % {VAL_EVERY} == {VAL_EVERY - 1}; train2014: the other pictures of its training set"
)


def get_args_parser():
    parser = OneLineParser(__doc__)
    parser.add_argument("--out", required=True, help="folder for the data set")
    parser.add_argument(
        "--small",
        type=int,
        metavar="N",
        help="only the first N pictures of each split, for a quick try; with about 100 or more, every answer is "
        "frequent enough (more than 8 times) to be in the network's answer vocabulary",
    )
    parser.add_argument("--no_features", action="store_true", help="do not make region features")
    # The pictures are so small that handing them to other processes takes longer than the work itself.
    parser.add_argument("--workers", type=int, default=1, help="processes that read pictures (default: %(default)s)")
    return parser


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    prepare(args.out, small=args.small, features=not args.no_features, workers=args.workers)


def prepare(out, *, small=None, features=True, workers=1):
    """Write or complete the data set in ``out``: annotations/, images/, features/ and meta.json.

    Args:
        out: Folder.
        small: Number of pictures per split, None for all.
        features: Also make region features of the pictures.
        workers: Number of processes that read the pictures to make features.

    Returns:
        dict: the content of meta.json.

    Raises:
        UserError: the package is missing, a number is out of range, or ``out`` cannot be written or holds other data.
    """
    from datasets.extract_features import check_workers
    from util.files import write_json

    check_workers(workers)
    if small is not None and small < 1:
        raise UserError(f"--small {small}: must be 1 or more")
    out = Path(out)
    package = _import_easy_vqa()
    _check_out(out, small)
    splits = select(package, small)
    meta = _meta(small, splits)
    write_json(out / META_FILE, meta | {"complete": False})
    for split, pictures in splits.items():
        _write_images(out, split, pictures)
        _write_questions(out, split, pictures)
    meta["complete"] = True
    write_json(out / META_FILE, meta)
    for split, counts in meta["splits"].items():
        print(f"{split}: {counts['images']:,} pictures, {counts['questions']:,} questions")
    if features:
        _make_features(out, workers)
    _print_next(out, features)
    return meta


def _import_easy_vqa():
    try:
        import easy_vqa
    except ImportError:
        raise UserError("easy-VQA comes with the package easy-vqa: pip install easy-vqa") from None
    return easy_vqa


def _check_out(out, small):
    """Raise UserError if the folder holds another selection, or data that this script did not make."""
    from util.files import read_json

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    path = out / META_FILE
    if path.exists():
        meta = read_json(path)
        if not isinstance(meta, dict) or meta.get("description") != DESCRIPTION or meta.get("small") != small:
            raise UserError(f"{out} holds other data, or another --small ({path}); choose another --out")
    elif any((out / folder).exists() for folder in ("annotations", "images")):
        raise UserError(f"{out} holds data that this script did not make; choose another --out")


def select(package, small=None):
    """Assign the pictures and their questions to splits.

    Args:
        package: The module easy_vqa.
        small: Number of pictures per split, None for all.

    Returns:
        dict split -> list of (picture id, path, list of (question, answer)), sorted by id.
    """
    train = _pictures(package.get_train_questions(), package.get_train_image_paths(), TRAIN_IDS)
    test = _pictures(package.get_test_questions(), package.get_test_image_paths(), TEST_IDS)
    held_out = [(picture[0] - TRAIN_IDS) % VAL_EVERY == VAL_EVERY - 1 for picture in train]
    parts = (
        [picture for picture, held in zip(train, held_out, strict=True) if not held],
        [picture for picture, held in zip(train, held_out, strict=True) if held],
        test,
    )
    return {split: part[:small] for split, part in zip(SPLITS, parts, strict=True)}


def _pictures(questions, paths, first_id):
    asked = {number: [] for number in sorted(paths)}
    for text, answer, number in zip(*questions, strict=True):
        asked[number].append((text, answer))
    return [(first_id + number, paths[number], pairs) for number, pairs in asked.items()]


def _meta(small, splits):
    import importlib.metadata

    counts = {
        split: {"images": len(pictures), "questions": sum(len(pairs) for _, _, pairs in pictures)}
        for split, pictures in splits.items()
    }
    about = {"dataset": "easy-VQA", "description": DESCRIPTION, "synthetic": False, "license": LICENSE["name"]}
    about |= {"author": "Victor Zhou", "url": "https://github.com/vzhou842/easy-VQA"}
    about |= {"package": f"easy-vqa {importlib.metadata.version('easy-vqa')}", "split_rule": SPLIT_RULE}
    return about | {"small": small, "splits": counts}


def _write_images(out, split, pictures):
    from util.files import atomic_path
    from util.progress import progress

    for image_id, source, _ in progress(pictures, f"pictures of {split}", unit="picture"):
        path = out / "images" / split / f"COCO_{split}_{image_id:012d}.png"
        if not path.exists():
            with atomic_path(path) as temporary:
                shutil.copyfile(source, temporary)


def _write_questions(out, split, pictures):
    from datasets.vqa.files import OFFICIAL_SPLITS, write_questions

    info = {
        "description": f"{DESCRIPTION}. {SPLIT_RULE}.",
        "url": "https://github.com/vzhou842/easy-VQA",
        "version": "1.0",
        "year": 2019,
        "contributor": "Victor Zhou",
    }
    short = next(name for name, official in OFFICIAL_SPLITS.items() if official == split)
    asked = ((image_id, pairs) for image_id, _, pairs in pictures)
    write_questions(out, short, asked, {"info": info, "license": LICENSE})


def _make_features(out, workers):
    from datasets.extract_features import extract
    from datasets.regions.pixels import PixelRegions

    extract(out / "images", out / FEATURES, PixelRegions(), workers=workers)


def _print_next(out, features):
    commands = [
        f"prepare_vqa.py --data {quoted(out)} --features {quoted(out / FEATURES)} --out {quoted(out / 'store')}"
    ]
    if not features:
        commands.insert(
            0, f"extract_features.py --images {quoted(out / 'images')} --out {quoted(out / FEATURES)} --backbone pixels"
        )
    for command in commands:
        print(f"next: python datasets/{command}")


if __name__ == "__main__":
    run_cli(main)
