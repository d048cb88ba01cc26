"""Compares search strategies on the tables of benchmarks/fusion_bench, each with a random search of equal cost.

  python benchmarks/compare_strategies.py                       # 3 tables, 5 seeds; 90 searches, some minutes
  python benchmarks/compare_strategies.py --sets htad --seeds 3 --strategies random evolution naswot    # seconds

The first run on easy_vqa computes features, for which it needs the two pretrained encoders of docs/own_data.md.

Costs are measured in trainings: the processor seconds of a search on the data (published, gdas, ...), on one thread,
divided by those of a training of one network (main_darts_found_own.py) right after it, since other work on the machine
makes both slower; median over the seeds. Scores before training cost what they take for all networks, measured on 25
networks in the same way.

The random search of equal cost makes as many trainings: not always a whole number, but at least one
(benchmarks/equal_cost.py). It selects by dev. Its result is computed exactly from the table; only the strategy's
searches are sampled. Each of these is compared with the random search on the same trainings, those of one seed of the
table. The gain is the difference from its mean. p is two-sided: the probability that equally many random searches do at
least as well together. Scores before training involve no sampling and have no p. If --strategies has no search, nothing
is timed, and such scores count as one training. An interrupted comparison continues with the same command.
"""

import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bench_strategies import (  # noqa: E402
    BLACK_BOXES,
    PERTURBATION,
    ZERO_COST,
    is_search,
    made_folder,
    run_strategy,
    seconds_of,
    timed,
)
from benchmarks.equal_cost import (  # noqa: E402
    at_least_one,
    best_of,
    chance,
    expected,
    p_text,
    spread,
    trainings_text,
)
from benchmarks.fusion_bench import SETS, FusionBench  # noqa: E402
from engine.arguments import RecipeParser, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402
from util.files import json_text, read_json, write_json, write_text  # noqa: E402

SEARCHES = ("published", f"published{PERTURBATION}", "second-order", "gdas", "drnas", "random-shared")
ALL = (*BLACK_BOXES, *ZERO_COST, *SEARCHES)
LONE, SCORED, ROUNDS = 3, 25, 3  # networks whose trainings and scores before training are timed; how often scores are


def get_args_parser():
    """Flags of the comparison."""
    parser = RecipeParser(__doc__)
    parser.add_argument(
        "--sets", nargs="+", default=list(SETS), metavar="NAME", help="htad, digits, easy_vqa, or tables' paths"
    )
    parser.add_argument("--strategies", nargs="+", default=list(ALL), metavar="NAME", help="as in fusion_bench.py")
    parser.add_argument("--seeds", type=positive_int, default=5, metavar="N", help="searches of each strategy")
    parser.add_argument("--budget", type=positive_int, default=50, help="trainings of random and evolution")
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
        scores = score_costs(bench, args.data) if any(map(is_search, args.strategies)) else None
        rows = [compare(strategy, bench, args, scores) for strategy in args.strategies]
        results[bench.name] = rows
        text = format_table(bench, rows, args, scores and scores["lone"])
        write_text(Path(args.data) / f"comparison-{bench.name}.md", text)
        write_text(Path(args.data) / f"comparison-{bench.name}.json", json_text(rows, indent=1) + "\n")
        print(f"\n{text}", flush=True)
    return results


