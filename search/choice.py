"""A choice between named candidates, and what a search space offers to a search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from torch import nn

    from search.relaxation import Relaxation


class Draw(NamedTuple):
    """Which candidates of a choice run in the next forward.

    Attributes:
        active: For each row of the logits the index of the candidate that gives the output.
        inactive: For each row the indices of those that run besides, for the gradient alone.
        gated: Whether the output passes gradients on to the logits or gates.
    """

    active: tuple[int, ...]
    inactive: tuple[tuple[int, ...], ...] = ()
    gated: bool = False


class Choice:
    """Candidates, and the logits that decide between them.

    Args:
        key: Name of the choice, unique in its space.
        candidates: Names of the n candidates.
        owner: The module whose attributes the logits (and gates) are; modules may replace their parameters.
        logits: Name of a parameter, float (n,) or (rows, n): the rows are decided independently of one another.
        gates: Name of a parameter shaped like the logits, a place for gradients that a strategy may need; or None.

    Attributes:
        drawn: The `Draw` of the next forward; None: all candidates run.
    """

    def __init__(
        self, key: str, candidates: Iterable[str], owner: nn.Module, logits: str, gates: str | None = None
    ) -> None:
        self.key, self.candidates = key, tuple(candidates)
        self._owner, self._logits = owner, logits
        self._gates: Any = gates
        self.drawn: Draw | None = None

    @property
    def logits(self) -> nn.Parameter:
        """The logits, a parameter."""
        return getattr(self._owner, self._logits)

    @property
    def gates(self) -> nn.Parameter:
        """The gates, a parameter."""
        return getattr(self._owner, self._gates)

    def probabilities(self) -> torch.Tensor:
        """Softmax of the logits, detached, shaped like them."""
        return self.logits.detach().softmax(-1)

    def running(self, row: int = 0) -> tuple[int, ...]:
        """Indices of the candidates that run in the next forward, the one that gives the output first."""
        if self.drawn is None:
            return tuple(range(len(self.candidates)))
        inactive = self.drawn.inactive[row] if self.drawn.inactive else ()
        return (self.drawn.active[row], *inactive)


class SearchSpace(Protocol):
    """A one-shot network: the candidates of every choice, and how decisions become an architecture."""

    def choices(self) -> list[Choice]:
        """The choices, always in the same order."""

    def relax(self, relaxation: Relaxation) -> None:
        """Combine candidates by ``relaxation`` (a `search.relaxation.Relaxation`) from now on."""

    def discretise(self, scores: dict[str, torch.Tensor]) -> Any:
        """The architecture for scores of the candidates: key of a choice -> tensor shaped like its logits."""
