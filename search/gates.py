"""The published relaxation of MMNas: one sampled candidate runs (section 3.2; ProxylessNAS, Cai et al., ICLR 2019).

Weights are trained on a sampled path. In an architecture step other candidates are run too, and the gradient of the
gate of candidate k is <o_k, dL/dout>: what the loss would do if the gate opened.
"""

import torch

from search.choice import Draw
from search.relaxation import ARCHITECTURE, Relaxation, logits_on_cpu
from util.dtypes import at_least_float32

# Of an architecture step. full: all other candidates give gate gradients too; two: one other does.
MODES = ("full", "two")


class _GatedSum(torch.autograd.Function):
    """sum_k gate_k * o_k for gates that are 1 for the first output and 0 for the others, without computing it."""

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
        mode: Of `MODES`. ``two`` draws two candidates by their probabilities, then the active one of them.
    """

    def __init__(self, generator=None, mode="full"):
        if mode not in MODES:
            raise ValueError(f"the mode {mode!r} is none of {', '.join(MODES)}")
        super().__init__(generator)
        self.mode = mode
        self._before = {}

    def draw(self, phase):
        """Draw a path: for weight steps one candidate, for architecture steps also those that give gate gradients."""
        self._before = {}
        if phase != ARCHITECTURE:
            draw_path(self.choices, self.generator)
            return
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            logits = logits.double()
            if self.mode == "two" and len(logits) > 1:
                pair = _sample(logits, 2, self.generator)
                first = _sample(logits[pair], 1, self.generator)[0]
                active, others = pair[first], (pair[1 - first],)
            else:
                active = _sample(logits, 1, self.generator)[0]
                others = tuple(k for k in range(len(logits)) if k != active)
            choice.drawn = Draw((active,), (others,), gated=True)

    def decide(self):
        """The strongest candidates run alone."""
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            choice.drawn = Draw((int(logits.argmax()),))

    def combine(self, choice, candidates, logits, row=None, gates=None):
        """Output of the active candidate; in an architecture step it passes gradients on to the gates."""
        active, *inactive = choice.running()
        out = candidates[active]()
        if not choice.drawn.gated:
            return out
        with torch.no_grad():  # only their values are needed
            others = [candidates[k]() for k in inactive]
        return gated_sum(gates, [active, *inactive], [out, *others])

    def gradient_parameters(self):
        """The gates."""
        return [choice.gates for choice in self.choices]

    @torch.no_grad()
    def finish_backward(self):
        """Add to the logits' gradients what the gates' gradients g mean for them.

        With p the softmax over the candidates that ran (all of them, or the two): sum_j g_j p_j (d_ij - p_i).

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
    def finish_step(self):
        """In mode ``two``: keep the sum of the two exponentials, and so the probabilities of the others."""
        for choice in self.choices if self.mode == "two" else ():
            if (before := self._before.pop(choice.key, None)) is not None:
                involved = list(choice.running())
                logits = choice.logits[involved]
                choice.logits[involved] = logits - (logits.logsumexp(0) - before.logsumexp(0))


def draw_path(choices, generator):
    """Draw the one candidate of every choice that runs in the next forward, by their probabilities."""
    for choice, logits in zip(choices, logits_on_cpu(choices), strict=True):
        choice.drawn = Draw((_sample(logits.double(), 1, generator)[0],))


def _sample(logits, count, generator):
    return torch.multinomial(logits.softmax(0), count, generator=generator).tolist()
