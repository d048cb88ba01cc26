"""Two small visual question answering tasks on which MMNas' search strategies are compared: data, trainings, scores.

A space of 2 encoder and 3 decoder blocks has 256 architectures. A training takes seconds, and its result is stored as a
JSON file, so no architecture is trained twice with one seed. The names of the folders of data, trainings, searches and
scores contain a hash of everything that affects them, including the code, so outdated results are never reused.
"""

import argparse
import dataclasses
import shutil
import statistics
import time
from pathlib import Path

from benchmarks.bench_strategies import CODE, ONE_SHOT, PERTURBATION, ZERO_COST, code_key
from search.black_box import Evolution, RandomTrainings
from util.cli import UserError
from util.code import module_digest
from util.files import json_text, read_json, write_json, write_text
from util.hashes import short_hash

# Flags of all trainings and searches.
NETWORK = ("--hsize", "64", "--enc_blocks", "2", "--dec_blocks", "3")
SHARED = ("--demo", *NETWORK, "--batchsize", "64", "--lr", "3e-3", "--word_vectors", "none", "--num_workers", "0")
SHARED = (*SHARED, "--device", "cpu")
TRAINING = ("--epochs", "8", "--lr_decay_epochs", "4", "6")
SEARCH = (*TRAINING, "--alpha_start", "3", "--alpha_every", "2")
# random-shared scores fewer architectures than by default, since the space is small.
OPTIONS = {"random-shared": ("--strategy_option", "draws=30")}
REFERENCES = ("mcan", "one random architecture")
SEARCHES = ("published", f"published{PERTURBATION}", "gdas", "random-shared")
BLACK_BOXES = {"random": {}, "evolution": {"population": 3, "tournament": 2}}
# Architectures that gradient_norm, synflow and naswot choose from.
SCORED = 32


@dataclasses.dataclass(frozen=True)
class BenchData:
    """Data of a comparison.

    Attributes:
        make: Flags of the script that makes them, without ``--out``.
        folder: Subfolder that contains the annotations.
    """

    make: tuple[str, ...]
    folder: str


SETS = {
    "easy-vqa": BenchData(("--small", "150"), "."),
    "hard-scenes": BenchData(("--level", "hard", "--train", "400", "--scored", "100", "--matched", "1"), "vqa"),
}


def prepare(name, out):
    """Make the data of a set in ``out`` if they are missing; returns the folder for ``--data``."""
    digest = module_digest(["datasets.make_demo", "datasets.prepare_easy_vqa", "datasets.prepare_vqa"], CODE)
    made = Path(out) / name / f"dataset-{short_hash(dataclasses.asdict(SETS[name]), digest)}"
    folder = made / SETS[name].folder
    if not (folder / "store" / "meta.json").exists():
        if name == "easy-vqa":
            from datasets.prepare_easy_vqa import main as make
            from datasets.prepare_vqa import main as pack

            make([*SETS[name].make, "--out", str(made)])
            pack(["--data", str(made), "--out", str(made / "store")])
        else:
            from datasets.make_demo import main as make

            make(["scenes", *SETS[name].make, "--out", str(made)])
    return folder


