"""The interface of a search strategy: how undecided candidates are combined, and how their logits are trained.

The published strategies are `SoftmaxMixture` (BM-NAS), below, and `search.gates.SampledGates` (MMNas).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from search.choice import Draw
from util.cli import UserError

if TYPE_CHECKING:
    from torch import nn

    from search.choice import Choice, SearchSpace
    from search.regularizers import Regularizer

WEIGHTS, ARCHITECTURE = "weights", "architecture"


class Relaxation:
    """Base class of strategies. Override `weights` for another mixture, `draw` to sample candidates.

    Each step calls `draw`, then runs the forward pass, which calls `combine` and `weights`, and the backward pass. An
    architecture step then calls `finish_backward`, the optimiser's step, and `finish_step`.

    Args:
        generator: `torch.Generator` on the CPU for all draws. Processes with equal generators draw the same
            candidates. None for strategies that draw nothing.

    Attributes:
        choices: The choices of the space, set by `attach`.
        regularizers: Terms that are added to the loss of architecture steps.
    """

    # Name of the strategy, as in --strategy; set by `search.strategies.build_strategy`.
    name = "published"
    # Whether it refuses spaces that are made for one running candidate at a time (MMNas').
    needs_mixture = False
    # Whether the logits are trained; if not, there are no architecture steps.
    learns = True
    # Whether a step reads an ordered pair of different states, so that a derivation must keep their order.
    ordered_pairs = False

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.choices: list[Choice] = []
        self.regularizers: list[Regularizer] = []

    @property
    def runs_all(self) -> bool:
        """Whether every candidate runs in every step: true unless `draw` is overridden."""
        return type(self).draw is Relaxation.draw

    def attach(self, space: SearchSpace) -> Relaxation:
        """Apply this strategy to the choices of ``space``, a `search.choice.SearchSpace`, and return self.

        Strategies that draw start with the most probable candidates, others with all candidates.

        Raises:
            UserError: the strategy does not support this space.
        """
        self.choices = space.choices()
        if self.needs_mixture and any(choice.single_path for choice in self.choices):
            raise UserError(
                f"--strategy {self.name} runs every candidate in every step, but MMNas' networks run one at a time; "
                "use another strategy"
            )
        for choice in self.choices:
            choice.relaxation, choice.drawn = self, None
        if self.generator is not None:
            self.decide()
        for regularizer in self.regularizers:
            regularizer.attach(space)
        return self

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Update settings that depend on the epoch, which is 0 to ``epochs`` - 1."""

    def draw(self, phase: str) -> None:
        """Choose the candidates of the next step; by default all of them.

        Args:
            phase: The kind of step, `WEIGHTS` or `ARCHITECTURE`.
        """
        for choice in self.choices:
            choice.drawn = None

    def decide(self) -> None:
        """Use only the most probable candidate of every choice until the next `draw`. Consumes no random numbers."""
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            choice.drawn = Draw(tuple(logits.argmax(-1).flatten().tolist()))

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """Return the weights of the candidates in the output, with gradients to ``logits``.

        Args:
            choice: The `Choice`.
            logits: Its logits, float (n,) or (rows, n). They are passed separately, since replicas on other devices
                have copies.

        Returns:
            Float tensor shaped like ``logits``.
        """
        raise NotImplementedError

    def combine(
        self,
        choice: Choice,
        candidates: Sequence[Callable[[], Any]],
        logits: torch.Tensor,
        row: int | None = None,
        gates: torch.Tensor | None = None,
    ) -> Any:
        """Compute the output of a choice from the outputs of the candidates that run.

        Args:
            choice: The `Choice`.
            candidates: For each candidate, a function without arguments that returns its output, a tensor.
            logits, gates: The parameters of the choice, see `weights`.
            row: Row of the logits; None: they have only one.

        Returns:
            A tensor shaped like the outputs.
        """
        drawn = choice.drawn
        if drawn is not None and not drawn.gated:
            return candidates[drawn.active[row or 0]]()
        running = range(len(candidates)) if drawn is None else choice.running(row or 0)
        outputs = [candidates[k]() for k in running]
        weights = self.weights(choice, logits)
        weights = (weights if row is None else weights[row]).to(outputs[0].dtype)
        return sum(weights[k] * output for k, output in zip(running, outputs, strict=True))

    def arguments(
        self, choice: Choice, states: Sequence[Any], step: int, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both arguments of a step whose `Draw` has pairs.

        Args:
            choice: The `Choice` of the edges.
            states: The states so far, tensors; None in place of those that no step may read.
            step: Index of the step.
            logits: The logits of the choice, see `weights`.

        Returns:
            The first and the second argument.
        """
        assert choice.drawn is not None  # `draw` comes first
        first, second = choice.drawn.pairs[step]
        return states[first], states[second]

    def architecture_gradient(
        self, search: Any, batch: dict[str, Any], size: int | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Compute the gradients of `gradient_parameters` for an architecture step on ``batch``.

        Args:
            search: The search loop (`search.loops`). Its ``alphas`` and ``weights`` are `OptimizerStep`s, and its
                `next_training_batch` returns a batch of the weight steps' data.
            batch, size: See `OptimizerStep.step`.

        Returns:
            (loss, outputs), see `OptimizerStep.step`.
        """
        return search.alphas.backward(batch, size)

    def gradient_parameters(self) -> list[nn.Parameter]:
        """Parameters that receive gradients in the backward pass of an architecture step."""
        return [choice.logits for choice in self.choices]

    def finish_backward(self) -> None:
        """Called after the backward pass of an architecture step. It may compute gradients of the logits."""

    def finish_step(self) -> None:
        """Called after the optimiser's step on the logits."""

    def conclude(self, score: Callable[[], tuple[float, ...]]) -> dict[str, Any]:
        """Called once after the last epoch, before an architecture is derived, for strategies that need dev scores.

        Args:
            score: Function without arguments that returns the dev score of the network with the current draw, a tuple;
                larger is better.

        Returns:
            Entries of the result.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State of the generator."""
        return {"state": self.generator.get_state()} if self.generator else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        if self.generator:
            self.generator.set_state(state["state"])


def logits_on_cpu(choices: Iterable[Choice]) -> list[torch.Tensor]:
    """Detached copies of the choices' logits on the CPU. One transfer for all, since each one waits for the device."""
    logits = [choice.logits.detach() for choice in choices]
    if not logits:
        return []
    flat = torch.cat([values.flatten() for values in logits]).cpu()
    parts = flat.split([values.numel() for values in logits])
    return [part.view(values.shape) for part, values in zip(parts, logits, strict=True)]


class SoftmaxMixture(Relaxation):
    """The published relaxation of BM-NAS: out = sum_k softmax(logits)_k o_k (DARTS, Liu et al., ICLR 2019).

    Args:
        generator: Unused, since nothing is drawn.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """The softmax over the candidates."""
        return logits.softmax(-1)
