"""What a search reports of every epoch, when it may stop, and its result."""

import logging
import math

from engine.report import scores_of
from engine.training import BestEpoch, fit, with_state
from util.files import json_text
from util.plots import plot_probabilities

logger = logging.getLogger("mdarts")

# More lines than this in one panel of probabilities cannot be told apart.
MOST_LINES = 16


class ArchitectureMonitor:
    """What the search is doing: genotype, probabilities, entropies, collapse, and when to stop.

    Args:
        net: Has ``genotype()`` and ``probabilities()`` (title -> row -> operation -> probability).
        collapse: (genotype, probabilities) -> list of warnings, in words.
        patience: Stop after this many epochs without a change of the genotype; 0 never stops.
        start: The epoch, from 0, up to which standing still says nothing: architecture steps begin in it.
    """

    def __init__(self, net, collapse, patience=0, start=0):
        self.net, self.collapse, self.patience, self.start = net, collapse, patience, start
        # Epochs without a change: in a row, and of them those that patience counts.
        self.genotype, self.unchanged, self.waited = None, 0, 0

    def record(self, epoch):
        """Return the record of ``epoch``: genotype, probabilities, entropies, warnings, ``stable_epochs``, ``stop``."""
        genotype = self.net.genotype()
        same = genotype == self.genotype
        self.unchanged = self.unchanged + 1 if same else 0
        self.waited = min(self.waited + 1, max(0, epoch - self.start)) if same else 0
        logger.info("genotype%s: %s", " (unchanged)" if self.unchanged else "", genotype)
        self.genotype = genotype
        probabilities = self.net.probabilities()
        return {
            "genotype": genotype.to_dict(),
            "probabilities": probabilities,
            "entropy": {title: mean_entropy(rows) for title, rows in probabilities.items()},
            "warnings": self.collapse(genotype, probabilities),
            "stable_epochs": self.unchanged,
            "stop": self._is_over(),
        }

    def _is_over(self):
        return bool(self.patience) and self.waited >= self.patience

    def reconsider(self, run):
        """Let a resumed run go on that had stopped, where its patience is larger now or counts anew.

        Args:
            run: The `Run`, restored; one that was made ``longer`` counts from here.
        """
        if run.longer:
            self.waited = 0
        elif run.stopped:
            run.stopped = self._is_over()

    def state_dict(self):
        """Last genotype and how long it has stood."""
        genotype = self.genotype.to_dict() if self.genotype else None
        return {"genotype": genotype, "unchanged": self.unchanged, "waited": self.waited}

    def load_state_dict(self, state):
        """Continue from `state_dict`."""
        kind = type(self.net.genotype())
        self.genotype = kind.from_dict(state["genotype"]) if state["genotype"] else None
        self.unchanged = state["unchanged"]
        self.waited = state.get("waited", self.unchanged)  # version 0.1.0 had no other count


def save_architecture(run, genotype, epoch, title=None):
    """Draw the genotype of ``epoch`` into the run folder."""
    run.write(f"architectures/epoch_{epoch}.svg", genotype.to_svg(title=title or f"epoch {epoch}"))


