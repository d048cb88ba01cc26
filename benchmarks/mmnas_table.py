"""The result table of an MMNas task on embedded data: MCAN, a random architecture, and the result of a search.

  python benchmarks/mmnas_table.py --rows searched                 # easy-VQA, short: part of `make demo`
  python benchmarks/mmnas_table.py --size full                     # easy-VQA, the full run
  python benchmarks/mmnas_table.py --task vgd                      # synthetic scenes: grounding
  python benchmarks/mmnas_table.py --task itm                      # synthetic scenes: matching

Every row is a run of the project's own scripts with their --demo values, and trains for the same number of epochs.
Scores on embedded data say nothing about the data sets of the papers.
"""

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.closing import print_closing  # noqa: E402
from engine.arguments import RecipeParser, non_negative_int, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402
from util.files import json_text, write_text  # noqa: E402
from util.processors import limit_threads  # noqa: E402


class Task(NamedTuple):
    """The contents of a task's table.

    test: Split that is scored.
    scores: Name of a score in a result -> title of its column; fractions, shown in %.
    own: Commands for your own data, see `print_closing`.
    full: Flags of the search and of the training for ``--size full``.
    """

    test: str
    scores: dict
    own: tuple
    full: tuple = ((), ())


TASKS = {
    "vqa": Task(
        "test",
        {"accuracy": "accuracy", "yes/no": "yes/no", "other": "other"},
        (
            "datasets/extract_features.py --images IMAGES --out FEATURES --backbone resnet101-grid",
            "datasets/prepare_vqa.py --data DATA --features FEATURES --out DATA/store",
            "search_vqa.py --data DATA",
        ),
        (
            ("--lr", "1e-3", "--epochs", "16", "--alpha_start", "8"),
            ("--lr", "1e-3", "--batchsize", "64", "--epochs", "25", "--lr_decay_epochs", "18", "22"),
        ),
    ),
    "vgd": Task(
        "testA",
        {"accuracy": "IoU >= 0.5", "mean_iou": "mean IoU"},
        (
            "datasets/prepare_vgd.py --dataset refcoco --refer REFER --features FEATURES --out DATA",
            "search_vgd.py --data DATA --DATASET refcoco",
        ),
    ),
    "itm": Task(
        "test",
        {f"{way} R@{k}": f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 10)},
        (
            "datasets/prepare_itm.py --captions CAPTIONS --features FEATURES --out DATA",
            "search_itm.py --data DATA",
        ),
    ),
}
ROWS = {"mcan": "MCAN", "random": "random architecture", "searched": "searched architecture"}


def get_args_parser():
    """Flags of the table."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--task", choices=tuple(TASKS), default="vqa", help="the task")
    parser.add_argument("--size", choices=("demo", "full"), default="demo", help="epochs: the scripts' --demo, or more")
    parser.add_argument(
        "--epochs",
        type=positive_int,
        help="epochs of every run; architecture steps begin in the second half of the search",
    )
    parser.add_argument("--rows", choices=tuple(ROWS), nargs="+", default=list(ROWS), help="rows of the table")
    parser.add_argument("--seed", type=non_negative_int, default=2, help="seed of every run")
    parser.add_argument("--data", help="folder of the data (default: the scripts' demo data)")
    parser.add_argument("--out", default="demo", help="folder of the runs")
    return parser


def main(argv=None):
    """Run every row; print the table and write it next to the runs."""
    args = get_args_parser().parse_args(argv)
    limit_threads(1)
    task, out = TASKS[args.task], Path(args.out) / args.task
    shared = ["--demo", "--out_dir", str(out / "runs"), "--seed", str(args.seed)]
    shared += ["--data", args.data] if args.data else []
    flags = task.full if args.size == "full" else ((), ())
    if args.epochs:
        epochs = ("--epochs", str(args.epochs))
        flags = ((*epochs, "--alpha_start", str(args.epochs // 2)), epochs)
    runs = run_rows(args.task, args.rows, [*shared, *flags[0]], [*shared, *flags[1]])
    table = format_table(args.task, task, runs)
    write_text(out / "table.md", table)
    write_text(out / "table.json", json_text(runs, indent=2, default=str) + "\n")
    print(table)
    print_closing(out / "table.md", runs["search"]["folder"] if "search" in runs else None, task.own)
    return runs


def run_rows(name, rows, search_flags, train_flags):
    """Run the rows, and a search if one of them needs it; returns row name (or ``search``) -> result."""
    train = importlib.import_module(f"train_{name}")
    results = {}
    for row in rows:
        architecture = row
        if row == "searched":
            say("search")
            results["search"] = importlib.import_module(f"search_{name}").main(search_flags)
            architecture = results["search"]["folder"]
        say(f"training: {ROWS[row]}")
        results[row] = train.main([*train_flags, "--RUN", "train", "--ARCH_PATH", architecture])
    return results


def say(text):
    """Print the name of the part that comes next."""
    print(f"\n== {text}", flush=True)


def format_table(name, task, runs):
    """The table as Markdown."""
    first = next(run for row, run in runs.items() if row != "search")
    data, settings = first["data"], first["arguments"]
    sizes = f"width {settings['hsize']}, {settings['enc_blocks']} + {settings['dec_blocks']} blocks, dropout"
    sizes += f" {settings['drpt']:g}, {first['epochs']} epochs"
    lines = [
        f"{name} on {data['description']} ({'synthetic' if data['synthetic'] else 'real'}), "
        f"{data['samples'][task.test]:,} test samples, seed {settings['seed']}; every row: {sizes}; not comparable "
        "with any paper's numbers.",
        "",
        f"| network | {' | '.join(task.scores.values())} | weights | search | training |",
        "|---" * (len(task.scores) + 4) + "|",
    ]
    for row in (row for row in runs if row != "search"):
        scores = runs[row]["metrics"][task.test]
        shown = " | ".join(f"{100 * scores[score]:.2f}" for score in task.scores)
        searched = f"{runs['search']['seconds']:.0f} s" if row == "searched" else "-"
        weights = sum(runs[row]["parameters"].values())
        lines.append(f"| {ROWS[row]} | {shown} | {weights:,} | {searched} | {runs[row]['seconds']:.0f} s |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
