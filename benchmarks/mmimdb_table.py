"""The MM-IMDB result table on embedded data: unimodal rows, late fusion, given and random genotypes, search.

  python benchmarks/mmimdb_table.py                                        # what `make demo` runs
  python benchmarks/mmimdb_table.py --source synthetic --seeds 0 1 2       # synthetic films of the official shapes

Every row is a run of the project's own scripts with small settings (their --demo values) and frozen,
randomly drawn image weights; the text network is trained first. Scores on easy-VQA or on synthetic
films say nothing about MM-IMDB itself.
"""

import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, positive_int, whole  # noqa: E402
from util.cli import run_cli  # noqa: E402

# make_demo's flags, number of labels, and flags of every script.
SOURCES = {
    "easy-vqa": (["--train", "6000", "--dev", "1500", "--test", "1500"], 13, []),
    "synthetic": (["--size", "2000"], 23, ["--batchsize", "16", "--eta_max", "2e-3", "--epochs", "20", "--Ti", "20"]),
}
EXAMPLE = ROOT / "genotypes" / "mmimdb_example.json"
ROWS = ("image", "text", "late fusion", "random genotype", "example genotype", "searched genotype")


def get_args_parser():
    """Flags of the table."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--source", choices=tuple(SOURCES), default="easy-vqa", help="embedded data")
    parser.add_argument("--seeds", type=whole, nargs="+", default=[2], help="one run of every row per seed")
    parser.add_argument("--epochs", type=positive_int, help="epochs of every run (default: the scripts' demo values)")
    parser.add_argument("--out", default="demo", help="folder of data and runs")
    return parser


def main(argv=None):
    """Run every row for every seed; print the table and write it beside the runs."""
    args = get_args_parser().parse_args(argv)
    out = Path(args.out) / ("mmimdb" if args.source == "easy-vqa" else args.source)
    make_flags, num_labels, flags = SOURCES[args.source]
    if not (out / "dataset" / "meta.json").exists():
        from datasets.make_demo import main as make_demo

        make_demo(["mmimdb", "--source", args.source, "--out", str(out), *make_flags])
    shared = ["--demo", "--datadir", str(out / "dataset"), "--num_outputs", str(num_labels), *flags]
    shared += ["--epochs", str(args.epochs), "--Ti", str(args.epochs)] if args.epochs else []
    runs = [run_rows([*shared, "--out_dir", str(out / "runs"), "--seed", str(seed)]) for seed in args.seeds]
    table = format_table(args.source, args.seeds, runs)
    (out / "table.md").write_text(table)
    (out / "table.json").write_text(json.dumps(runs, indent=2, default=str) + "\n")
    folder = runs[-1]["search folder"]
    print(table)
    print(f"architecture: {folder / 'genotype.svg'} (epoch by epoch: {folder / 'architectures'})")
    print(f"probabilities: {folder / 'probabilities.svg'}\nthis table: {out / 'table.md'}")
    return runs


def run_rows(shared):
    """Results of all rows for one seed: row name -> result, and the search's folder."""
    import main_darts_found_mmimdb as found
    import main_darts_searchable_mmimdb as search
    import main_unimodal_mmimdb as unimodal

    results = {}
    for modality in ("image", "text"):
        say(f"unimodal {modality}")
        results[modality] = unimodal.main([*shared, "--modality", modality])
    shared = [*shared, "--text_cp", results["text"]["folder"]]
    for row, flags in (
        ("late fusion", ["--fusion", "late"]),
        ("random genotype", ["--genotype", "random"]),
        ("example genotype", ["--genotype", str(EXAMPLE)]),
    ):
        say(row)
        results[row] = found.main([*shared, *flags])
    say("search")
    results["search"] = search.main(shared)
    folder = Path(results["search"]["folder"])
    say("training of what the search found")
    results["searched genotype"] = found.main([*shared, "--search_exp_dir", str(folder)])
    return {**results, "search folder": folder}


def say(text):
    """Name the part that comes next."""
    print(f"\n== {text}", flush=True)


def format_table(source, seeds, runs):
    """The table as Markdown."""
    lines = [
        f"{source}, {runs[0]['image']['data']['samples']['test']:,} test samples, seeds {', '.join(map(str, seeds))}; "
        "image weights random, settings of --demo; not comparable with any paper's numbers.",
        "",
        "| network | weighted F1 on test | fusion parameters (last seed) | search time |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        scores = [100 * run[row]["metrics"]["test"]["f1"] for run in runs]
        score = f"{statistics.mean(scores):.2f}"
        if len(scores) > 1:
            score += f" ± {statistics.stdev(scores):.2f}"
        parameters = runs[-1][row]["parameters"].get("fusion_part", 0)
        seconds = statistics.mean(run["search"]["seconds"] for run in runs)
        time = f"{seconds:.0f} s" if row == "searched genotype" else "-"
        lines.append(f"| {row} | {score} | {parameters:,} | {time} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
