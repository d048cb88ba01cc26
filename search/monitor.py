"""What a search records in every epoch, when it stops, and its result.

The files about its architectures are written here: ``architectures/``, ``arch.json`` (MMNas), ``genotype.svg`` and
``probabilities.svg``. Only ``genotype.json`` comes from `engine.run.Run.finish_epoch`, which writes it with
``best.pth``, so that both are of the same epoch whenever a run is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from engine.report import scores_of
from engine.training import BestEpoch, fit, with_state
from search.probabilities import mean_entropy, probability_panels
from util.files import json_text
from util.plots import plot_probabilities

if TYPE_CHECKING:
    from engine.run import Run
    from models.bmnas.fusion_net import FusionNet
    from models.genotypes import FusionGenotype
    from models.mmnas.architecture import Architecture
    from models.mmnas.net import MultimodalNet
    from search.derive import Derivation
    from search.loops import EpochwiseSearch, InterleavedSearch

logger = logging.getLogger("mdarts")


class ArchitectureMonitor:
    """Records the state of a search: genotype, probabilities, entropies, signs of collapse, and whether to stop.

    Args:
        net: Network with ``genotype()``, its ``genotype_class``, and ``probabilities()`` (title -> row -> operation ->
            probability).
        collapse_warnings: (genotype, probabilities) -> list of warnings.
        patience: Stop after this many epochs without a change of the genotype; 0: never.
        start: First epoch (from 0) with architecture steps. Unchanged epochs before it do not count.
    """

    def __init__(
        self,
        net: FusionNet | MultimodalNet,
        collapse_warnings: Callable[[Any, dict[str, Any]], list[str]],
        patience: int = 0,
        start: int = 0,
    ) -> None:
        self.net, self.collapse_warnings, self.patience, self.start = net, collapse_warnings, patience, start
        # Number of consecutive epochs without a change, and of those among them that count towards patience.
        self.unchanged, self.waited = 0, 0
        self.genotype: Any = None

    def record(self, epoch: int) -> dict[str, Any]:
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
            "warnings": self.collapse_warnings(genotype, probabilities),
            "stable_epochs": self.unchanged,
            "stop": self._is_over(),
        }

    def _is_over(self):
        return bool(self.patience) and self.waited >= self.patience

    def reconsider(self, run: Run) -> None:
        """Let a resumed run continue although it had stopped, if its patience or number of epochs is larger now.

        Args:
            run: The restored `Run`. If it is ``longer`` than before, patience starts counting from zero.
        """
        if run.longer:
            self.waited = 0
        elif run.stopped:
            run.stopped = self._is_over()

    def state_dict(self) -> dict[str, Any]:
        """The last genotype, and the numbers of epochs without a change."""
        genotype = self.genotype.to_dict() if self.genotype else None
        return {"genotype": genotype, "unchanged": self.unchanged, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.genotype = self.net.genotype_class.from_dict(state["genotype"]) if state["genotype"] else None
        self.unchanged = state["unchanged"]
        self.waited = state.get("waited", self.unchanged)  # version 0.1.0 only had the first count


def save_architecture(run: Run, genotype: FusionGenotype | Architecture, epoch: int) -> None:
    """Draw the architecture of ``epoch`` into the run folder; one of MMNas also goes into ``arch.json``."""
    if run.is_main:
        title = genotype.keep_epoch(run.folder, epoch)
        run.write(f"architectures/epoch_{epoch}.svg", genotype.to_svg(title=title))


def run_search(
    run: Run,
    search_epoch: EpochwiseSearch | InterleavedSearch,
    monitor: ArchitectureMonitor,
    selection: BestEpoch,
    *,
    before_epoch: Callable[[int], dict[str, Any]] | None = None,
    scorers: Mapping[str, Callable[[Any], dict[str, float]]] | None = None,
    derivation: Derivation | None = None,
    measure: Callable[[Any], dict[str, Any]] | None = None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Search for ``run.args.epochs`` epochs, or until the monitor stops it; returns the content of ``result.json``.

    Each epoch is logged with its architecture. A search that is interrupted and resumed gives the same result.

    Args:
        run: The `Run`.
        search_epoch: `search.loops.EpochwiseSearch` or `search.loops.InterleavedSearch`.
        monitor: `ArchitectureMonitor` of the network.
        selection: `engine.training.BestEpoch` that chooses the epoch whose architecture is reported. A strategy whose
            logits are not trained always reports the last epoch.
        before_epoch: See `engine.training.train_network`.
        scorers: Name of a split -> function net -> scores. Applied to the derived architecture after every epoch.
        derivation: `search.derive.Derivation`; None: the largest probabilities of the selected epoch.
        measure: Architecture -> entries of the result about its cost, such as `models.bmnas.cost.fusion_cost`.
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
        # Without architecture steps the most probable candidates never change, so scoring them would be pointless.
        if scorers and relaxation.learns:
            relaxation.decide()
            record |= {split: score(net) for split, score in scorers.items()}
        record |= monitor.record(epoch)
        save_architecture(run, monitor.genotype, epoch)
        return record

    def best_state():
        return {"net": net.state_dict(), "genotype": monitor.genotype.to_dict()}

    fit(run, run.args.epochs, one_epoch, selection, best_state)
    best = run.load_best()
    genotype, told = _derived(run, net, relaxation, best, derivation)
    told |= measure(genotype) if measure else {}
    metrics = _scores(run, net, relaxation, best, scorers)
    return _search_result(run, selection, net, best, genotype, metrics, {**facts, **told})


def _derived(run, net, relaxation, best, derivation):
    """The genotype of a finished search, and entries of the result that describe its derivation."""
    if derivation is None or not derivation.is_needed(relaxation):
        return net.genotype_class.from_dict(best["genotype"]), {}
    genotype, told = derivation(run, net, relaxation, best)
    save_architecture(run, genotype, run.epoch)  # as that of the epoch after the last
    run.write("genotype.json", json_text(genotype.to_dict()) + "\n")
    return genotype, {"derivation": told}


def _scores(run, net, relaxation, best, scorers):
    """Scores of the selected epoch, and of the derived architecture if no epoch scored it."""
    metrics = scores_of(run.record_of(best["epoch"]))
    if scorers and not relaxation.learns:
        metrics |= {split: score(net) for split, score in scorers.items()}
    return metrics


def _search_result(run, selection, net, best, genotype, metrics, facts):
    """Draw the genotype, plot the probabilities, write the result and return it."""
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
            "metrics": metrics,
            "genotype": genotype.to_dict(),
            "parameters": net.count_parameters(),
            **facts,
        }
    )