class SeedBench:
    """A set whose trainings have one seed, with the interface that `benchmarks.bench_strategies` expects.

    Args:
        name: A key of `SETS`.
        seed: Seed of trainings and searches.
        data: Folder for data, trainings and searches.
        epochs: Epochs of a training and a search; None: those of `TRAINING`.

    Attributes:
        space: The `ArchitectureSpace`.
    """

    def __init__(self, name, seed, data, epochs=None):
        import train_vqa
        from models.mmnas.architecture import ArchitectureSpace
        from tasks import vqa
        from tasks.mmnas import flags, networks

        if name not in SETS:
            raise UserError(f"--sets {name}: known are {', '.join(SETS)}")
        self.name, self.seed, self.task = name, seed, vqa.TASK
        self.out = Path(data) / name
        less = ("--epochs", str(epochs)) if epochs else ()
        self.flags = (*SHARED, "--data", str(prepare(name, data)), "--seed", str(seed))
        # In a quick try, architecture steps begin in the first epoch, since it may end before their usual start.
        quick = epochs and str(epochs) != TRAINING[1]
        self.search_flags = (*SEARCH, *less, *(("--alpha_start", "0") if quick else ()))
        argv = [*self.flags, *TRAINING, *less, "--ARCH_PATH", "mcan"]
        self.args = flags.parse_train(self.task, train_vqa.get_args_parser(), argv, train_vqa.DEMO)
        self.space = ArchitectureSpace(*networks.candidates(self.args), self.args.enc_blocks, self.args.dec_blocks)
        self.mcan = networks.find_architecture(self.args)
        self._recipe = (dataclasses.asdict(SETS[name]), SHARED, TRAINING, self.args.epochs, code_key(__name__))
        self.folder = self.out / f"trainings-{short_hash(*self._recipe)}"
        self._parts = None

    def query(self, architecture, _seed=None):
        """dict of ``dev`` (val) and ``test`` accuracy and processor ``seconds`` of a training; trains if necessary."""
        file = self.folder / f"{self.seed}-{short_hash(architecture.blocks())}.json"
        if not file.exists():
            write_text(file, json_text({"genotype": architecture.to_dict(), **self._train(architecture)}) + "\n")
            print(f"{self.name}, seed {self.seed}: {architecture}: {read_json(file)['test']:.4f}", flush=True)
        return read_json(file)

    def tau(self, scores):
        """Kendall's tau-b between scores (architecture -> number) and test accuracies; trains if necessary."""
        from metrics.ranking import kendall_tau

        return kendall_tau(list(scores.values()), [self.query(architecture)["test"] for architecture in scores])

    def draws(self, count):
        """The first ``count`` architectures that ``random`` proposes."""
        box = RandomTrainings(self.space, self.seed)
        for _ in range(count):
            box.tell(box.ask(), (0.0,))
        return [told.genotype for told in box.history]

    def search(self, strategy):
        """Architecture and processor seconds of a search by ``strategy``, which is run unless its result is stored."""
        name = strategy.removesuffix(PERTURBATION)
        derive = "perturbation" if strategy.endswith(PERTURBATION) else "argmax"
        flags = (*self.search_flags, "--strategy", name, "--derive", derive, *OPTIONS.get(name, ()))
        file = self.out / f"searches-{short_hash(*self._recipe, flags)}" / f"{strategy}-{self.seed}.json"
        if not file.exists():
            import search_vqa

            runs = file.with_suffix("")
            started = time.process_time()
            result = search_vqa.main([*self.flags, *flags, "--out_dir", str(runs)])
            seconds = time.process_time() - started
            write_json(file, {"genotype": result["genotype"], "seconds": round(seconds, 2)})
            shutil.rmtree(runs)
        found = read_json(file)
        return _architecture(found), found["seconds"]

    def zero_cost(self, name, count):
        """Zero-cost scores of ``count`` draws: (architecture -> number, processor seconds of all)."""
        from models.mmnas.cost import architecture_counts

        drawn = list(dict.fromkeys(self.draws(count)))
        if name in ("parameters", "flops"):
            return {one: architecture_counts(one, self.args.hsize)[name] for one in drawn}, 0.0
        file = self.folder / "zero_cost" / f"{self.seed}-{count}.json"
        if not file.exists():
            write_json(file, self._scores(drawn))
        rows = read_json(file)
        return dict(zip(drawn, rows[name], strict=True)), rows["seconds"][name]

    def _scores(self, drawn):
        """Name of a zero-cost score -> its values for the architectures; ``seconds``: name -> processor seconds."""
        from search.zero_cost import gradient_norm, naswot, synflow
        from util.nested import rows_of

        loader = self._open()["loader"]
        loader.batch_sampler.epoch = 0
        batch = next(iter(loader))
        first = rows_of(batch, 0, 1)
        makers = {
            "gradient_norm": lambda net: gradient_norm(net, self.task.loss(self.args), batch),
            "synflow": lambda net: synflow(net, first, ("regions",)),
            "naswot": lambda net: naswot(net, batch),
        }
        rows, seconds = {name: [] for name in makers}, dict.fromkeys(makers, 0.0)
        for architecture in drawn:
            net = self._training(architecture, compile=True).net  # plain form, whose layers keep samples separate
            for name, make in makers.items():
                started = time.process_time()
                rows[name].append(round(make(net), 5))
                seconds[name] += time.process_time() - started
        return rows | {"seconds": {name: round(value, 3) for name, value in seconds.items()}}

    def _open(self):
        """Data, loader and scorers of the trainings, opened once."""
        if self._parts is None:
            import torch

            from tasks.mmnas.data import build_loaders
            from tasks.mmnas.networks import build_precision

            run = argparse.Namespace(device=torch.device("cpu"), args=self.args, processes=1)
            data, precision = self.task.open_training(self.args), build_precision(self.args, run.device)
            loader = build_loaders(self.args, run, {"train": data["train"]}, drop_last=True)["train"]
            scorers = {s: self.task.build_scorer(self.args, run, data[s], precision, s) for s in ("val", "test")}
            self._parts = {"run": run, "data": data, "precision": precision, "loader": loader, "scorers": scorers}
        return self._parts

    def _training(self, architecture, **more):
        """The `ArchitectureTraining` of an architecture from scratch; ``more`` replaces values of arguments."""
        import torch

        from tasks.mmnas.networks import WORD_SIZE
        from tasks.mmnas.trainings import ArchitectureTraining

        parts, words = self._open(), torch.Generator().manual_seed(self.seed)
        words = torch.randn(len(self._parts["data"]["train"].vocabulary.words), WORD_SIZE, generator=words)
        # Only the last epoch is scored.
        args, scorer = argparse.Namespace(**{**vars(self.args), **more}), ("val", lambda net: {})
        shared = [parts[name] for name in ("run", "data")]
        return ArchitectureTraining(
            self.task, args, *shared, words, parts["loader"], parts["precision"], scorer, architecture
        )

    def _train(self, architecture):
        """Train completely, as the training scripts do; the last epoch is scored, as published."""
        started = time.process_time()
        training = self._training(architecture)
        for epoch in range(self.args.epochs):
            training.epoch(epoch)
        scorers = self._open()["scorers"]
        dev = scorers["val"](training.net)["accuracy"]
        seconds = time.process_time() - started
        scores = scorers["test"](training.net)
        kinds = {name: scores[name] for name in ("yes/no", "number", "other") if name in scores}
        costs = training.costs
        return {"dev": dev, "test": scores["accuracy"], **kinds, **costs, "seconds": round(seconds, 2)}


