"""A choice between named candidates, and the interface of a search space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from torch import nn

    from search.relaxation import Relaxation


class Draw(NamedTuple):
    """The candidates of a choice that run in the next forward pass.

    Attributes:
        active: For each row of the logits the index of the candidate that gives the output.
        inactive: For each row the indices of the candidates that run only for the gradient.
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
        owner: The module with the parameters; looked up at each access, since modules may replace parameters.
        logits: Name of the parameter of the logits, float (n,) or (rows, n): each row is decided independently.
        gates: Name of a parameter shaped like the logits that collects gradients for some strategies; or None.

    Attributes:
        drawn: The `Draw` of the next forward pass; None: all candidates run.
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
        """The parameter of the logits, float (n,) or (rows, n)."""
        return getattr(self._owner, self._logits)

    @property
    def gates(self) -> nn.Parameter:
        """The parameter of the gates, shaped like the logits."""
        return getattr(self._owner, self._gates)

    def probabilities(self) -> torch.Tensor:
        """Softmax of the logits, detached, shaped like them."""
        return self.logits.detach().softmax(-1)

    def running(self, row: int = 0) -> tuple[int, ...]:
        """Indices of the candidates that run in the next forward pass; the first one gives the output."""
        if self.drawn is None:
            return tuple(range(len(self.candidates)))
        inactive = self.drawn.inactive[row] if self.drawn.inactive else ()
        return (self.drawn.active[row], *inactive)


class SearchSpace(Protocol):
    """A one-shot network: its choices, and how decisions become an architecture."""

    def choices(self) -> list[Choice]:
        """The choices, always in the same order."""

    def relax(self, relaxation: Relaxation) -> None:
        """Combine candidates by ``relaxation`` (a `search.relaxation.Relaxation`) from now on."""

    def discretise(self, scores: dict[str, torch.Tensor]) -> Any:
        """The architecture for scores of the candidates: key of a choice -> tensor shaped like its logits."""
