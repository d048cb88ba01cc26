"""Derives an architecture from the probabilities of a search, or from dev scores of its trained supernet."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from engine.kept_batches import features_kept
from util.cli import UserError
from util.distributed import from_rank_0, rank
from util.files import read_json

if TYPE_CHECKING:
    from engine.run import Run
    from search.choice import SearchSpace
    from search.relaxation import Relaxation

logger = logging.getLogger("mdarts")

# Values of --derive: the largest probabilities, or `search.perturbation`.
RULES = ("argmax", "perturbation")
# The scores of a derivation, so that an interrupted one can be continued.
FILE_NAME = "derivation.json"


@torch.no_grad()
def argmax(space: SearchSpace) -> Any:
    """Derive the architecture of the largest probabilities, as both papers do.

    Args:
        space: A `search.choice.SearchSpace`.
    """
    return space.discretise({choice.key: choice.probabilities() for choice in space.choices()})


class Derivation:
    """Derives an architecture after the search, with dev scores of the trained supernet.

    All scores are kept in the run folder, so that an interrupted derivation continues where it stopped.

    Args:
        rule: One of `RULES`.
        scorer: Network -> dict of dev scores, with or without ``loss``.
        metric: Key of the score that counts. The loss breaks ties.
        seed: Seed of the order in which decisions are visited.

    Raises:
        ValueError: the rule is unknown.
    """

    def __init__(self, rule: str, scorer: Callable[[Any], dict[str, float]], metric: str, seed: int) -> None:
        if rule not in RULES:
            raise ValueError(f"the rule {rule!r} is not one of {', '.join(RULES)}")
        self.rule, self.scorer, self.metric, self.seed = rule, scorer, metric, seed

    def is_needed(self, relaxation: Relaxation) -> bool:
        """Whether the result is anything else than the largest probabilities of the selected epoch."""
        return self.rule != "argmax" or not relaxation.learns

    def __call__(
        self, run: Run, net: Any, relaxation: Relaxation, best: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Derive an architecture.

        Args:
            run: The `engine.run.Run`.
            net: The supernet.
            relaxation: The `Relaxation` that it was trained with.
            best: Content of ``best.pth``, whose weights are used.

        Returns:
            (architecture, entry of the result that describes the derivation).
        """
        net.load_state_dict(best["net"])
        # Only the decisions change from one score to the next, so backbone features are computed once.
        with features_kept(self.scorer, net):
            return self._derive(run, net, relaxation, best)

    def _derive(self, run, net, relaxation, best):
        from search.perturbation import perturbation

        remember = _Memory(run, [self.rule, relaxation.name, run.epoch, best["epoch"]])
        told: dict[str, Any] = {"rule": self.rule}
        told |= relaxation.conclude(lambda: tuple(remember(lambda: self._score(net))))
        if self.rule == "perturbation":
            generator = torch.Generator().manual_seed(self.seed)
            architecture, told["visits"] = perturbation(net, relaxation, lambda: self._score(net), generator, remember)
        else:
            architecture = argmax(net)
        return architecture, {**told, "scored": remember.count}

    def _score(self, net):
        scores = self.scorer(net)
        values = (scores[self.metric], -scores.get("loss", 0.0))
        return tuple(-math.inf if math.isnan(value) else value for value in values)


class _Memory:
    """Computed scores in the order of the requests. Those of an interrupted derivation are read instead of computed.

    Args:
        run: The `engine.run.Run`.
        key: All that the derivation depends on, as plain data. Scores of another key are ignored.
    """

    def __init__(self, run, key):
        self.run, self.key = run, key
        self.count, self.known = 0, self._read()

    def __call__(self, compute):
        """Return the result of ``compute``, a sequence of numbers, or the remembered one."""
        if self.count == len(self.known):
            self.known.append(list(compute()))
            self.run.write(FILE_NAME, json.dumps({"key": self.key, "scores": self.known}))
        self.count += 1
        return self.known[self.count - 1]

    def _read(self):
        path, found = self.run.folder / FILE_NAME, None
        if rank() == 0 and path.exists():
            try:
                found = read_json(path)
            except (UserError, ValueError):
                logger.warning("%s is damaged; the derivation starts over", path)
        found = from_rank_0(found)
        if not isinstance(found, dict) or found.get("key") != self.key:
            return []
        if not _are_scores(found.get("scores")):
            logger.warning("%s is damaged; the derivation starts over", path)
            return []
        return found["scores"]


def _are_scores(rows):
    """Whether ``rows`` is a list of non-empty lists of numbers, as a derivation writes it."""
    if not isinstance(rows, list) or not all(isinstance(row, list) and row for row in rows):
        return False
    return all(isinstance(one, (int, float)) and not isinstance(one, bool) for row in rows for one in row)
