"""A tabular benchmark of multimodal fusion: search strategies on networks that are already trained.

  python benchmarks/fusion_bench.py                                        # random, 10 seeds, all tables; seconds
  python benchmarks/fusion_bench.py --strategy evolution --budget 50 --seeds 20
  python benchmarks/fusion_bench.py --strategy published --data demo/fusion_bench   # a search on the data, minutes
  python benchmarks/fusion_bench.py --strategy my_module:MyStrategy        # your own: a BlackBox, or a Relaxation
  python benchmarks/fusion_bench.py --describe                             # how well the tables distinguish networks

A strategy sees the dev scores of one training of each network. The network that it chooses is judged by the mean test
accuracy of all its trainings. In Python: FusionBench, see benchmarks/fusion_bench/README.md.
"""

import math
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, positive_int  # noqa: E402
from metrics.ranking import kendall_tau  # noqa: E402
from models.bmnas.equivalence import canonical  # noqa: E402
from models.bmnas.genotype_space import FusionSpace  # noqa: E402
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS  # noqa: E402
from models.genotypes import FusionGenotype  # noqa: E402
from util.cli import UserError, run_cli  # noqa: E402
from util.files import read_json  # noqa: E402

TABLES = Path(__file__).resolve().parent / "fusion_bench"
SETS = ("htad", "digits", "easy_vqa")
# Errors that a damaged or edited table leads to.
_DAMAGE = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError)


class FusionBench:
    """A table: every network of a small BM-NAS space, trained with several seeds.

    Args:
        name: ``htad``, ``digits``, ``easy_vqa``, or the path of a table.

    Attributes:
        genotypes: All networks, without repeats, as canonical genotypes (`models.bmnas.equivalence`).
        space: Their `FusionSpace`; all of its genotypes can be queried.
        seeds: Seeds of the trainings.
        about: The table's data sheet: data, licence, recipe, versions.

    Raises:
        UserError: There is no such table, or it is damaged.
    """

    def __init__(self, name="htad"):
        path = TABLES / f"{name}.json" if name in SETS else Path(name)
        table = read_json(path)
        if not isinstance(table, dict) or table.get("format") != "fusion bench":
            raise UserError(f"{path} is not a table of benchmarks/make_fusion_bench.py; use {', '.join(SETS)}")
        try:
            self._take(table)
        except _DAMAGE as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}); restore the file") from None

    def _take(self, table):
        """Set the attributes from a table; raises an error if a number in it is not finite."""
        rows = table.pop("genotypes")
        self.name, self.about, self.seeds = table["set"], table, list(table["seeds"])
        self.genotypes = [FusionGenotype.from_dict(row["genotype"]) for row in rows]
        self._rows = dict(zip(self.genotypes, rows, strict=True))
        self._means = {genotype: self.query(genotype) for genotype in self.genotypes}
        for own in (self.query(genotype, seed) for genotype in self.genotypes for seed in self.seeds):
            if not all(map(math.isfinite, [*own.pop("dev_curve"), *own.values()])):
                raise ValueError("a number is not finite")
        first = self.genotypes[0]
        self.space = FusionSpace(PUBLISHED_STEP_OPERATIONS, first.num_inputs, first.sizes(), table["features"])

    def query(self, genotype, seed=None):
        """Look up the training of a genotype with one seed of `seeds`; without a seed, the means over all seeds.

        Returns:
            dict of ``dev`` and ``test`` accuracy in the epoch with the best dev accuracy, this ``epoch``, ``seconds``
            on the machine of the table, ``parameters`` and ``flops``; with a seed also ``dev_curve``, dev by epoch.

        Raises:
            KeyError: The genotype is not in this space.
            UserError: The table has no such seed.
        """
        row = self._row(genotype)
        fixed = {name: row[name] for name in ("parameters", "flops")}
        if seed is not None:
            if seed not in self.seeds:
                raise UserError(f"the table {self.name} has the seeds {self.seeds}, not {seed}")
            return {**fixed, **self._training(row["runs"][str(seed)])}
        runs = [self._training(run) for run in row["runs"].values()]
        return {**fixed, **{key: statistics.mean(run[key] for run in runs) for key in runs[0] if key != "dev_curve"}}

    def zero_cost(self, genotype, seed):
        """Scores of the untrained network, a dict: parameters, flops, gradient_norm, synflow, naswot."""
        row = self._row(genotype)
        return {"parameters": row["parameters"], "flops": row["flops"], **row["runs"][str(seed)]["zero_cost"]}

    def zero_cost_seconds(self, seed):
        """Seconds of one of gradient_norm, synflow and naswot for all networks: a third of those of all three."""
        return sum(row["runs"][str(seed)]["zero_cost_seconds"] for row in self._rows.values()) / 3

    @property
    def best(self):
        """The genotype with the best mean test accuracy."""
        return max(self.genotypes, key=lambda genotype: self._means[genotype]["test"])

    def regret(self, genotype):
        """Best mean test accuracy minus that of ``genotype``, in percentage points."""
        return 100 * (self._means[self.best]["test"] - self.query(genotype)["test"])

    def rank(self, genotype):
        """1 + number of networks with a better mean test accuracy."""
        own = self.query(genotype)["test"]
        return 1 + sum(other["test"] > own for other in self._means.values())

    def tau(self, scores):
        """Kendall's tau-b between scores (genotype -> number, larger is better) and mean test accuracies."""
        return kendall_tau(list(scores.values()), [self._means[canonical(genotype)]["test"] for genotype in scores])

    def _row(self, genotype):
        try:
            return self._rows[canonical(genotype)]
        except (KeyError, ValueError):
            raise KeyError(f"{genotype} is not in the table {self.name}") from None

    def _training(self, run):
        samples = self.about["samples"]
        curve = [correct / samples["dev"] for correct in run["dev"]]
        test = run["test"] / samples["test"]
        facts = {"dev": curve[run["epoch"]], "test": test, "epoch": run["epoch"], "seconds": run["seconds"]}
        return {**facts, "dev_curve": curve}


