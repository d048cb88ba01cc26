"""Check the data of a task: what is there, what is missing, what is wrong, and the command that fixes it.

  python check_data.py --task mmimdb --data BM-NAS_dataset/mmimdb/dataset
  python check_data.py --task vqa --full
  python check_data.py --task own --data data/films

It reads the original files or what prepare_*.py made from them, and compares counts with the official ones. It reads
and checks a fixed subset of the samples; --full checks all of them, on all cores. Exit status: 0: nothing is wrong;
1: errors: runs on these data would fail or give wrong numbers; 3: warnings only, which you should look at; 2: the
check itself could not run.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import importlib
import sys

from datasets.checks import Report
from util.cli import OneLineParser, UserError
from util.processors import usable_processors

# Each module has check(report, data, **options). The default of --data is that of the task's scripts, if they have one.
TASKS = {
    "mmimdb": ("datasets.mmimdb.check", "BM-NAS_dataset/mmimdb/dataset"),
    "ntu": ("datasets.ntu.check", "BM-NAS_dataset/NTU"),
    "ego": ("datasets.ego.check", "EgoGesture"),
    "vqa": ("datasets.vqa.check", "data/vqa"),
    "vgd": ("datasets.vgd.check", "data/vgd"),
    "itm": ("datasets.itm.check", "data/itm"),
    "own": ("datasets.own.check", None),
}
# Further flags, and the tasks that accept them.
OPTIONS = {"features": ("vqa", "vgd", "itm"), "annotation": ("ego",)}


def get_args_parser():
    """The flags."""
    parser = OneLineParser(__doc__)
    parser.add_argument("--task", required=True, choices=tuple(TASKS), help="the task whose data to check")
    parser.add_argument("--data", metavar="DIR", help="the data (default: where the task's scripts look for them)")
    parser.add_argument("--features", metavar="DIR", help="vqa, vgd, itm: region features outside --data")
    parser.add_argument("--annotation", metavar="FILE", help="ego: the annotation, if it is not in --data")
    parser.add_argument("--full", action="store_true", help="read all samples instead of a subset")
    parser.add_argument("--workers", type=int, metavar="N", help="processes for --full (default: one per core)")
    return parser


def main(argv=None):
    """Print what the check found; returns the `Report`."""
    args = get_args_parser().parse_args(argv)
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: must be 1 or more")
    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    if foreign := [name for name in options if args.task not in OPTIONS[name]]:
        raise UserError(f"--{foreign[0]} is for {', '.join(OPTIONS[foreign[0]])}, not for {args.task}; drop the flag")
    module, place = TASKS[args.task]
    if place is None and args.data is None:
        raise UserError(f"--task {args.task} needs --data DIR, the folder that prepare_{args.task}.py made")
    report = Report(args.full, args.workers or usable_processors())
    with report.catching(args.data or place):
        importlib.import_module(module).check(report, args.data or place, **options)
    if report.about and not args.full:
        report.about.append("(only some samples were read; --full reads all)")
    print(report.text())
    return report


if __name__ == "__main__":
    run_cli(lambda: sys.exit(main().status))