def run_strategy(name, bench, budget):
    """Run one search on a `SeedBench`.

    Args:
        name: One of `REFERENCES`, `BLACK_BOXES`, `SEARCHES` or `bench_strategies.ZERO_COST`.
        bench: The `SeedBench`.
        budget: Trainings of a black box.

    Returns:
        dict of the chosen ``genotype``, its ``test`` accuracy, ``tau`` of the strategy's scores (None if it has none),
        and processor ``seconds``.

    Raises:
        UserError: There is no such strategy.
    """
    from benchmarks.bench_strategies import black_box

    tau = None
    if name in REFERENCES:
        genotype, seconds = bench.mcan if name == "mcan" else bench.draws(1)[0], 0.0
    elif name in BLACK_BOXES:
        kind = {"random": RandomTrainings, "evolution": Evolution}[name]
        found = black_box(lambda space, seed: kind(space, seed, **BLACK_BOXES[name]), bench, bench.seed, None, budget)
        genotype, tau, seconds = found["genotype"], found["tau"], found["seconds"]
    elif name in ZERO_COST:
        # Scores at least the architectures that `random` trains: tau compares the scores with their accuracies.
        scores, seconds = bench.zero_cost(name, max(SCORED, budget))
        genotype = max(scores, key=scores.get)
        tau = bench.tau({one: scores[one] for one in dict.fromkeys(bench.draws(budget))})
    elif name.removesuffix(PERTURBATION) in ONE_SHOT:
        genotype, seconds = bench.search(name)
    else:
        known = ", ".join((*REFERENCES, *BLACK_BOXES, *SEARCHES, *ZERO_COST))
        raise UserError(f"--strategies {name}: known are {known}")
    return {"genotype": genotype, "test": bench.query(genotype)["test"], "tau": tau, "seconds": seconds}


def lone_seconds(benches, budget):
    """Mean processor seconds of a training."""
    return statistics.mean(bench.query(one)["seconds"] for bench in benches for one in bench.draws(budget))


def _architecture(found):
    from models.mmnas.architecture import Architecture

    return Architecture.from_dict(found["genotype"])
