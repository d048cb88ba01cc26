"""The result table for your own data: single modalities, baselines, random and searched fusions.

  python benchmarks/own_table.py                                  # two sensors of HTAD; `make demo` runs this first
  python benchmarks/own_table.py --data digits --seeds 0 1 2 3 4  # three views of a digit
  python benchmarks/own_table.py --data easy-vqa                  # pictures and questions, pretrained encoders
  python benchmarks/own_table.py --data data/films                # any prepared folder with one class as label

Every row is a run of the project's own scripts with their defaults: encoders start with random weights and are trained
with the fusion. The encoders of easy-vqa are pretrained and frozen (docs/own_data.md explains how to get them). The
embedded data sets are real, and their split is fixed; seeds only affect the training.
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
from datasets.own import read_manifest  # noqa: E402
from datasets.prepare_own import main as prepare_own  # noqa: E402
from engine.arguments import RecipeParser, non_negative_int, positive_int  # noqa: E402
from tasks import own, own_encoders  # noqa: E402
from tasks.bmnas.data import open_splits  # noqa: E402
from tasks.own_features import all_features  # noqa: E402
from util.cli import UserError, run_cli  # noqa: E402
from util.files import json_text, write_text  # noqa: E402
from util.processors import limit_threads  # noqa: E402

EMBEDDED = {"htad": (), "digits": ("--views", "fou,zer,mor"), "easy-vqa": ()}
# Flags of every run in addition to the scripts' defaults. A single shape needs few positions, and more samples need
# fewer epochs. All runs share the features that are stored on disk.
FLAGS = {
    "easy-vqa": (
        *("--encoder", "image=package:efficientnet-lite0", "question=package:all-MiniLM-L6-v2"),
        *("--L", "4", "--epochs", "10", "--cache_features", "disk"),
    )
}
SCORE = "accuracy"
OWN = (
    "datasets/prepare_own.py --table films.csv --image poster --text plot --label genre --out data/films",
    "main_darts_searchable_own.py --datadir data/films",
    "main_darts_found_own.py --search_exp_dir RUN_FOLDER_OF_THE_SEARCH",
)


def get_args_parser():
    """Flags of the table."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--data", default="htad", metavar="NAME", help="htad, digits, easy-vqa, or a prepared folder")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[2], help="one run of every row per seed")
    parser.add_argument("--epochs", type=positive_int, help="epochs of every run (default: the scripts' own)")
    parser.add_argument("--out", default="demo", metavar="DIR", help="folder of embedded data and of the runs")
    return parser


def main(argv=None):
    """Run every row for every seed; print the table and write it next to the runs."""
    args = get_args_parser().parse_args(argv)
    limit_threads(1)
    out = Path(args.out) / Path(args.data).name
    datadir = out / "dataset" if args.data in EMBEDDED else Path(args.data)
    if args.data in EMBEDDED and not (datadir / "own.json").exists():
        prepare_own(["--embedded", args.data, *EMBEDDED[args.data], "--out", str(datadir)])
    manifest = read_manifest(datadir)
    if manifest.label.kind != "class":
        raise UserError(f"--data {args.data}: the label {manifest.label.name} is not one class; prepare it as a class")
    shared = ["--datadir", str(datadir), "--out_dir", str(out / "runs"), *FLAGS.get(args.data, ())]
    shared += ["--epochs", str(args.epochs)] if args.epochs else []
    runs = [run_rows(manifest, [*shared, "--seed", str(seed)]) for seed in args.seeds]
    table = format_table(manifest, args.seeds, runs, logistic_regression(manifest, shared))
    write_text(out / "table.md", table)
    write_text(out / "table.json", json_text(runs, indent=2, default=str) + "\n")
    print(f"\n{table}")
    print_closing(out / "table.md", runs[-1]["search"]["folder"], OWN)
    return runs


def run_rows(manifest, shared):
    """Run all rows for one seed; returns row name -> result."""
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


def logistic_regression(manifest, shared):
    """Test accuracy of scikit-learn's logistic regression on all modalities together; None if it does not apply.

    Its inputs are the vectors in the data, or the standardised means over positions of all tapped features of
    pretrained encoders. It does not apply to other data with encoders that start with random weights.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    task, args = own.parse_found(found.get_args_parser(), [*shared, "--fusion", "late"], own.DEMO)
    vectors = all(modality.kind == "vector" for modality in manifest.modalities.values())
    if not vectors and not all(plan.starts_trained for plan in own_encoders.plans(args, manifest).values()):
        return None
    inputs, labels = {}, {}
    for split, data in open_splits(task, args, ("train", "test")).items():
        batch = data.read(range(len(data)), only=manifest.modalities if vectors else ())
        features = [batch[name].numpy() for name in manifest.modalities] if vectors else []
        for layers in [] if vectors else all_features(task, args, data).values():
            features += [layer.reshape(*layer.shape[:2], -1).mean(2) for layer in layers]
        inputs[split], labels[split] = np.concatenate(features, axis=1), batch["label"].numpy()
    model = LogisticRegression(max_iter=5000)
    model = model if vectors else make_pipeline(StandardScaler(), model)
    return float(model.fit(inputs["train"], labels["train"]).score(inputs["test"], labels["test"]))


def say(text):
    """Print the name of the part that comes next."""
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
