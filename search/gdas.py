"""GDAS: one candidate of every choice runs, drawn by the Gumbel-max trick (Dong and Yang, CVPR 2019).

With l = log softmax(logits), Gumbel noise G and a temperature tau, only the candidate argmax(l + G) runs and produces
the output. Its weight is 1, and the gradient of this weight is that of softmax((l + G) / tau). The temperature falls
linearly over the epochs.

Gumbel-Rao (Paulus et al., ICLR 2021; used by GRMC-BMNAS): the gradient is the mean over K draws of G that agree on the
candidate, which keeps its expectation and lowers its variance. The first of them is the G that chose the candidate, so
K = 1 is GDAS. The others are drawn from the distribution of G given the choice.

With ordered pairs (BM-NAS, our own addition, see `search.ordered_pairs`) the edges of a step compete, and Gumbel top-2
draws two different states as its first and second argument. All states are computed anyway, so all of them contribute
gradients and not only the drawn ones: those of softmax((l + G) / tau) over all states for the first argument, and over
its partners for the second.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from search.choice import Draw
from search.gates import gated_sum
from search.ordered_pairs import (
    draw_of,
    firsts,
    pair_scores,
    partners,
    probabilities,
    strongest_pairs,
    top_pairs,
)
from search.relaxation import ARCHITECTURE, Relaxation, logits_on_cpu
from util.cli import UserError

if TYPE_CHECKING:
    from search.choice import Choice, SearchSpace


class _StraightThrough(torch.autograd.Function):
    """Returns the first tensor in the forward pass, and passes the gradient to the second in the backward pass."""

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
        temperature: Temperature in the first and in the last epoch, greater than 0.
        gumbel_samples: Number K of draws of Gumbel-Rao; 1: GDAS.
        pairs: Draw ordered pairs of edges.

    Raises:
        UserError: ``gumbel_samples`` is below 1, or a temperature is not positive.
    """

    def __init__(
        self,
        generator: torch.Generator,
        temperature: tuple[float, float] = (10.0, 0.1),
        gumbel_samples: int = 1,
        pairs: bool = False,
    ) -> None:
        if gumbel_samples < 1:
            raise UserError(f"--strategy_option gumbel_samples={gumbel_samples}: it must be at least 1")
        if min(temperature) <= 0:
            raise UserError(f"--strategy_option temperature={temperature}: both temperatures must be greater than 0")
        super().__init__(generator)
        self.first, self.last = temperature
        self.temperature = self.first
        self.gumbel_samples, self.ordered_pairs = gumbel_samples, pairs
        # Key of a choice -> the noise tensors of the step: the drawn one, then those that agree with it.
        self._noises: dict[str, list[torch.Tensor]] = {}

    def attach(self, space: SearchSpace) -> Relaxation:
        """As `Relaxation.attach`.

        Raises:
            UserError: pairs are requested, but the space has no edges that can be drawn in pairs.
        """
        if self.ordered_pairs:
            paired = [choice for choice in space.choices() if choice.pairs]
            if not paired:
                raise UserError(
                    "--strategy_option pairs=True: steps of this network do not have two arguments; drop the option"
                )
            for choice in paired:
                choice.distribution = functools.partial(probabilities, choice)
        return super().attach(space)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the temperature of ``epoch``."""
        self.temperature = self.first + (self.last - self.first) * epoch / max(1, epochs - 1)

    def draw(self, phase: str) -> None:
        """Draw Gumbel noise for all logits, and with it one candidate per row; the same for both kinds of step.

        In architecture steps, the other K - 1 noise tensors are drawn too, and gradients flow to the logits.
        """
        gated = phase == ARCHITECTURE
        more = self.gumbel_samples - 1 if gated else 0
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            if self._pairs(choice):
                scores = pair_scores(choice, logits.double())
                noise = self._gumbel(scores)
                choice.drawn = draw_of(choice, top_pairs(choice.pairs, scores + noise), gated=gated)
                others = [self._noise_given_pairs(choice, scores) for _ in range(more)]
            else:
                scores = logits.double().log_softmax(-1)
                noise = self._gumbel(scores)
                drawn = (scores + noise).argmax(-1)
                choice.drawn = Draw(tuple(drawn.flatten().tolist()), gated=gated)
                others = [self._noise_given(scores, drawn) for _ in range(more)]
            self._noises[choice.key] = [noise, *others]

    def decide(self) -> None:
        """Use only the most probable candidates, or pairs if edges are drawn in pairs."""
        super().decide()
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            if self._pairs(choice):
                taken = probabilities(choice, logits)[:, choice.pairs.chosen]
                choice.drawn = draw_of(choice, strongest_pairs(choice.pairs, taken))

    def weights(self, choice: Choice, logits: torch.Tensor) -> torch.Tensor:
        """One-hot weights of the drawn candidates, with straight-through gradients."""
        assert choice.drawn is not None  # `draw` comes first
        active = torch.tensor(choice.drawn.active, device=logits.device).view(logits.shape[:-1])
        hard = torch.nn.functional.one_hot(active, logits.shape[-1]).to(logits.dtype)
        if not (choice.drawn.gated and logits.requires_grad):
            return hard  # weight steps do not use the gradient of the soft weights
        return _StraightThrough.apply(hard, self._soft(logits.log_softmax(-1), choice))

    def arguments(
        self, choice: Choice, states: Sequence[Any], step: int, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The drawn pair of states. In architecture steps, gradients reach the logits through all states."""
        assert choice.drawn is not None  # `draw` comes first
        first, second = choice.drawn.pairs[step]
        if not (choice.drawn.gated and logits.requires_grad):
            return states[first], states[second]
        eligible = choice.pairs.eligible(step, list(choice.drawn.pairs[:step]))
        start = sum(choice.pairs.counts[:step])
        rows = slice(start, start + choice.pairs.counts[step])
        scores, found = pair_scores(choice, logits)[rows], []
        for state, allowed in ((first, firsts(eligible)), (second, partners(eligible, first))):
            soft = self._soft(scores[allowed].log_softmax(0), choice, [start + k for k in allowed])
            order = [allowed.index(state), *(k for k in range(len(allowed)) if allowed[k] != state)]
            found.append(gated_sum(soft, order, [states[allowed[k]] for k in order]))
        return found[0], found[1]

    def _pairs(self, choice):
        return self.ordered_pairs and choice.pairs is not None

    def _soft(self, scores, choice, rows=None):
        """Mean over the noise tensors of softmax((scores + noise) / temperature), restricted to ``rows``."""
        noises = (noise if rows is None else noise[rows] for noise in self._noises[choice.key])
        parts = [((scores + noise.to(scores)) / self.temperature).softmax(-1) for noise in noises]
        return parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)

    def _exponential(self, scores):
        return torch.empty(scores.shape, dtype=torch.float64).exponential_(generator=self.generator)

    def _gumbel(self, scores):
        return -self._exponential(scores).log()

    def _noise_given(self, scores, drawn):
        """Gumbel noise, given that scores + noise has its maximum at ``drawn``.

        exp(-(scores + noise)) are arrival times of Poisson processes with rates p = exp(scores). The earliest arrival
        has the total rate 1, and each of the others follows it after a time with its own rate.

        Args:
            scores: Log probabilities (..., n).
            drawn: Indices (...).
        """
        times = self._exponential(scores)
        index = drawn.unsqueeze(-1)
        earliest = times.gather(-1, index)
        times = (earliest + times / scores.exp()).scatter(-1, index, earliest)
        return -times.log() - scores

    def _noise_given_pairs(self, choice, scores):
        """Gumbel noise (rows,), given that `top_pairs` finds the drawn pairs; see `_noise_given` for arrival times.

        The first argument arrives first, and then the earliest of its partners, at the sum of the partners' rates.
        States that are not partners only have to be later than the first argument, and the noise of states that are
        not eligible is unconstrained.
        """
        times, rates = self._exponential(scores), scores.exp()
        earlier: list[tuple[int, int]] = []
        start = 0
        for step, (count, pair) in enumerate(zip(choice.pairs.counts, choice.drawn.pairs, strict=True)):
            eligible = choice.pairs.eligible(step, earlier)
            first, second = (start + state for state in pair)
            every = [start + state for state in firsts(eligible)]
            others = [start + state for state in partners(eligible, pair[0])]
            waits = times / rates
            times[start : start + count] = waits[start : start + count]
            times[first] = waits[first] * rates[first] / rates[every].sum()
            for row in every:
                if row != first:
                    times[row] = times[first] + waits[row]
            times[second] = times[first] + waits[second] * rates[second] / rates[others].sum()
            for row in others:
                if row != second:
                    times[row] = times[second] + waits[row]
            earlier.append(pair)
            start += count
        return -times.log() - scores
