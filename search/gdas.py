"""GDAS: one candidate of every choice runs, drawn by the Gumbel-max trick (Dong and Yang, CVPR 2019, section 3.2).

With l = log softmax(logits), Gumbel noise G and a temperature tau, the candidate argmax(l + G) runs alone and gives the
output; its weight, 1, gets the gradient of softmax((l + G) / tau). The temperature falls linearly over the epochs.
"""

import torch

from search.choice import Draw
from search.relaxation import Relaxation, logits_on_cpu


class _StraightThrough(torch.autograd.Function):
    """The first tensor forward, the gradient of the second backward."""

    @staticmethod
    def forward(ctx, hard, soft):
        return hard.view_as(hard)

    @staticmethod
    def backward(ctx, gradient):
        return None, gradient


class GDAS(Relaxation):
    """See the module.

    Args:
        generator: See `Relaxation`; needed.
        temperature: Temperature of the first and of the last epoch.
    """

    def __init__(self, generator, temperature=(10.0, 0.1)):
        super().__init__(generator)
        self.first, self.last = temperature
        self.temperature = self.first
        self._noise = {}

    def begin_epoch(self, epoch, epochs):
        """Set the temperature."""
        self.temperature = self.first + (self.last - self.first) * epoch / max(1, epochs - 1)

    def draw(self, phase):
        """Draw noise for all logits, and with it one candidate per row; alike for both kinds of step."""
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            noise = -torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=self.generator).log()
            drawn = (logits.double().log_softmax(-1) + noise).argmax(-1)
            choice.drawn = Draw(tuple(drawn.flatten().tolist()), gated=True)
            self._noise[choice.key] = noise

    def weights(self, choice, logits):
        """One-hot weights of the drawn candidates, with straight-through gradients."""
        active = torch.tensor(choice.drawn.active, device=logits.device).view(logits.shape[:-1])
        hard = torch.nn.functional.one_hot(active, logits.shape[-1]).to(logits.dtype)
        if not choice.drawn.gated:
            return hard
        noise = self._noise[choice.key].to(logits)
        return _StraightThrough.apply(hard, ((logits.log_softmax(-1) + noise) / self.temperature).softmax(-1))
