"""Runs search strategies on a table of benchmarks/fusion_bench.py: black boxes, zero-cost scores, one-shot searches."""

import dataclasses
import hashlib
import inspect
import json
import math
import time
from pathlib import Path

from search.black_box import Evolution, RandomTrainings
from search.relaxation import Relaxation
from search.strategies import black_box_class
from util.cli import UserError
from util.files import read_json, write_json
from util.registry import import_class, is_own

BLACK_BOXES = {"random": RandomTrainings, "evolution": Evolution}
ZERO_COST = ("parameters", "flops", "gradient_norm", "synflow", "naswot")
ONE_SHOT = ("published", "second-order", "gdas", "drnas", "random-shared")
PERTURBATION = "+perturbation"
COST = "cost.json"


def run_strategy(name, bench, seed, budget, data):
    """Run one search.

    Args:
        name: See ``--strategy`` of fusion_bench.py.
        bench: The `FusionBench`.
        seed: Seed of the search. It sees the trainings with the bench's seed number ``seed % number of seeds``.
        budget: Trainings of a black box.
        data: Folder of benchmarks/make_fusion_bench.py, for one-shot searches.

    Returns:
        dict of the chosen ``genotype``, its ``regret``, ``rank`` and mean ``test`` accuracy, Kendall's ``tau`` of the
        strategy's scores (None if it has none), and its cost: ``trainings`` and ``seconds`` (processor seconds for a
        one-shot search; None if they are unknown).

    Raises:
        UserError: There is no such strategy.
    """
    own = bench.seeds[seed % len(bench.seeds)]
    strategy = name.removesuffix(PERTURBATION)
    kind = BLACK_BOXES.get(name) or black_box_class(name)
    if kind is not None:
        found = black_box(kind, bench, seed, own, budget)
    elif name in ZERO_COST:
        found = _zero_cost(name, bench, own)
    elif strategy in ONE_SHOT or _is_own_search(strategy):
        found = _one_shot(name, bench, seed, own, data)
    else:
        known = ", ".join((*BLACK_BOXES, *ZERO_COST, *ONE_SHOT))
        raise UserError(
            f"--strategy {name}: known are {known}, and module:Class, derived from search.black_box.BlackBox or "
            "search.relaxation.Relaxation"
        )
    genotype = found["genotype"]
    judged = {"regret": bench.regret(genotype), "rank": bench.rank(genotype), "test": bench.query(genotype)["test"]}
    return {**found, **judged}


def _is_own_search(strategy):
    kind = import_class(strategy, "strategy") if is_own(strategy) else None
    return isinstance(kind, type) and issubclass(kind, Relaxation)


def _folder_name(name, seed):
    """Name of a search's folder; for your own strategy it contains a hash of the file, so that edits run it again."""
    strategy = name.removesuffix(PERTURBATION)
    if not is_own(strategy):
        return f"{name}-{seed}"
    path = inspect.getfile(import_class(strategy, "strategy"))
    return f"{name.replace(':', '-')}-{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]}-{seed}"


def black_box(kind, bench, seed, own, budget):
    """Run a search by trainings that are looked up in the table.

    Args:
        kind: (space, seed) -> `search.black_box.BlackBox`.
        bench: Has ``space``, ``query`` and ``tau`` like `FusionBench`.
        seed: Seed of the search.
        own: Seed of the trainings.
        budget: Number of trainings.

    Returns:
        dict of the best ``genotype`` on dev, ``tau`` of the dev scores, ``trainings`` and ``seconds``.
    """
    box, seen, seconds = kind(bench.space, seed), {}, 0.0
    for _ in range(budget):
        genotype = box.ask()
        training = bench.query(genotype, own)
        seen[genotype] = training["dev"]
        seconds += training["seconds"]
        box.tell(genotype, (training["dev"],))
    tau = bench.tau(seen) if len(seen) > 1 else None
    return {"genotype": max(seen, key=seen.get), "tau": tau, "trainings": budget, "seconds": seconds}


def _zero_cost(name, bench, own):
    scores = {genotype: bench.zero_cost(genotype, own)[name] for genotype in bench.genotypes}
    return {"genotype": max(scores, key=scores.get), "tau": bench.tau(scores), "trainings": 0, "seconds": None}


def _one_shot(name, bench, seed, own, data):
    import main_darts_searchable_own as search
    from benchmarks.make_fusion_bench import fusion_flags
    from models.genotypes import FusionGenotype

    strategy = name.removesuffix(PERTURBATION)
    out = Path(data) / bench.name / "searches" / _folder_name(name, seed)
    results = sorted(out.glob("search-*/result.json"))
    if not results:
        flags = [*fusion_flags(bench.name, data, own), "--out_dir", str(out), "--seed", str(seed)]
        derive = "perturbation" if name.endswith(PERTURBATION) else "argmax"
        made = timed(out, search.main, [*flags, "--strategy", strategy, "--derive", derive])
        results = [Path(made["folder"]) / "result.json"]
    result = read_json(results[0])
    # random-shared assigns probabilities only to its final choice.
    tau = None if strategy == "random-shared" else bench.tau(_log_probabilities(bench, results[0].parent, result))
    genotype = in_order(FusionGenotype.from_dict(result["genotype"]))
    return {"genotype": genotype, "tau": tau, "trainings": 0, "seconds": seconds_of(out)}


def timed(out, main, flags):
    """Run a script and record its processor seconds, which do not depend on other processes, in the folder ``out``."""
    started = time.process_time()
    result = main(flags)
    write_json(out / COST, {"processor_seconds": round(time.process_time() - started, 2)})
    return result


def seconds_of(out):
    """The processor seconds that `timed` recorded; None if there are none."""
    return read_json(out / COST)["processor_seconds"] if (out / COST).exists() else None


def in_order(genotype):
    """The genotype with the two features of every step in ascending order, as in the tables.

    Searches that draw paths may order them differently. Operations keep their arguments; only the feature of the
    residual connection changes.
    """
    edges, steps = [], []
    for number, step in enumerate(genotype.steps):
        pair = genotype.edges[2 * number : 2 * number + 2]
        if pair[0][1] > pair[1][1]:
            pair = pair[::-1]
            inner = tuple((name, 1 - state) for name, state in step.inner_edges)
            step = dataclasses.replace(step, inner_edges=inner)
        edges += pair
        steps.append(step)
    return dataclasses.replace(genotype, edges=tuple(edges), steps=tuple(steps))


def _log_probabilities(bench, folder, result):
    """Genotype -> log probability of its edges and operations after a search, with its steps in the likelier order."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record.get("epoch") == result["selected_epoch"]]
    tables = records[-1]["probabilities"]
    edges = [[row["skip"] for row in tables[f"alphas, step {k}"].values()] for k in (1, 2)]
    operations = [next(iter(tables[f"gammas, step {k}"].values())) for k in (1, 2)]

    def one(place, genotype, step):
        pair = genotype.edges[2 * step : 2 * step + 2]
        product = operations[place][genotype.steps[step].inner_steps[0]]
        for _, state in pair:
            product *= edges[place][state]
        return math.log(max(product, 1e-300))

    def score(genotype):
        return max(one(0, genotype, a) + one(1, genotype, b) for a, b in ((0, 1), (1, 0)))

    return {genotype: score(genotype) for genotype in bench.genotypes}