def training_after(what, turn, bench, data):
    """Processor seconds of a training of one network alone, which is made after ``what``, one of `LONE` by ``turn``."""
    import main_darts_found_own as found
    from benchmarks.make_fusion_bench import fusion_flags

    out = made_folder("alone", bench, data) / f"{what.replace(':', '-')}-{turn}"
    if seconds_of(out) is None:
        genotype = bench.genotypes[(2 * (turn % LONE) + 1) * len(bench.genotypes) // (2 * LONE)]
        genotype.save(out / "genotype.json")
        flags = fusion_flags(bench.name, data, bench.seeds[0])
        timed(out, found.main, [*flags, "--genotype", str(out / "genotype.json"), "--out_dir", str(out)])
    return seconds_of(out)


def score_costs(bench, data):
    """Costs of the scores before training, for all networks and the making of them included.

    Returns:
        dict of ``lone``, the processor seconds of one training alone, and score -> (processor seconds, trainings).
    """
    from benchmarks.make_fusion_bench import first_batch, open_training, untrained_nets, zero_cost_scores

    file = made_folder("alone", bench, data) / "scores.json"
    if not file.exists():
        task, args, loaders = open_training(bench.name, data, bench.seeds[0])
        batch, scores = first_batch(loaders), zero_cost_scores(task)
        genotypes = bench.genotypes[:: max(1, len(bench.genotypes) // SCORED)]
        lone, seconds = [], {name: [] for name in scores}
        for turn in range(ROUNDS):
            lone.append(training_after("scores", turn, bench, data))
            for name, score in scores.items():
                started = time.process_time()
                for genotype in genotypes:
                    score(untrained_nets(task, args, [genotype])[0], batch)
                seconds[name].append((time.process_time() - started) * len(bench.genotypes) / len(genotypes))
        write_json(file, {"lone": statistics.median(lone), **{name: _cost(own, lone) for name, own in seconds.items()}})
    return {"parameters": [0.0, 0.0], "flops": [0.0, 0.0], **read_json(file)}


def _cost(seconds, lone):
    """[median seconds, median of how many trainings they are]."""
    ratios = [own / one for own, one in zip(seconds, lone, strict=True)]
    return [statistics.median(seconds), statistics.median(ratios)]


def cost_of(strategy, bench, args, outcomes, scores):
    """Processor seconds of a strategy, None if they are unknown, and the trainings that cost as much, at least one."""
    if strategy in ZERO_COST:
        seconds, trainings = scores[strategy] if scores else (None, None)
        return seconds, at_least_one(trainings)
    if not is_search(strategy):
        return scores and args.budget * scores["lone"], args.budget
    seconds = [outcome["seconds"] for outcome in outcomes]
    if None in seconds:  # a search was killed when all but its seconds was there
        return None, at_least_one(None)
    lone = [training_after(strategy, seed, bench, args.data) for seed in range(args.seeds)]
    seconds, trainings = _cost(seconds, lone)
    return seconds, at_least_one(trainings)


def compare(strategy, bench, args, scores):
    """A row: outcomes of a strategy over the seeds, and of the random search that costs as much.

    Args:
        scores: See `score_costs`; None: nothing is timed.
    """
    outcomes = []
    for seed in range(args.seeds):
        outcomes.append(run_strategy(strategy, bench, seed, args.budget, args.data))
        if is_search(strategy):
            training_after(strategy, seed, bench, args.data)
    seconds, trainings = cost_of(strategy, bench, args, outcomes, scores)
    found = {seed: best_of(bench.drawable(seed), trainings) for seed in bench.seeds}
    randoms = [found[bench.seeds[seed % len(bench.seeds)]] for seed in range(args.seeds)]
    tests = [outcome["test"] for outcome in outcomes]
    means = [expected(own) for own in randoms]
    best = bench.query(bench.best)["test"]
    return {
        "strategy": strategy,
        "regret": [outcome["regret"] for outcome in outcomes],
        "rank": [outcome["rank"] for outcome in outcomes],
        "tau": [outcome["tau"] for outcome in outcomes if outcome["tau"] is not None],
        "trainings": trainings,
        "seconds": seconds,
        "random_regret": 100 * (best - statistics.mean(means)),
        "differences": [100 * (test - mean) for test, mean in zip(tests, means, strict=True)],
        "p": None if strategy in ZERO_COST else chance(tests, randoms, bench.unit),
    }


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
        cells += [trainings_text(row["trainings"]), f"{row['random_regret']:.2f}", spread(row["differences"])]
        cells += [p_text(row["p"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_cli(main)
