"""Compares MMNas' search strategies with random searches of equal cost, on small sets of questions about pictures.

  python benchmarks/compare_mmnas.py                        # 2 sets, 5 seeds: about 30 minutes of one thread
  python benchmarks/compare_mmnas.py --sets hard-scenes --seeds 2 --strategies published gdas

easy-vqa (real) is cut to 150 pictures per split; hard-scenes is synthetic (make_demo.py scenes --level hard). Every
architecture that a strategy selects is trained from scratch for 8 epochs and evaluated on test.

The random search of equal cost trains as many architectures as the strategy costs: not always a whole number
(benchmarks/equal_cost.py), at least one and at most --budget. It selects by val. Its accuracy is the mean over all ways
to choose that many of the --budget architectures that `random` trains. The cost of a search is its processor seconds
divided by the mean of these trainings for the same seed, which run within the same minutes; median over the seeds. Each
search is paired with that mean for its own seed, and p is that of the two-sided sign-flip test of these differences.

All trainings and searches are stored under --data. An interrupted comparison continues with the same command.
"""

import math
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bench_strategies import ZERO_COST  # noqa: E402
from benchmarks.equal_cost import (  # noqa: E402
    at_least_one,
    best_of,
    expected,
    sign_flip,
    spread,
    trainings_text,
)
from benchmarks.mmnas_bench import (  # noqa: E402
    BLACK_BOXES,
    REFERENCES,
    SEARCHES,
    SETS,
    SeedBench,
    lone_seconds,
    run_strategy,
)
from engine.arguments import RecipeParser, positive_int  # noqa: E402
from util.cli import UserError, run_cli  # noqa: E402
from util.files import json_text, write_text  # noqa: E402

ALL = (*REFERENCES, *BLACK_BOXES, *ZERO_COST, *SEARCHES)


def get_args_parser():
    """Flags of the comparison."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS), help="data")
    parser.add_argument("--strategies", nargs="+", default=list(ALL), metavar="NAME", help="of: " + ", ".join(ALL))
    parser.add_argument("--seeds", type=positive_int, default=5, metavar="N", help="searches of each strategy")
    parser.add_argument("--budget", type=positive_int, default=6, help="trainings of random and evolution")
    parser.add_argument("--epochs", type=positive_int, help="epochs of every search and training, for a quick try")
    parser.add_argument("--threads", type=positive_int, default=1, help="threads of this process")
    parser.add_argument("--data", default="demo/mmnas_bench", metavar="DIR", help="data, trainings and searches")
    return parser


def main(argv=None):
    """Run everything, print the tables and write them into ``--data``; returns set -> rows."""
    args = get_args_parser().parse_args(argv)
    if wrong := [name for name in args.strategies if name not in ALL]:
        raise UserError(f"--strategies {wrong[0]}: known are {', '.join(ALL)}")
    import torch

    torch.set_num_threads(args.threads)
    seeds = range(args.seeds)
    benches = {name: [SeedBench(name, seed, args.data, args.epochs) for seed in seeds] for name in args.sets}
    # All strategies of a seed run before the next seed, so that an interrupted run has complete seeds.
    outcomes = {
        (name, strategy, seed): run_strategy(strategy, benches[name][seed], args.budget)
        for seed in seeds
        for name in args.sets
        for strategy in args.strategies
    }
    results = {}
    for name, own in benches.items():
        lone = lone_seconds(own, args.budget)
        rows = [
            compare(strategy, own, [outcomes[name, strategy, seed] for seed in seeds], args.budget)
            for strategy in args.strategies
        ]
        results[name] = rows
        text = format_table(name, rows, args, lone)
        write_text(Path(args.data) / f"comparison-{name}.md", text)
        write_text(Path(args.data) / f"comparison-{name}.json", json_text(rows, indent=1) + "\n")
        print(f"\n{text}", flush=True)
    return results


def compare(strategy, benches, outcomes, budget):
    """A row of the table: the results of a strategy with every seed, and those of a random search of equal cost."""
    seconds = statistics.median(outcome["seconds"] for outcome in outcomes)
    costs = [
        outcome["seconds"] / lone_seconds([bench], budget) for bench, outcome in zip(benches, outcomes, strict=True)
    ]
    trainings = budget if strategy in BLACK_BOXES else min(budget, at_least_one(statistics.median(costs)))
    randoms = [expected_test(bench, trainings, budget) for bench in benches]
    tests = [100 * outcome["test"] for outcome in outcomes]
    differences = [own - 100 * other for own, other in zip(tests, randoms, strict=True)]
    taus = [outcome["tau"] for outcome in outcomes]
    return {
        "strategy": strategy,
        "architectures": [str(outcome["genotype"]) for outcome in outcomes],
        "test": tests,
        "tau": [tau for tau in taus if tau is not None and not math.isnan(tau)],
        "seconds": seconds,
        "trainings": trainings,
        "random_test": [100 * other for other in randoms],
        "differences": differences,
        "p": sign_flip(differences),
    }


def expected_test(bench, count, budget):
    """Expected test accuracy of the best on val of ``count`` of the ``budget`` trainings of ``random``."""
    found = [bench.query(architecture) for architecture in bench.draws(budget)]
    return expected(best_of([(one["dev"], one["test"]) for one in found], count))


def format_table(name, rows, args, lone):
    """The rows as Markdown."""
    lines = [
        f"{name}: 256 architectures, {args.seeds} seeds, one training {lone:.1f} processor seconds.",
        "",
        "| strategy | seconds | test accuracy | tau | random: trainings | its accuracy | gain over it | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = args.budget * lone if row["strategy"] in BLACK_BOXES else row["seconds"]
        cells = [row["strategy"], f"{seconds:.1f}", spread(row["test"]), spread(row["tau"])]
        # Random is not compared with itself.
        gain = ["-", "-"] if row["strategy"] == "random" else [spread(row["differences"]), f"{row['p']:.3f}"]
        cells += [trainings_text(row["trainings"]), f"{statistics.mean(row['random_test']):.2f}", *gain]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
