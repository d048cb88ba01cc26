"""The result table of data of one's own: single modalities, baselines, random and searched fusions.

  python benchmarks/own_table.py                                  # two sensors of HTAD; what `make demo` runs first
  python benchmarks/own_table.py --data digits --seeds 0 1 2 3 4  # three views of a digit
  python benchmarks/own_table.py --data data/films                # any prepared folder with one class as label

Every row is a run of the project's own scripts with their defaults: encoders start with random weights and are trained
with the fusion. The embedded data sets are real, and their split is fixed; seeds change the training alone.
"""

import statistics
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import main_darts_found_own as found  # noqa: E402
import main_darts_searchable_own as search  # noqa: E402
import main_unimodal_own as unimodal  # noqa: E402
from benchmarks.closing import print_closing  # noqa: E402
from datasets.own import open_own, read_manifest  # noqa: E402
from datasets.prepare_own import main as prepare_own  # noqa: E402
from engine.arguments import RecipeParser, non_negative_int, positive_int  # noqa: E402
from util.cli import UserError, run_cli  # noqa: E402
from util.files import json_text, write_text  # noqa: E402
from util.processors import limit_threads  # noqa: E402

EMBEDDED = {"htad": (), "digits": ("--views", "fou,zer,mor")}
SCORE = "accuracy"
OWN = (
    "datasets/prepare_own.py --table films.csv --image poster --text plot --label genre --out data/films",
    "main_darts_searchable_own.py --datadir data/films",
    "main_darts_found_own.py --search_exp_dir RUN_FOLDER_OF_THE_SEARCH",
)


def get_args_parser():
    """Flags of the table."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--data", default="htad", metavar="NAME", help="htad, digits, or a prepared folder")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[2], help="one run of every row per seed")
    parser.add_argument("--epochs", type=positive_int, help="epochs of every run (default: the scripts' own)")
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder of embedded data and of the runs")
    return parser


def main(argv=None):
    """Run every row for every seed; print the table and write it beside the runs."""
    args = get_args_parser().parse_args(argv)
    limit_threads(1)
    out = Path(args.out) / Path(args.data).name
    datadir = out / "dataset" if args.data in EMBEDDED else Path(args.data)
    if args.data in EMBEDDED and not (datadir / "own.json").exists():
        prepare_own(["--embedded", args.data, *EMBEDDED[args.data], "--out", str(datadir)])
    manifest = read_manifest(datadir)
    if manifest.label.kind != "class":
        raise UserError(f"--data {args.data}: the label {manifest.label.name} is not one class; prepare it as a class")
    shared = ["--datadir", str(datadir), "--out_dir", str(out / "runs")]
    shared += ["--epochs", str(args.epochs)] if args.epochs else []
    runs = [run_rows(manifest, [*shared, "--seed", str(seed)]) for seed in args.seeds]
    table = format_table(manifest, args.seeds, runs, logistic_regression(manifest, datadir))
    write_text(out / "table.md", table)
    write_text(out / "table.json", json_text(runs, indent=2, default=str) + "\n")
    print(f"\n{table}")
    print_closing(out / "table.md", runs[-1]["search"]["folder"], OWN)
    return runs


def run_rows(manifest, shared):
    """Results of all rows for one seed: row name -> result."""
    results = {}
    for name in manifest.modalities:
        say(f"{name} alone")
        results[f"{name} alone"] = unimodal.main([*shared, "--modality", name])
    rows = {
        "late fusion": ["--fusion", "late"],
        "concatenation + MLP": ["--fusion", "concat"],
        "random genotype": ["--genotype", "random"],
    }
    for row, flags in rows.items():
        say(row)
        results[row] = found.main([*shared, *flags])
    say("search")
    results["search"] = search.main(shared)
    say("training of what the search found")
    results["searched genotype"] = found.main([*shared, "--search_exp_dir", results["search"]["folder"]])
    return results


def logistic_regression(manifest, datadir):
    """Test accuracy of scikit-learn's logistic regression on all numbers together; None if there are other inputs."""
    if any(modality.kind != "vector" for modality in manifest.modalities.values()):
        return None
    from sklearn.linear_model import LogisticRegression

    inputs, labels = {}, {}
    for split in ("train", "test"):
        data = open_own(datadir, split)
        batch = data.read(range(len(data)))
        inputs[split] = np.concatenate([batch[name].numpy() for name in manifest.modalities], axis=1)
        labels[split] = batch["label"].numpy()
    model = LogisticRegression(max_iter=5000).fit(inputs["train"], labels["train"])
    return float(model.score(inputs["test"], labels["test"]))


def say(text):
    """Name the part that comes next."""
    print(f"\n== {text}", flush=True)


def format_table(manifest, seeds, runs, linear):
    """The table as Markdown."""
    kind = "synthetic" if manifest.synthetic else "real"
    lines = [
        f"{manifest.name} ({kind}), {manifest.splits['test']:,} test samples, seeds {', '.join(map(str, seeds))}.",
        "",
        "| network | accuracy on test | seconds of a run |",
        "|---|---|---|",
    ]
    for row in (row for row in runs[0] if row != "search"):
        scores = [100 * run[row]["metrics"]["test"][SCORE] for run in runs]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        seconds = statistics.mean(run[row]["seconds"] for run in runs)
        searching = statistics.mean(run["search"]["seconds"] for run in runs)
        before = f" (search: {searching:.0f})" if "searched" in row else ""
        lines.append(f"| {row} | {statistics.mean(scores):.2f}{spread} | {seconds:.0f}{before} |")
        if linear is not None and row == f"{list(manifest.modalities)[-1]} alone":
            lines.append(f"| logistic regression on all numbers | {100 * linear:.2f} | - |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
