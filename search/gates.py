"""The published relaxation of MMNas: one sampled candidate runs (section 3.2; ProxylessNAS, Cai et al., ICLR 2019).

Weights are trained on a sampled path. An architecture step also runs other candidates. The gradient of candidate k's
gate is <o_k, dL/dout>: how the loss would change if the gate were opened.
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

# Candidates whose gates have gradients in an architecture step. full: all of them; two: the active one and one other.
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
    """Return the first of ``outputs``. In the backward pass the gate of each output o has the gradient <o, dL/dout>.

    Args:
        gates: float (n,), with gradients.
        indices: Index of the gate of each output.
        outputs: Tensors of equal shape. Only the first one receives a gradient.
    """
    return _GatedSum.apply(gates, tuple(indices), *outputs)


class SampledGates(Relaxation):
    """Draws one candidate per choice by its probability. Gradients reach the logits through gates.

    All choices must have gates and a single row of logits.

    Args:
        generator: See `Relaxation`.
        mode: One of `MODES`. ``two`` draws two candidates by their probabilities, and then the active one of the two.

    Raises:
        ValueError: the mode is unknown.
    """

    def __init__(self, generator: torch.Generator | None = None, mode: str = "full") -> None:
        if mode not in MODES:
            raise ValueError(f"the mode {mode!r} is not one of {', '.join(MODES)}")
        super().__init__(generator)
        self.mode = mode
        self._before: dict[str, torch.Tensor] = {}

    def draw(self, phase: str) -> None:
        """Draw one candidate per choice; for architecture steps also the others whose gates have gradients."""
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
        """Return the output of the active candidate. In an architecture step, gradients flow to the gates."""
        drawn = choice.drawn
        assert drawn is not None  # `draw` comes first
        active = drawn.active[0]
        out = candidates[active]()
        if not drawn.gated:
            return out
        assert gates is not None  # all choices of this strategy have gates
        with torch.no_grad():  # only the values are needed
            others = [candidates[k]() for k in drawn.inactive[0]]
        return gated_sum(gates, [active, *drawn.inactive[0]], [out, *others])

    def gradient_parameters(self) -> list[nn.Parameter]:
        """The gates."""
        return [choice.gates for choice in self.choices]

    @torch.no_grad()
    def finish_backward(self) -> None:
        """Add the contribution of the gates' gradients g to the gradients of the logits.

        It is sum_j g_j p_j (delta_ij - p_i) for logit i, with p the softmax over the candidates that ran (all or two).

        Raises:
            RuntimeError: the gates have no gradients, since the last draw was not for an architecture step.
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
        """In mode ``two``, rescale so that the sum of the two exponentials stays: other probabilities do not change."""
        for choice in self.choices if self.mode == "two" else ():
            if (before := self._before.pop(choice.key, None)) is not None:
                involved = list(choice.running())
                logits = choice.logits[involved]
                choice.logits[involved] = logits - (logits.logsumexp(0) - before.logsumexp(0))


def draw_path(choices: Iterable[Choice], generator: torch.Generator | None) -> None:
    """Draw one candidate of every choice, by its probability, for the next forward pass."""
    for choice, logits in zip(choices, logits_on_cpu(choices), strict=True):
        choice.drawn = Draw((_sample(logits.double(), 1, generator)[0],))


def _sample(logits: torch.Tensor, count: int, generator: torch.Generator | None) -> list[int]:
    return torch.multinomial(logits.softmax(0), count, generator=generator).tolist()
