"""A choice between named candidates, and the interface of a search space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from torch import nn


class Draw(NamedTuple):
    """The candidates of a choice that run in the next forward pass.

    Attributes:
        active: For each row of the logits, the index of the candidate that produces the output.
        inactive: For each row, the indices of the candidates that run only for their gradients.
        gated: Whether gradients flow from the output to the logits or gates.
        pairs: For each step, the states that are its first and second argument, see `ArgumentPairs`. Empty: the rows
            act independently of one another.
    """

    active: tuple[int, ...]
    inactive: tuple[tuple[int, ...], ...] = ()
    gated: bool = False
    pairs: tuple[tuple[int, int], ...] = ()


class ArgumentPairs(NamedTuple):
    """Describes a choice whose rows are edges into steps with two arguments each.

    Attributes:
        counts: Number of rows of each step. Row s of a step is the edge from state s.
        chosen: Index of the candidate that lets a state pass.
        eligible: (step, pairs of the earlier steps) -> ordered pairs (first, second) of states that the step may read.
    """

    counts: tuple[int, ...]
    chosen: int
    eligible: Callable[[int, list[tuple[int, int]]], list[tuple[int, int]]]


@dataclasses.dataclass(eq=False)
class Choice:
    """A choice between n named candidates, and the logits that decide it.

    Attributes:
        key: Name of the choice, unique in its space.
        candidates: Names of the n candidates.
        owner: The module that has the parameters. They are looked up at each access, since modules may replace them.
        logits_name: Name of the parameter of the logits, float (n,) or (rows, n). Each row is decided independently.
        gates_name: Name of a parameter shaped like the logits, which collects gradients for some strategies; or None.
            If a space has gates, its networks run one candidate per choice at a time.
        pairs: `ArgumentPairs` if the rows are edges that can also be decided in pairs; or None.
        relaxation: The `search.relaxation.Relaxation` that combines the candidates; `Relaxation.attach` sets another.
        drawn: The `Draw` of the next forward pass; None: all candidates run.
        distribution: Function from logits to probabilities, set by strategies that do not use the softmax; or None.
    """

    key: str
    candidates: Sequence[str]
    owner: nn.Module = dataclasses.field(repr=False)
    logits_name: str
    gates_name: Any = None
    pairs: Any = None
    relaxation: Any = dataclasses.field(default=None, repr=False)
    drawn: Draw | None = dataclasses.field(default=None, init=False)
    distribution: Callable[[torch.Tensor], torch.Tensor] | None = dataclasses.field(default=None, init=False)

    @property
    def single_path(self) -> bool:
        """Whether the space runs one candidate per choice at a time."""
        return self.gates_name is not None

    @property
    def logits(self) -> nn.Parameter:
        """The parameter of the logits, float (n,) or (rows, n)."""
        return getattr(self.owner, self.logits_name)

    @property
    def gates(self) -> nn.Parameter:
        """The parameter of the gates, shaped like the logits."""
        return getattr(self.owner, self.gates_name)

    def probabilities(self) -> torch.Tensor:
        """Probabilities of the candidates, detached and shaped like the logits: their softmax or `distribution`."""
        return self.probabilities_of(self.logits.detach())

    def probabilities_of(self, logits: torch.Tensor) -> torch.Tensor:
        """As `probabilities`, but for the given logits and with gradients to them."""
        return logits.softmax(-1) if self.distribution is None else self.distribution(logits)

    def running(self, row: int = 0) -> tuple[int, ...]:
        """Indices of the candidates that run in the next forward pass. After a draw, the first produces the output."""
        if self.drawn is None:
            return tuple(range(len(self.candidates)))
        inactive = self.drawn.inactive[row] if self.drawn.inactive else ()
        return (self.drawn.active[row], *inactive)


class SearchSpace(Protocol):
    """A supernet: its choices, and how decisions become an architecture."""

    def choices(self) -> list[Choice]:
        """The choices, always in the same order."""

    def discretise(self, scores: dict[str, torch.Tensor]) -> Any:
        """Derive an architecture from scores of the candidates.

        Args:
            scores: Key of a choice -> tensor shaped like its logits; larger is better.

        Returns:
            The architecture: `models.genotypes.FusionGenotype` or `models.mmnas.architecture.Architecture`.
        """

    def expected_cost(self, kind: str) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
        """Return a function that computes the expected cost from probabilities, for ``--cost_weight``.

        Its argument maps the key of a choice to a tensor shaped like its logits. Its result is the expected cost as a
        fraction of the largest possible one, a differentiable scalar in 0..1.

        Args:
            kind: ``parameters`` or ``flops``.
        """
