"""Compares search strategies on the tables of benchmarks/fusion_bench, each with a random search of equal cost.

  python benchmarks/compare_strategies.py                       # 3 tables, 5 seeds; 90 searches, some minutes
  python benchmarks/compare_strategies.py --sets htad --seeds 3 --strategies random evolution naswot    # seconds

Searches on the data of easy_vqa need the two pretrained encoders of docs/own_data.md once, for the features.
Cost is in processor seconds, which other work on the machine hardly changes; that of the scores before training is in
seconds by the clock, as the table has it. A search on the data (published, gdas, ...) is run and timed; a training
costs what main_darts_found_own.py takes for one network alone, measured here too (median of three). The random search
of equal cost has as many trainings as the strategy's seconds pay for, at least one, and takes the best on dev; its
result is the mean of --repeats such searches. Both see the same encoders and the same seed of trainings, so that
differences are paired; p is that of the sign-flip test, two-sided. Interrupted, the same command goes on.
"""

import itertools
import random
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bench_strategies import (  # noqa: E402
    BLACK_BOXES,
    ONE_SHOT,
    PERTURBATION,
    ZERO_COST,
    run_strategy,
    seconds_of,
    timed,
)
from benchmarks.fusion_bench import SETS, FusionBench  # noqa: E402
from engine.arguments import RecipeParser, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402
from util.files import json_text, write_text  # noqa: E402

SEARCHES = ("published", f"published{PERTURBATION}", "second-order", "gdas", "drnas", "random-shared")
ALL = (*BLACK_BOXES, *ZERO_COST, *SEARCHES)
LONE = 3  # trainings that are timed
EXACT, DRAWS = 14, 20_000


def get_args_parser():
    """Flags of the comparison."""
    parser = RecipeParser(__doc__)
    parser.add_argument(
        "--sets", nargs="+", default=list(SETS), metavar="NAME", help="htad, digits, easy_vqa, or tables' paths"
    )
    parser.add_argument("--strategies", nargs="+", default=list(ALL), metavar="NAME", help="as in fusion_bench.py")
    parser.add_argument("--seeds", type=positive_int, default=5, metavar="N", help="searches of each strategy")
    parser.add_argument("--budget", type=positive_int, default=50, help="trainings of random and evolution")
    parser.add_argument("--repeats", type=positive_int, default=100, help="random searches that are averaged")
    parser.add_argument("--threads", type=positive_int, default=1, help="threads of this process")
    parser.add_argument("--data", default="demo/fusion_bench", metavar="DIR", help="data, encoders and searches")
    return parser


def main(argv=None):
    """Run everything, print the tables and write them into ``--data``; returns set -> rows."""
    args = get_args_parser().parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    results = {}
    for name in args.sets:
        bench = FusionBench(name)
        searched = any(strategy.removesuffix(PERTURBATION) in ONE_SHOT for strategy in args.strategies)
        lone = lone_seconds(bench, args.data) if searched else None
        rows = [compare(strategy, bench, args, lone) for strategy in args.strategies]
        results[bench.name] = rows
        text = format_table(bench, rows, args, lone)
        write_text(Path(args.data) / f"comparison-{bench.name}.md", text)
        write_text(Path(args.data) / f"comparison-{bench.name}.json", json_text(rows, indent=1) + "\n")
        print(f"\n{text}", flush=True)
    return results


