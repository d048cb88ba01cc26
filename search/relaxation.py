"""The interface of a search strategy: how undecided candidates are combined, and how their logits learn.

The published relaxation of BM-NAS is here as well, since other strategies start from it: `SoftmaxMixture`.
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
    """Base class of strategies. Override `weights` for other mixtures, `draw` to sample candidates.

    A step calls, in this order: `draw`; the forward pass (which calls `combine` and `weights`) and the backward pass;
    an architecture step then calls `finish_backward`, the optimiser's step, and `finish_step`.

    Args:
        generator: `torch.Generator` on the CPU for all draws; processes with equal generators draw the same.
            None for strategies that draw nothing.
    """

    # What --strategy calls it; set by `search.strategies.build_strategy`.
    name = "published"
    # Whether every candidate runs in every step, so that the space must be made for that.
    runs_all = False
    # Whether architecture steps move the logits; otherwise there are none.
    learns = True
    # Whether a step takes an ordered pair of different arguments, so that their order counts in a derivation.
    ordered_pairs = False

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.choices: list[Choice] = []
        # Added to the loss of architecture steps.
        self.regularizers: list[Regularizer] = []

    def attach(self, space: SearchSpace) -> Relaxation:
        """Relax the choices of ``space``, a `search.choice.SearchSpace`; returns self.

        Strategies that draw start with the strongest candidates, others with all of them.

        Raises:
            UserError: the strategy does not apply to this space.
        """
        self.choices = space.choices()
        if self.runs_all and any(choice.single_path for choice in self.choices):
            raise UserError(
                f"--strategy {self.name} runs every candidate in every step, and MMNas' networks run one at a time; "
                "take another strategy"
            )
        for choice in self.choices:
            choice.relaxation, choice.drawn = self, None
        if self.generator is not None:
            self.decide()
        for regularizer in self.regularizers:
            regularizer.attach(space)
        return self

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Update settings that depend on the epoch; ``epoch`` goes from 0 to ``epochs`` - 1."""

    def draw(self, phase: str) -> None:
        """Choose the candidates of the next step, `WEIGHTS` or `ARCHITECTURE`: here all of them."""
        for choice in self.choices:
            choice.drawn = None

    def decide(self) -> None:
        """Use only the strongest candidate of every choice until the next `draw`; draws nothing."""
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            choice.drawn = Draw(tuple(logits.argmax(-1).flatten().tolist()))

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """Weights of the candidates in the output, with gradients to ``logits``.

        Args:
            choice: The `Choice`.
            logits: Its logits (rows, n); passed separately, since replicas on other devices hold copies.

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
        """The output of a choice.

        Args:
            choice: The `Choice`.
            candidates: A function without arguments for each candidate that returns its output.
            logits, gates: Those of the choice, see `weights`.
            row: Row of the logits; None: there is only one.
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
        """Both arguments of a step whose `Draw` has pairs: two states, in order.

        Args:
            choice: The `Choice` of the edges.
            states: The states so far, tensors; those that no step may read can be None.
            step: Number of the step.
            logits: Those of the choice, see `weights`.
        """
        assert choice.drawn is not None  # `draw` comes first
        first, second = choice.drawn.pairs[step]
        return states[first], states[second]

    def architecture_gradient(
        self, search: Any, batch: dict[str, Any], size: int | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Give the `gradient_parameters` the gradients of an architecture step on ``batch``.

        Args:
            search: The search loop (`search.loops`): its ``alphas`` and ``weights`` are `OptimizerStep`s, and its
                `next_training_batch` returns a batch of the weight steps' data.
            batch, size: See `OptimizerStep.step`.

        Returns:
            (loss, outputs), see `OptimizerStep.step`.
        """
        return search.alphas.backward(batch, size)

    def gradient_parameters(self) -> list[nn.Parameter]:
        """Parameters that get gradients from the backward pass of an architecture step."""
        return [choice.logits for choice in self.choices]

    def finish_backward(self) -> None:
        """Called after the backward pass of an architecture step; may compute gradients of the logits."""

    def finish_step(self) -> None:
        """Called after the optimiser's step on the logits."""

    def conclude(self, score: Callable[[], tuple[float, ...]]) -> dict[str, Any]:
        """Called once after the last epoch, before an architecture is derived, for what needs dev scores.

        Args:
            score: Function without arguments: dev score of the network as it is drawn then, a tuple; larger is better.

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


class SoftmaxMixture(Relaxation):
    """out = sum_k softmax(logits)_k o_k: every candidate runs (DARTS, Liu et al., ICLR 2019), as BM-NAS publishes it.

    Args:
        generator: Unused, since nothing is drawn.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """The softmax over the candidates."""
        return logits.softmax(-1)


def logits_on_cpu(choices: Iterable[Choice]) -> list[torch.Tensor]:
    """Detached logits of the choices on the CPU, in one transfer, since each transfer waits for the device."""
    logits = [choice.logits.detach() for choice in choices]
    if not logits:
        return []
    flat = torch.cat([values.flatten() for values in logits]).cpu()
    parts = flat.split([values.numel() for values in logits])
    return [part.view(values.shape) for part, values in zip(parts, logits, strict=True)]
