"""GDAS: one candidate of every choice runs, drawn by the Gumbel-max trick (Dong and Yang, CVPR 2019, section 3.2).

With l = log softmax(logits), Gumbel noise G and a temperature tau, only the candidate argmax(l + G) runs and gives the
output; its weight, 1, gets the gradient of softmax((l + G) / tau). The temperature falls linearly over the epochs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from search.choice import Draw
from search.relaxation import Relaxation, logits_on_cpu

if TYPE_CHECKING:
    from search.choice import Choice


class _StraightThrough(torch.autograd.Function):
    """Returns the first tensor in the forward pass and passes the gradient on to the second."""

    @staticmethod
    def forward(ctx, hard, soft):
        return hard.view_as(hard)

    @staticmethod
    def backward(ctx, gradient):
        return None, gradient


class GDAS(Relaxation):
    """One candidate per choice, drawn by the Gumbel-max trick; see the module.

    Args:
        generator: See `Relaxation`; required.
        temperature: Temperature of the first and of the last epoch.
    """

    def __init__(self, generator: torch.Generator, temperature: tuple[float, float] = (10.0, 0.1)) -> None:
        super().__init__(generator)
        self.first, self.last = temperature
        self.temperature = self.first
        self._noise: dict[str, torch.Tensor] = {}

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the temperature of ``epoch``."""
        self.temperature = self.first + (self.last - self.first) * epoch / max(1, epochs - 1)

    def draw(self, phase: str) -> None:
        """Draw noise for all logits, and so one candidate per row; the same for both kinds of step."""
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            noise = -torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=self.generator).log()
            drawn = (logits.double().log_softmax(-1) + noise).argmax(-1)
            choice.drawn = Draw(tuple(drawn.flatten().tolist()), gated=True)
            self._noise[choice.key] = noise

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """One-hot weights of the drawn candidates, with straight-through gradients."""
        assert choice.drawn is not None  # `draw` comes first
        active = torch.tensor(choice.drawn.active, device=logits.device).view(logits.shape[:-1])
        hard = torch.nn.functional.one_hot(active, logits.shape[-1]).to(logits.dtype)
        if not choice.drawn.gated:
            return hard
        noise = self._noise[choice.key].to(logits)
        return _StraightThrough.apply(hard, ((logits.log_softmax(-1) + noise) / self.temperature).softmax(-1))