def get_args_parser():
    """Flags of the bench."""
    parser = RecipeParser(__doc__)
    parser.add_argument(
        "--strategy",
        default="random",
        metavar="NAME",
        help="random or evolution (trainings are looked up); parameters, flops, gradient_norm, synflow or naswot (the "
        "network with the best score); published, gdas, drnas, random-shared or second-order (searches on the data; "
        "+perturbation after the name: derive by perturbation); or module:Class for your own: a black box, or a "
        "relaxation, which searches on the data",
    )
    parser.add_argument(
        "--sets", nargs="+", default=list(SETS), metavar="NAME", help="htad, digits, easy_vqa, or tables' paths"
    )
    parser.add_argument("--seeds", type=positive_int, default=10, metavar="N", help="searches with the seeds 0 to N-1")
    parser.add_argument("--budget", type=positive_int, default=50, help="trainings of a black box")
    parser.add_argument("--data", default="demo/fusion_bench", metavar="DIR", help="data and encoders of searches")
    parser.add_argument("--describe", action="store_true", help="only print the spread and noise of the tables")
    return parser


def main(argv=None):
    """Run a strategy on the tables; returns set -> list of outcomes."""
    args = get_args_parser().parse_args(argv)
    if args.describe:
        return {name: describe(FusionBench(name)) for name in args.sets}
    from benchmarks.bench_strategies import run_strategy

    results = {}
    for name in args.sets:
        bench = FusionBench(name)
        outcomes = [run_strategy(args.strategy, bench, seed, args.budget, args.data) for seed in range(args.seeds)]
        results[bench.name] = outcomes
        print(f"{bench.name}: {args.strategy}, {args.seeds} seeds, {len(bench.genotypes)} networks")
        for key, what in {
            "regret": "regret, points of test accuracy",
            "rank": "rank",
            "tau": "Kendall's tau of its scores",
            "trainings": "trainings",
            "seconds": "seconds (of the table's machine, if looked up)",
        }.items():
            values = [outcome[key] for outcome in outcomes if outcome[key] is not None]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                print(f"  {what}: {statistics.mean(values):.2f} ± {spread:.2f}")
    return results


def describe(bench):
    """Print the spread of a table's networks and the noise of its seeds; returns a dict in percentage points."""
    if min(len(bench.genotypes), len(bench.seeds)) < 2:
        raise UserError(f"the table {bench.name} needs two networks and two seeds to measure their spread")
    tests = [[100 * bench.query(genotype, seed)["test"] for seed in bench.seeds] for genotype in bench.genotypes]
    means = [statistics.mean(own) for own in tests]
    noise = statistics.mean(statistics.variance(own) for own in tests)
    by_seed = [dict(zip(bench.genotypes, column, strict=True)) for column in zip(*tests, strict=True)]
    # All networks of a seed share its encoders, so a seed shifts the scores of all of them together.
    shifts = [statistics.mean(own.values()) for own in by_seed]
    own = [[value - shift for value, shift in zip(row, shifts, strict=True)] for row in tests]
    chosen = [max(bench.genotypes, key=lambda g, s=seed: bench.query(g, s)["dev"]) for seed in bench.seeds]
    facts = {
        "networks": len(means),
        "seeds": len(bench.seeds),
        "best": max(means),
        "mean": statistics.mean(means),
        "worst": min(means),
        "deviation between networks": statistics.stdev(means),
        "deviation between seeds": noise**0.5,
        "the same without the shift of all networks": statistics.mean(map(statistics.variance, own)) ** 0.5,
        "tau of one seed's dev and the mean test": statistics.mean(
            bench.tau({g: bench.query(g, seed)["dev"] for g in bench.genotypes}) for seed in bench.seeds
        ),
        "regret of the best on dev of one seed": statistics.mean(map(bench.regret, chosen)),
        "seconds of a training": statistics.mean(bench.query(g)["seconds"] for g in bench.genotypes),
    }
    print(f"{bench.name}: test accuracy")
    for name, value in facts.items():
        print(f"  {name}: {value:.2f}" if isinstance(value, float) else f"  {name}: {value}")
    return facts


if __name__ == "__main__":
    run_cli(main)