def lone_seconds(bench, data):
    """Median processor seconds of a training by main_darts_found_own.py, one network at a time."""
    import main_darts_found_own as found
    from benchmarks.make_fusion_bench import fusion_flags

    seconds = []
    for number in range(LONE):
        out = Path(data) / bench.name / "alone" / str(number)
        if seconds_of(out) is None:
            genotype = bench.genotypes[(2 * number + 1) * len(bench.genotypes) // (2 * LONE)]
            genotype.save(out / "genotype.json")
            flags = fusion_flags(bench.name, data, bench.seeds[0])
            timed(out, found.main, [*flags, "--genotype", str(out / "genotype.json"), "--out_dir", str(out)])
        seconds.append(seconds_of(out))
    return statistics.median(seconds)


def compare(strategy, bench, args, lone):
    """A row: outcomes of a strategy over the seeds, and those of the random search that costs as much."""
    outcomes = [run_strategy(strategy, bench, seed, args.budget, args.data) for seed in range(args.seeds)]
    trainings = equal_trainings(strategy, bench, outcomes, args.budget, lone)
    known = {}
    for seed in range(args.seeds):
        own = seed % len(bench.seeds)
        if own not in known:
            # Seeds of the searches that start at 1,000 are none of a strategy's, and see the same trainings.
            start = 1000 * len(bench.seeds) + own
            repeats = range(start, start + args.repeats * len(bench.seeds), len(bench.seeds))
            known[own] = statistics.mean(run_strategy("random", bench, r, trainings, None)["test"] for r in repeats)
    randoms = [known[seed % len(bench.seeds)] for seed in range(args.seeds)]
    differences = [100 * (outcome["test"] - other) for outcome, other in zip(outcomes, randoms, strict=True)]
    best = bench.query(bench.best)["test"]
    return {
        "strategy": strategy,
        "regret": [outcome["regret"] for outcome in outcomes],
        "rank": [outcome["rank"] for outcome in outcomes],
        "tau": [outcome["tau"] for outcome in outcomes if outcome["tau"] is not None],
        "trainings": trainings,
        "seconds": cost_seconds(strategy, bench, outcomes, args.budget, lone),
        "random_regret": 100 * (best - statistics.mean(randoms)),
        "differences": differences,
        "p": sign_flip(differences),
    }


def cost_seconds(strategy, bench, outcomes, budget, lone):
    """Median processor seconds of a search; None if it is unknown, since no training was timed."""
    if strategy in ZERO_COST:
        if strategy in ("parameters", "flops"):
            return 0.0
        return statistics.median(bench.zero_cost_seconds(seed) for seed in bench.seeds)
    if strategy.removesuffix(PERTURBATION) in ONE_SHOT:
        known = [outcome["seconds"] for outcome in outcomes if outcome["seconds"] is not None]
        return statistics.median(known) if known else None
    return budget * lone if lone else None


def equal_trainings(strategy, bench, outcomes, budget, lone):
    """Trainings of the random search that costs as much as a strategy."""
    searched = strategy.removesuffix(PERTURBATION) in ONE_SHOT
    if not searched and strategy not in ZERO_COST:
        return budget
    seconds = cost_seconds(strategy, bench, outcomes, budget, lone)
    return max(1, round(seconds / lone)) if lone and seconds else 1


def sign_flip(differences):
    """Two-sided p of the sign-flip test of n paired differences: at least 2 / 2^n; exact up to `EXACT`, else drawn."""
    observed, count = abs(sum(differences)) - 1e-12, len(differences)
    signs = itertools.product((1, -1), repeat=count)
    if count > EXACT:
        rng = random.Random(0)
        # The observed signs are one of the draws, so that p is never 0.
        signs = itertools.chain([(1,) * count], (rng.choices((1, -1), k=count) for _ in range(DRAWS)))
    extreme = [abs(sum(s * d for s, d in zip(own, differences, strict=True))) >= observed for own in signs]
    return sum(extreme) / len(extreme)


def spread(values, digits=2):
    """Mean ± standard deviation, as text."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def format_table(bench, rows, args, lone):
    """The rows as Markdown."""
    alone = f", one training alone {lone:.1f} processor seconds" if lone else ""
    lines = [
        f"{bench.name}: {len(bench.genotypes)} networks, best mean test accuracy "
        f"{100 * bench.query(bench.best)['test']:.2f} %, {args.seeds} seeds{alone}.",
        "",
        "| strategy | seconds | regret | rank | tau | random: trainings | its regret | gain over it | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
        cells = [row["strategy"], seconds, spread(row["regret"]), spread(row["rank"], 0), spread(row["tau"])]
        cells += [str(row["trainings"]), f"{row['random_regret']:.2f}", spread(row["differences"]), f"{row['p']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
