"""The result table of a BM-NAS task on embedded data: unimodal rows, late fusion, given and random genotypes, search.

  python benchmarks/bmnas_table.py                                 # easy-VQA: real pictures and questions
  python benchmarks/bmnas_table.py --data synthetic-films --seeds 0 1 2
  python benchmarks/bmnas_table.py --data ntu
  python benchmarks/bmnas_table.py --data ego

Every row is a run of the project's own scripts with their --demo values. On MM-IMDB's data, image weights are random
and frozen; on the others, the backbones are first trained for a few epochs. Scores on embedded data say nothing about
the data sets of the papers.
"""

import dataclasses
import importlib
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.closing import print_closing  # noqa: E402
from engine.arguments import RecipeParser, non_negative_int, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402
from util.files import json_text, write_text  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Demo:
    """A task on embedded data.

    Attributes:
        task: Last part of the scripts' names.
        make: Arguments of `datasets.make_demo`, without the folder.
        checkpoints: Modality -> flag that takes its trained network, or None if its weights stay random.
        flags: Further flags of every script.
        score: Key of the score in a result, and its name in the table.
        own: Commands for your own data, see `print_closing`.
        example: File name of an example genotype, if there is one.
    """

    task: str
    make: tuple
    checkpoints: dict
    flags: tuple
    score: tuple
    own: tuple
    example: str | None = None


F1, ACCURACY = ("f1", "weighted F1"), ("accuracy", "accuracy")
FILMS = {"image": None, "text": "--text_cp"}
OWN = {
    "mmimdb": (
        "datasets/prepare_mmimdb.py --hdf5 FILE.hdf5 --out DATA",
        "main_unimodal_mmimdb.py --datadir DATA --modality text",
        "main_darts_searchable_mmimdb.py --datadir DATA --text_cp RUN_FOLDER_OF_THE_TEXT_NETWORK",
    ),
    "ntu": (
        "datasets/prepare_ntu.py --dir VIDEOS --skeletons SKELETONS --out DATA",
        "main_darts_searchable_ntu.py --datadir DATA --rgb_cp CHECKPOINT --ske_cp CHECKPOINT",
    ),
    "ego": (
        "datasets/prepare_ego.py --dir FRAMES --labels LABELS --out DATA",
        "main_darts_searchable_ego.py --datadir DATA --rgb_cp CHECKPOINT --depth_cp CHECKPOINT",
    ),
}
DEMOS = {
    "easy-vqa": Demo(
        "mmimdb",
        # Many questions per picture: VGG-19 is the slowest part, and it processes every picture only once.
        (
            *("mmimdb", "--source", "easy-vqa", "--train", "6000", "--dev", "1500", "--test", "1500"),
            *("--questions_per_image", "6"),
        ),
        FILMS,
        ("--num_outputs", "13"),
        F1,
        OWN["mmimdb"],
        "mmimdb_example.json",
    ),
    "synthetic-films": Demo(
        "mmimdb",
        ("mmimdb", "--source", "synthetic", "--size", "2000"),
        FILMS,
        ("--num_outputs", "23", "--batchsize", "16", "--eta_max", "2e-3", "--epochs", "20", "--Ti", "20"),
        F1,
        OWN["mmimdb"],
        "mmimdb_example.json",
    ),
    "ntu": Demo(
        "ntu", ("ntu",), {"rgb": "--rgb_cp", "skeleton": "--ske_cp"}, (), ACCURACY, OWN["ntu"], "ntu_example.json"
    ),
    "ego": Demo("ego", ("ego",), {"rgb": "--rgb_cp", "depth": "--depth_cp"}, (), ACCURACY, OWN["ego"]),
}


def get_args_parser():
    """Flags of the table."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--data", choices=tuple(DEMOS), default="easy-vqa", help="embedded data")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[2], help="one run of every row per seed")
    parser.add_argument("--epochs", type=positive_int, help="epochs of every run (default: the scripts' demo values)")
    parser.add_argument("--out", default="demo", help="folder of data and runs")
    return parser


def main(argv=None):
    """Run every row for every seed; print the table and write it next to the runs."""
    args = get_args_parser().parse_args(argv)
    demo = DEMOS[args.data]
    out = Path(args.out) / ("mmimdb" if args.data == "easy-vqa" else args.data)
    if not (out / "dataset" / "meta.json").exists():
        from datasets.make_demo import main as make_demo

        make_demo([*demo.make, "--out", str(out)])
    shared = ["--demo", "--datadir", str(out / "dataset"), "--out_dir", str(out / "runs"), *demo.flags]
    shared += ["--epochs", str(args.epochs), "--Ti", str(args.epochs)] if args.epochs else []
    runs = [run_rows(demo, [*shared, "--seed", str(seed)]) for seed in args.seeds]
    table = format_table(args.data, demo, args.seeds, runs)
    write_text(out / "table.md", table)
    write_text(out / "table.json", json_text(runs, indent=2, default=str) + "\n")
    print(table)
    print_closing(out / "table.md", runs[-1]["search folder"], demo.own)
    return runs


def run_rows(demo, shared):
    """Run all rows for one seed; returns row name -> result, and ``search folder`` -> folder of the search."""
    unimodal, search, found = (
        importlib.import_module(f"main_{name}_{demo.task}") for name in ("unimodal", "darts_searchable", "darts_found")
    )
    results, checkpoints = {}, []
    for modality, flag in demo.checkpoints.items():
        say(f"unimodal {modality}")
        results[modality] = unimodal.main([*shared, "--modality", modality])
        checkpoints += [flag, results[modality]["folder"]] if flag else []
    shared = [*shared, *checkpoints]
    given = {"late fusion": ["--fusion", "late"], "random genotype": ["--genotype", "random"]}
    if demo.example:
        given["example genotype"] = ["--genotype", str(ROOT / "genotypes" / demo.example)]
    for row, flags in given.items():
        say(row)
        results[row] = found.main([*shared, *flags])
    say("search")
    results["search"] = search.main(shared)
    folder = Path(results["search"]["folder"])
    say("training of what the search found")
    results["searched genotype"] = found.main([*shared, "--search_exp_dir", str(folder)])
    return {**results, "search folder": folder}


def say(text):
    """Print the name of the part that comes next."""
    print(f"\n== {text}", flush=True)


def format_table(name, demo, seeds, runs):
    """The table as Markdown."""
    (score, words), data = demo.score, runs[0]["search"]["data"]
    test = next(iter(runs[0].values()))["data"]["samples"]["test"]
    lines = [
        f"{name} ({'synthetic' if data['synthetic'] else 'real'}), {test:,} test samples, seeds "
        f"{', '.join(map(str, seeds))}; settings of --demo; not comparable with any paper's numbers.",
        "",
        f"| network | {words} on test | fusion parameters (last seed) | search time |",
        "|---|---|---|---|",
    ]
    for row in (row for row in runs[0] if not row.startswith("search ") and row != "search"):
        scores = [100 * run[row]["metrics"]["test"][score] for run in runs]
        shown = f"{statistics.mean(scores):.2f}"
        if len(scores) > 1:
            shown += f" ± {statistics.stdev(scores):.2f}"
        parameters = runs[-1][row]["parameters"].get("fusion_part", 0)
        seconds = statistics.mean(run["search"]["seconds"] for run in runs)
        time = f"{seconds:.0f} s" if row == "searched genotype" else "-"
        lines.append(f"| {row} | {shown} | {parameters:,} | {time} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
