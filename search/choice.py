"""A choice between named candidates, and what a search space offers to a search."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch


class Draw(NamedTuple):
    """Which candidates of a choice run in the next forward.

    Attributes:
        active: For each row of the logits the index of the candidate that gives the output.
        inactive: For each row the indices of those that run besides, for the gradient alone.
        gated: Whether the output passes gradients on to the logits or gates.
        pairs: For each step the states that are its first and its second argument, see `ArgumentPairs`; empty: the rows
            act independently of one another.
    """

    active: tuple[int, ...]
    inactive: tuple[tuple[int, ...], ...] = ()
    gated: bool = False
    pairs: tuple[tuple[int, int], ...] = ()


class ArgumentPairs(NamedTuple):
    """How the rows of a choice are edges of steps with two arguments each.

    Attributes:
        counts: For each step its number of rows: row s of a step is the edge from state s.
        chosen: Index of the candidate that lets a state pass.
        eligible: (step, pairs of the steps before it) -> ordered pairs (first, second) of states that it may take.
    """

    counts: tuple[int, ...]
    chosen: int
    eligible: Callable[[int, list[tuple[int, int]]], list[tuple[int, int]]]


class Choice:
    """Candidates, and the logits that decide between them.

    Args:
        key: Name of the choice, unique in its space.
        candidates: Names of the n candidates.
        owner: The module whose attributes the logits (and gates) are; modules may replace their parameters.
        logits: Name of a parameter, float (n,) or (rows, n): the rows are decided independently of one another.
        gates: Name of a parameter shaped like the logits, a place for gradients that a strategy may need; or None.
            A space whose choices have gates is made for one running candidate at a time.
        pairs: `ArgumentPairs` if the rows are edges that may also be decided in pairs; or None.

    Attributes:
        drawn: The `Draw` of the next forward; None: all candidates run.
        distribution: Logits -> probabilities, where a strategy's are not their softmax; or None.
    """

    def __init__(self, key, candidates, owner, logits, gates=None, pairs=None):
        self.key, self.candidates, self.pairs = key, tuple(candidates), pairs
        self._owner, self._logits, self._gates = owner, logits, gates
        self.drawn: Draw | None = None
        self.distribution: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def single_path(self) -> bool:
        """Whether the space is made for one running candidate at a time."""
        return self._gates is not None

    @property
    def logits(self):
        """The logits, a parameter."""
        return getattr(self._owner, self._logits)

    @property
    def gates(self):
        """The gates, a parameter."""
        return getattr(self._owner, self._gates)

    def probabilities(self):
        """Probabilities of the candidates, detached, shaped like the logits: their softmax, or the `distribution`."""
        logits = self.logits.detach()
        return logits.softmax(-1) if self.distribution is None else self.distribution(logits)

    def running(self, row=0):
        """Indices of the candidates that run in the next forward, the one that gives the output first."""
        if self.drawn is None:
            return tuple(range(len(self.candidates)))
        inactive = self.drawn.inactive[row] if self.drawn.inactive else ()
        return (self.drawn.active[row], *inactive)


class SearchSpace(Protocol):
    """A one-shot network: the candidates of every choice, and how decisions become an architecture."""

    def choices(self) -> list[Choice]:
        """The choices, always in the same order."""

    def relax(self, relaxation) -> None:
        """Combine candidates by ``relaxation`` (a `search.relaxation.Relaxation`) from now on."""

    def discretise(self, scores: dict[str, torch.Tensor]):
        """The architecture for scores of the candidates: key of a choice -> tensor shaped like its logits."""
