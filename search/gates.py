"""The published relaxation of MMNas: one sampled candidate runs (section 3.2; ProxylessNAS, Cai et al., ICLR 2019).

Weights are trained on a sampled path. An architecture step also runs other candidates, and the gradient of the gate of
candidate k is <o_k, dL/dout>: how the loss would change if the gate opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from search.choice import Draw
from search.relaxation import ARCHITECTURE, Relaxation, logits_on_cpu
from util.nested import at_least_float32

if TYPE_CHECKING:
    from torch import nn

    from search.choice import Choice

# Candidates that get gate gradients in an architecture step. full: all of them; two: the active and one other.
MODES = ("full", "two")


class _GatedSum(torch.autograd.Function):
    """sum_k gate_k * o_k with a gate of 1 for the first output and 0 for the others, without computing the sum."""

    @staticmethod
    def forward(ctx, gates, indices, active, *inactive):
        ctx.save_for_backward(active, *inactive)
        ctx.indices, ctx.gates = indices, gates
        return active.view_as(active)

    @staticmethod
    def backward(ctx, gradient):
        gates = torch.zeros_like(ctx.gates)
        for index, output in zip(ctx.indices, ctx.saved_tensors, strict=True):
            gates[index] = (at_least_float32(output) * at_least_float32(gradient)).sum()
        return gates, None, gradient, *[None] * (len(ctx.indices) - 1)


def gated_sum(gates: torch.Tensor, indices: list[int], outputs: list[torch.Tensor]) -> torch.Tensor:
    """The first of ``outputs``; the gradient of the gate of every output o is <o, dL/dout>.

    Args:
        gates: float (n,), with gradients.
        indices: For each output its gate.
        outputs: Tensors of one shape; only the first gets a gradient.
    """
    return _GatedSum.apply(gates, tuple(indices), *outputs)


class SampledGates(Relaxation):
    """A candidate is drawn by its probability; gradients reach the logits through gates.

    Choices have one row of logits, and gates.

    Args:
        generator: See `Relaxation`.
        mode: One of `MODES`. ``two`` draws two candidates by their probabilities, then the active one from these.
    """

    def __init__(self, generator: torch.Generator | None = None, mode: str = "full") -> None:
        if mode not in MODES:
            raise ValueError(f"the mode {mode!r} is not one of {', '.join(MODES)}")
        super().__init__(generator)
        self.mode = mode
        self._before: dict[str, torch.Tensor] = {}

    def draw(self, phase: str) -> None:
        """Draw one candidate per choice; for architecture steps also those that get gate gradients."""
        self._before = {}
        if phase != ARCHITECTURE:
            draw_path(self.choices, self.generator)
            return
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            logits = logits.double()
            others: tuple[int, ...]
            if self.mode == "two" and len(logits) > 1:
                pair = _sample(logits, 2, self.generator)
                first = _sample(logits[pair], 1, self.generator)[0]
                active, others = pair[first], (pair[1 - first],)
            else:
                active = _sample(logits, 1, self.generator)[0]
                others = tuple(k for k in range(len(logits)) if k != active)
            choice.drawn = Draw((active,), (others,), gated=True)

    def combine(
        self,
        choice: Choice,
        candidates: Sequence[Callable[[], Any]],
        logits: torch.Tensor,
        row: int | None = None,
        gates: torch.Tensor | None = None,
    ) -> Any:
        """Output of the active candidate; in an architecture step, gradients flow to the gates."""
        drawn = choice.drawn
        assert drawn is not None  # `draw` comes first
        active = drawn.active[0]
        out = candidates[active]()
        if not drawn.gated:
            return out
        assert gates is not None  # choices of this strategy have them
        with torch.no_grad():  # only the values are needed
            others = [candidates[k]() for k in drawn.inactive[0]]
        return gated_sum(gates, [active, *drawn.inactive[0]], [out, *others])

    def gradient_parameters(self) -> list[nn.Parameter]:
        """The gates."""
        return [choice.gates for choice in self.choices]

    @torch.no_grad()
    def finish_backward(self) -> None:
        """Add the contribution of the gates' gradients g to the gradients of the logits.

        With p the softmax over the candidates that ran (all, or the two): sum_j g_j p_j (d_ij - p_i).

        Raises:
            RuntimeError: the gates have no gradients: the last draw was not for an architecture step.
        """
        for choice in self.choices:
            involved = list(choice.running())
            if choice.gates.grad is None:
                raise RuntimeError("the gates have no gradient: draw for an architecture step, then run backward")
            gates, logits = choice.gates.grad[involved], choice.logits[involved]
            probabilities = logits.softmax(0)
            if choice.logits.grad is None:
                choice.logits.grad = torch.zeros_like(choice.logits)
            choice.logits.grad[involved] += probabilities * (gates - (gates * probabilities).sum())
            self._before[choice.key] = logits

    @torch.no_grad()
    def finish_step(self) -> None:
        """In mode ``two``: keep the sum of the two exponentials, so that the other probabilities do not change."""
        for choice in self.choices if self.mode == "two" else ():
            if (before := self._before.pop(choice.key, None)) is not None:
                involved = list(choice.running())
                logits = choice.logits[involved]
                choice.logits[involved] = logits - (logits.logsumexp(0) - before.logsumexp(0))


def draw_path(choices: Iterable[Choice], generator: torch.Generator | None) -> None:
    """Draw one candidate of every choice, by their probabilities, for the next forward pass."""
    for choice, logits in zip(choices, logits_on_cpu(choices), strict=True):
        choice.drawn = Draw((_sample(logits.double(), 1, generator)[0],))


def _sample(logits: torch.Tensor, count: int, generator: torch.Generator | None) -> list[int]:
    return torch.multinomial(logits.softmax(0), count, generator=generator).tolist()
