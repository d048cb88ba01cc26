"""Learning-rate schedules with one value per optimiser step."""

import math
from collections.abc import Iterable
from typing import Any

# The original restarts a cycle only when the rate of a step is this close to the minimum.
_AT_MINIMUM = 1e-10


class CosineRestarts:
    """Cosine annealing with warm restarts (Loshchilov and Hutter, ICLR 2017, equation 5).

    Args:
        eta_max, eta_min: Largest and smallest learning rate.
        Ti: Length of the first cycle in epochs.
        Tm: Factor by which each cycle is longer than the previous one.
        batches_per_epoch: Number of steps per epoch, a float: dataset size / batch size.
        restarts: ``original``: a cycle only ends when a step hits the minimum almost exactly. If the number of steps
            per cycle is not an integer, the rate rises again along the cosine instead of jumping.
            ``sgdr``: a cycle ends after its Ti epochs, as in the paper.
    """

    def __init__(
        self, eta_max: float, eta_min: float, Ti: int, Tm: int, batches_per_epoch: float, restarts: str = "original"
    ) -> None:
        self.eta_max, self.eta_min = eta_max, eta_min
        self.Ti, self.Tm = Ti, Tm
        self.batches_per_epoch = batches_per_epoch
        self.restarts = restarts
        self.counter = 0

    def step(self) -> float:
        """Return the learning rate of the next optimiser step and advance."""
        if self.eta_min == self.eta_max:  # the rate is constant
            return self.eta_max
        t = self.counter / self.batches_per_epoch
        self.counter += 1
        rate = self.eta_min + 0.5 * (self.eta_max - self.eta_min) * (1 + math.cos(math.pi * t / self.Ti))
        if self._cycle_ends(rate):
            self.counter = 0
            self.Ti *= self.Tm
        return rate

    def _cycle_ends(self, rate):
        if self.restarts == "original":
            return rate <= self.eta_min + _AT_MINIMUM
        return self.counter >= self.Ti * self.batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """The position in the schedule."""
        return {"counter": self.counter, "Ti": self.Ti}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position."""
        self.counter, self.Ti = state["counter"], state["Ti"]


class WarmupStepDecay:
    """Three epochs at 1/4, 2/4 and 3/4 of the rate, then the full rate, multiplied by a factor at given epochs (MMNas).

    Args:
        rate: The full learning rate.
        batches_per_epoch: Number of steps per epoch, an integer.
        decay_epochs: Epochs (from 0) at whose start the rate is multiplied by ``factor``.
        factor: See ``decay_epochs``.
        warm_up: If False, start with the full rate.
    """

    def __init__(
        self,
        rate: float,
        batches_per_epoch: int,
        decay_epochs: Iterable[int] = (),
        factor: float = 1.0,
        warm_up: bool = True,
    ) -> None:
        self.rate = rate
        self.batches_per_epoch = batches_per_epoch
        self.decay_epochs = tuple(decay_epochs)
        self.factor = factor
        self.warm_up = warm_up
        self.counter = 0

    def step(self) -> float:
        """Return the learning rate of the next optimiser step and advance."""
        epoch = self.counter // self.batches_per_epoch
        self.counter += 1
        rate = self.rate
        for decay_epoch in self.decay_epochs:
            rate *= self.factor if epoch >= decay_epoch else 1
        return rate * min(1.0, 0.25 * (epoch + 1)) if self.warm_up else rate

    def state_dict(self) -> dict[str, Any]:
        """The position in the schedule."""
        return {"counter": self.counter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position.

        Raises:
            ValueError: the state contains the number of steps per epoch (imported states do), and it differs.
        """
        before = state.get("batches_per_epoch", self.batches_per_epoch)
        if before != self.batches_per_epoch:
            raise ValueError(f"its epochs had {before} steps, now {self.batches_per_epoch}: other data or batch size")
        self.counter = state["counter"]