def run_search(
    run,
    search_epoch,
    monitor,
    selection,
    *,
    before_epoch=None,
    scorers=None,
    keep=save_architecture,
    derivation=None,
    facts,
):
    """Search for ``run.args.epochs`` epochs, or until the monitor says stop; returns the result's dict.

    Each epoch is logged with its architecture, can be interrupted and is resumed to the same result.

    Args:
        run: The `Run`.
        search_epoch: `search.loops.EpochwiseSearch` or `search.loops.InterleavedSearch`.
        monitor: `ArchitectureMonitor` of the network.
        selection: `engine.training.BestEpoch` that chooses the epoch whose architecture counts. A strategy whose logits
            do not learn takes the last one.
        before_epoch: See `engine.training.train_network`.
        scorers: Split name -> function net -> scores of the derived architecture, after every epoch.
        keep: (run, architecture, epoch) writes an epoch's architecture into the run folder. What a derivation finds is
            written as that of the epoch after the last.
        derivation: `search.derive.Derivation`; None: the largest probabilities of the selected epoch.
        facts: Further entries of the result.
    """
    net, relaxation = monitor.net, search_epoch.relaxation
    if not relaxation.learns:
        selection = BestEpoch("last", None, "weights of the last epoch")
    tracked = {"weights": search_epoch.weights, "alphas": search_epoch.alphas, "watch": monitor, "selection": selection}
    if relaxation.generator is not None:
        tracked["paths"] = relaxation
    run.track(net=net.trainable_state(), **tracked, **with_state(before_epoch=before_epoch))
    monitor.reconsider(run)

    def one_epoch(epoch):
        record = before_epoch(epoch) if before_epoch else {}
        record |= search_epoch(epoch)
        if scorers:
            relaxation.decide()
            record |= {split: score(net) for split, score in scorers.items()}
        record |= monitor.record(epoch)
        keep(run, monitor.genotype, epoch)
        return record

    def best_state():
        return {"net": net.state_dict(), "genotype": monitor.genotype.to_dict()}

    fit(run, run.args.epochs, one_epoch, selection, best_state)
    best = run.load_best()
    genotype, told = _derived(run, net, relaxation, best, derivation, keep)
    return _search_result(run, selection, net, best, genotype, {**facts, **told})


def _derived(run, net, relaxation, best, derivation, keep):
    """The genotype of a finished search, and entries of the result that tell of its derivation."""
    if derivation is None or not derivation.is_needed(relaxation):
        return type(net.genotype()).from_dict(best["genotype"]), {}
    genotype, told = derivation(run, net, relaxation, best)
    keep(run, genotype, run.epoch)
    run.write("genotype.json", json_text(genotype.to_dict()) + "\n")
    return genotype, {"derivation": told}


def _search_result(run, selection, net, best, genotype, facts):
    """Draw the genotype, plot the probabilities and write the result; return the result."""
    record = run.record_of(best["epoch"])
    run.write("genotype.svg", genotype.to_svg(title=f"found in epoch {best['epoch']}"))
    if run.is_main:
        plot_probabilities(probability_panels(run.records()), run.folder / "probabilities.svg")
    logger.info("genotype of epoch %d: %s", best["epoch"], genotype)
    return run.write_result(
        {
            "kind": "search",
            "protocol": selection.explanation,
            "selected_epoch": best["epoch"],
            "epochs": run.epoch,
            "stopped_early": run.stopped,
            "metrics": scores_of(record),
            "genotype": genotype.to_dict(),
            "parameters": net.count_parameters(),
            **facts,
        }
    )


def mean_entropy(rows):
    """Mean entropy of the rows' distributions, in nats (log 2 for two undecided operations)."""
    entropies = [-sum(p * math.log(p) for p in row.values() if p > 0) for row in rows.values()]
    return sum(entropies) / len(entropies)


def probability_panels(records):
    """Arrange the probabilities of logged epochs for `util.plots.plot_probabilities`.

    A title whose rows would give more than `MOST_LINES` lines gets a panel for each row.
    """
    panels, epochs = {}, [record["epoch"] for record in records]

    def add(panel, label, title, row, name):
        series = panels.setdefault(panel, {"epochs": epochs, "series": {}})["series"]
        series[label] = [record["probabilities"][title][row][name] for record in records]

    for title, rows in records[-1]["probabilities"].items() if records else ():
        crowded = sum(map(len, rows.values())) > MOST_LINES
        for row, operations in rows.items():
            if "skip" in operations:
                add(f"{title} (skip)", row, title, row, "skip")
                continue
            for name in operations:
                whole = f"{row} {name}" if len(rows) > 1 else name
                add(f"{title}, {row}" if crowded else title, name if crowded else whole, title, row, name)
    return panels
