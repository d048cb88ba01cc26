"""Runs a black-box search: candidates are trained one after the other, each for a few epochs of one run.

Epoch n of the run is epoch n % E of candidate n // E. A search can therefore be interrupted and resumed in the middle
of a training, like any other run.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from engine.report import scores_of
from engine.training import BestEpoch, DivergedError, fit
from search.pareto import sorted_fronts
from util.distributed import check_same_on_all_ranks
from util.files import json_text
from util.plots import plot_points

if TYPE_CHECKING:
    from engine.run import Run
    from search.black_box import BlackBox

logger = logging.getLogger("mdarts")

# JSON lines, one for each candidate that was trained.
FILE_NAME = "candidates.jsonl"
SCORE = "score"


class Training(Protocol):
    """The training of one candidate.

    Attributes:
        net: The network, with a method ``count_parameters``.
        costs: ``parameters`` and ``flops`` of the network.
    """

    net: Any
    costs: dict[str, int]

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch (from 0), score the network, and return name of the pass -> scores."""

    def measure(self) -> dict[str, Any]:
        """Entries of the result about the cost of the network."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainingSearch:
    """A black-box search. Calling it with the number of an epoch runs this epoch and returns its record.

    Args:
        black_box: Proposes genotypes, see `search.black_box`.
        start: Genotype -> a new `Training`. Equal genotypes must give equal trainings.
        read: Builds a genotype from the dict of its `to_dict`.
        epochs: Number of epochs E of each training.
        selection: The run's `engine.training.BestEpoch`, which names the ``split`` and the ``metric`` of the score.
        objectives: ``score``, optionally followed by some of `search.strategies.COSTS`, of which smaller is better.
    """

    def __init__(
        self,
        black_box: BlackBox,
        start: Callable[[Any], Training],
        read: Callable[[Any], Any],
        *,
        epochs: int,
        selection: BestEpoch,
        objectives: tuple[str, ...] = (SCORE,),
    ) -> None:
        self.black_box, self.start, self.read = black_box, start, read
        self.epochs, self.selection, self.objectives = epochs, selection, objectives
        # Records of the candidates whose training is finished, in order.
        self.candidates: list[dict[str, Any]] = []
        self.genotype: Any = None
        self.training: Any = None
        self._now: dict[str, Any] = {"running": False}

    def __call__(self, epoch: int) -> dict[str, Any]:
        started = time.perf_counter()
        number, own = divmod(epoch, self.epochs)
        if own == 0:
            self._begin()
            logger.info("candidate %d: %s", number, self.genotype)
        record: dict[str, Any] = {"candidate": number, "genotype": self.genotype.to_dict(), **self._epoch(own)}
        score = record[self.selection.split][self.selection.metric]
        best = self._now["score"]
        if own == 0 or (not math.isnan(score) and (math.isnan(best) or score > best)):
            self._now |= {"score": score, "epoch": own}
        self._now["seconds"] += time.perf_counter() - started
        if own + 1 == self.epochs:
            self._finish(number)
        return record

    def _begin(self):
        self.genotype = self.black_box.ask()
        check_same_on_all_ranks(self.genotype, "proposed genotypes")
        self.training = self.start(self.genotype)
        self._now = {"score": math.nan, "epoch": 0, "seconds": 0.0, "diverged": False, "running": True}

    def _epoch(self, own):
        """The record of an epoch. Once the loss is not finite, the score is NaN in all further epochs."""
        if not self._now["diverged"]:
            try:
                return self.training.epoch(own)
            except DivergedError as error:
                logger.warning("this candidate's training ends here, without a score: %s", error)
                self._now["diverged"] = True
        return {self.selection.split: {self.selection.metric: math.nan}}

    def _finish(self, number):
        found = {
            "candidate": number,
            "genotype": self.genotype.to_dict(),
            "score": self._now["score"],
            "best_epoch": self._now["epoch"],
            "diverged": self._now["diverged"],
            **self.training.costs,
            "seconds": round(self._now["seconds"], 3),
        }
        self.candidates.append(found)
        self._now["running"] = False
        self.black_box.tell(self.genotype, self.values(found))

    def values(self, candidate: Mapping[str, Any]) -> tuple[float, ...]:
        """Objectives of a candidate's record; larger is better. A candidate without a score is worse than any other."""
        score = -math.inf if math.isnan(candidate["score"]) else candidate["score"]
        return (score, *(-float(candidate[name]) for name in self.objectives if name != SCORE))

    def front(self) -> list[int]:
        """Numbers of the candidates that no other dominates."""
        return sorted_fronts([self.values(candidate) for candidate in self.candidates])[0]

    def state_dict(self) -> dict[str, Any]:
        """Records of all candidates, and the state of the current training."""
        now = None
        if self._now["running"]:
            now = {**self._now, "genotype": self.genotype.to_dict(), "training": self.training.state_dict()}
        return {"candidates": self.candidates, "now": now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.candidates = list(state["candidates"])
        for candidate in self.candidates:
            self.black_box.tell(self.read(candidate["genotype"]), self.values(candidate))
        if (now := state["now"]) is not None:
            self.genotype = self.read(now["genotype"])
            self.training = self.start(self.genotype)
            self.training.load_state_dict(now["training"])
            self._now = {name: now[name] for name in ("score", "epoch", "seconds", "diverged", "running")}


def run_trainings(
    run: Run, search: TrainingSearch, *, tracked: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Train candidates for a total of ``run.args.epochs`` epochs.

    Args:
        run: The `Run`.
        search: The `TrainingSearch`. Its selection chooses the epoch, and thereby the candidate, that is reported.
        tracked: Further objects to save in checkpoints: name -> object with ``state_dict``.
        facts: Further entries of the result.

    Returns:
        The result, as written to ``result.json``, in the form of other searches.
    """
    selection = search.selection
    run.unit = ("--budget", search.epochs)
    run.track(search=search, selection=selection, **tracked)

    def one_epoch(epoch):
        record = search(epoch)
        run.write(FILE_NAME, "".join(json_text(candidate) + "\n" for candidate in search.candidates))
        return record

    def best_state():
        return {"net": search.training.net.state_dict(), "genotype": search.genotype.to_dict()}

    fit(run, run.args.epochs, one_epoch, selection, best_state)
    best = run.load_best()
    genotype, record = search.read(best["genotype"]), run.record_of(best["epoch"])
    number = record["candidate"]
    run.write("genotype.svg", genotype.to_svg(title=f"candidate {number}"))
    logger.info("genotype of candidate %d: %s", number, genotype)
    winner = search.start(genotype)
    return run.write_result(
        {
            "kind": "search",
            "protocol": selection.explanation,
            "selected_epoch": best["epoch"],
            "epochs": run.epoch,
            "stopped_early": run.stopped,
            "metrics": scores_of(record),
            "genotype": genotype.to_dict(),
            "parameters": winner.net.count_parameters(),
            **winner.measure(),
            "trainings": {
                "count": len(search.candidates),
                "epochs_each": search.epochs,
                "selected": number,
                "objectives": list(search.objectives),
                **_front(run, search),
            },
            **facts,
        }
    )


def _front(run, search):
    """With several objectives, plot the Pareto front and return its records, sorted by score."""
    if len(search.objectives) == 1:
        return {}
    front = sorted((search.candidates[i] for i in search.front()), key=search.values, reverse=True)
    for name in search.objectives[1:]:
        groups = {
            "others": [(c[name], c["score"]) for c in search.candidates if c not in front],
            "front": [(c[name], c["score"]) for c in front],
        }
        if run.is_main:
            plot_points(groups, run.folder / f"pareto_{name}.svg", axes=(name, f"score on {search.selection.split}"))
    # Seconds are only recorded in the file of candidates, since a result must not depend on when it was computed.
    return {"front": [{name: value for name, value in c.items() if name != "seconds"} for c in front]}
