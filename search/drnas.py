"""DrNAS: the weights of the mixture are a random point of the simplex (Chen et al., ICLR 2021).

w ~ Dirichlet(c) with c = elu(logits) + 1, and out = sum_k w_k o_k. The mean is E[w] = c / sum(c), and for large c the
weights are close to it. Gradients reach the logits by the pathwise derivative of the draw (implicit differentiation, as
in torch's `Dirichlet.rsample`). Every candidate runs, so only spaces that support this (BM-NAS) can be searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from search.regularizers import DirichletKL, concentrations
from search.relaxation import Relaxation, logits_on_cpu
from util.cli import UserError

if TYPE_CHECKING:
    from search.choice import Choice, SearchSpace


class _Sample(torch.autograd.Function):
    """Forward: the drawn weights. Backward: the pathwise derivative of a Dirichlet draw."""

    @staticmethod
    def forward(ctx, concentration, sample):
        ctx.save_for_backward(concentration, sample)
        return sample.clone()

    @staticmethod
    def backward(ctx, gradient):
        concentration, sample = ctx.saved_tensors
        total = concentration.sum(-1, True).expand_as(concentration)
        slope = torch._dirichlet_grad(sample, concentration, total)
        return slope * (gradient - (sample * gradient).sum(-1, True)), None


class DrNAS(Relaxation):
    """The strategy ``drnas``, see the module.

    Args:
        generator: See `Relaxation`; required.
        kl: Weight of the sum over rows of KL(Dir(c) || Dir(1)) in architecture steps; 0.001 in the authors' code.

    Raises:
        UserError: ``kl`` is negative.
    """

    runs_all = True  # what it draws are weights
    needs_mixture = True

    def __init__(self, generator: torch.Generator, kl: float = 1e-3) -> None:
        if kl < 0:
            raise UserError(f"--strategy_option kl={kl}: it must be at least 0; 0 switches the regulariser off")
        super().__init__(generator)
        self.regularizers.append(DirichletKL(kl))
        self._samples: dict[str, torch.Tensor | None] = {}

    def attach(self, space: SearchSpace) -> Relaxation:
        """As `Relaxation.attach`; the probabilities of the choices are the means c / sum(c) from now on."""
        super().attach(space)
        for choice in self.choices:
            choice.distribution = _mean
        return self

    def draw(self, phase: str) -> None:
        """Draw the weights of all rows; the same for both kinds of step."""
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            sample = torch._sample_dirichlet(concentrations(logits.double()), generator=self.generator)
            self._samples[choice.key] = sample.clamp(min=1e-12)

    def decide(self) -> None:
        """Use the mean weights until the next draw; every candidate still runs."""
        self._samples = dict.fromkeys((choice.key for choice in self.choices), None)

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """The drawn weights with gradients to the logits, or the mean weights after `decide`."""
        sample = self._samples[choice.key]
        return _mean(logits) if sample is None else _Sample.apply(concentrations(logits), sample.to(logits))


def _mean(logits):
    c = concentrations(logits)
    return c / c.sum(-1, True)
