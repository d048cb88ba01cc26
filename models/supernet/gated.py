"""The gated operation of a search: several candidates of which one runs (MMNas section 3.2; ProxylessNAS).

Weights are trained on a sampled path. For a step of the architecture parameters the other candidates are run
too, and the gradient of the gate of candidate k is <o_k, dL/dout>: what the loss would do if the gate opened.
"""

import torch
from torch import nn

from models.supernet.layers import at_least_float32
from models.supernet.operations import make_operation

# single: only the active candidate; full: all others give gate gradients too; two: one other does.
MODES = ("single", "full", "two")


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


class GatedOperation(nn.Module):
    """Candidate operations with architecture parameters, of which a sampled or the strongest one is active.

    Args:
        names: Names of the candidates, all different.
        hsize, dropout, relation_size: See `operations.Operation`.

    Attributes:
        alpha_prob: (n,), softmax gives the probabilities of the candidates; zeros at first.
        alpha_gate: (n,), only a place for the gates' gradients; its values have no meaning.
        mode: Of `MODES`.
        active: Index of the candidate that gives the output.
        inactive: Indices of those that run besides, ascending; none in mode ``single``.
    """

    def __init__(self, names, hsize, dropout, relation_size=64):
        super().__init__()
        self.alpha_prob = nn.Parameter(torch.zeros(len(names)))
        self.alpha_gate = nn.Parameter(torch.zeros(len(names)))
        self.operations = nn.ModuleDict(
            {name: make_operation(name, hsize, dropout, relation_size) for name in dict.fromkeys(names)}
        )
        if len(self.operations) != len(names):
            raise ValueError(f"candidates are named twice: {', '.join(names)}")
        self.names = tuple(names)
        self.set_path("single", 0)

    def set_path(self, mode, active, inactive=()):
        """Choose what runs next. ``full`` needs no ``inactive``: it is all the others."""
        if mode not in MODES:
            raise ValueError(f"the mode {mode!r} is none of {', '.join(MODES)}")
        if mode == "full":
            inactive = [k for k in range(len(self.names)) if k != active]
        self.mode, self.active, self.inactive = mode, active, tuple(inactive)
        self._before = None

    def sample(self, mode, generator, alphas=None):
        """Draw the path of the next step.

        ``two`` draws two candidates by their probabilities, then the active one of them.

        Args:
            mode: Of `MODES`.
            generator: `torch.Generator` on the CPU: processes with equal ones draw the same.
            alphas: `alpha_prob` on the CPU, where it is there already.
        """
        alphas = (self.alpha_prob.detach() if alphas is None else alphas).double().cpu()
        if mode != "two" or len(alphas) == 1:
            self.set_path(mode, _draw(alphas, 1, generator)[0])
            return
        pair = _draw(alphas, 2, generator)
        first = _draw(alphas[pair], 1, generator)[0]
        self.set_path("two", pair[first], [pair[1 - first]])

    def use_chosen(self, alphas=None):
        """Make the strongest candidate the only one that runs."""
        self.set_path("single", int((self.alpha_prob if alphas is None else alphas).argmax()))

    @property
    def chosen(self):
        """Name of the strongest candidate."""
        return self.names[int(self.alpha_prob.argmax())]

    def running(self):
        """The operations that the next forward calls, the active one first."""
        return [self.operations[self.names[k]] for k in (self.active, *self.inactive)]

    def probabilities(self):
        """(n,) probabilities of the candidates."""
        return self.alpha_prob.detach().softmax(0)

    def forward(self, x, y=None, x_mask=None, y_mask=None, relation=None):
        """Output of the active candidate; arguments as in `operations.Operation`."""
        active, *inactive = self.running()
        out = active(x, y, x_mask, y_mask, relation)
        if self.mode == "single":
            return out
        with torch.no_grad():  # only their values are needed
            others = [operation(x, y, x_mask, y_mask, relation) for operation in inactive]
        return _GatedSum.apply(self.alpha_gate, (self.active, *self.inactive), out, *others)

    @torch.no_grad()
    def set_alpha_gradient(self):
        """Add to the gradient of `alpha_prob` what the gates' gradients g mean for it.

        With p the softmax over the candidates that ran (all of them, or the two): sum_j g_j p_j (d_ij - p_i).
        """
        involved = [self.active, *self.inactive]
        if self.alpha_gate.grad is None:
            raise RuntimeError("the gates have no gradient: sample in mode full or two, then run backward")
        gates, alphas = self.alpha_gate.grad[involved], self.alpha_prob[involved]
        probabilities = alphas.softmax(0)
        if self.alpha_prob.grad is None:
            self.alpha_prob.grad = torch.zeros_like(self.alpha_prob)
        self.alpha_prob.grad[involved] += probabilities * (gates - (gates * probabilities).sum())
        self._before = alphas

    @torch.no_grad()
    def rescale(self):
        """After a step in mode ``two``: keep the sum of the two exponentials, so the others' probabilities."""
        if self.mode != "two" or self._before is None:
            return
        involved = [self.active, *self.inactive]
        alphas = self.alpha_prob[involved]
        self.alpha_prob[involved] = alphas - (alphas.logsumexp(0) - self._before.logsumexp(0))
        self._before = None


def _draw(alphas, count, generator):
    return torch.multinomial(alphas.softmax(0), count, generator=generator).tolist()
