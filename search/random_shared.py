"""Random search with weight sharing (Li and Talwalkar, UAI 2019).

Every weight step runs one architecture, drawn uniformly, and the logits are not trained. After the last epoch, n
architectures are drawn and scored on dev with the shared weights, and the best one is the result. This is the baseline
that a search has to beat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from search.choice import Draw
from search.paths import FixedPath, draw_uniformly, scores_of_path
from util.cli import UserError

if TYPE_CHECKING:
    from search.choice import SearchSpace
    from search.relaxation import Relaxation

logger = logging.getLogger("mdarts")


class RandomShared(FixedPath):
    """The strategy ``random-shared``, see the module.

    Args:
        generator: See `search.relaxation.Relaxation`; required.
        draws: Number n of architectures that are scored at the end.

    Raises:
        UserError: ``draws`` is below 1.
    """

    learns = False

    def __init__(self, generator: torch.Generator, draws: int = 100) -> None:
        if draws < 1:
            raise UserError(f"--strategy_option draws={draws}: it must be at least 1")
        super().__init__(generator)
        self.draws = draws
        self.best: list[Draw | None] | None = None

    def attach(self, space: SearchSpace) -> Relaxation:
        """As `Relaxation.attach`; probabilities are uniform until `conclude`."""
        super().attach(space)
        for choice in self.choices:
            choice.distribution = lambda logits: torch.full_like(logits, 1 / logits.shape[-1])
        return self

    def draw(self, phase: str) -> None:
        """Draw an architecture uniformly."""
        draw_uniformly(self.choices, self.generator)

    def decide(self) -> None:
        """Use the best architecture; before `conclude`, the architecture of the largest logits."""
        if self.best is None:
            super().decide()
            return
        for choice, drawn in zip(self.choices, self.best, strict=True):
            choice.drawn = drawn

    def conclude(self, score: Callable[[], tuple[float, ...]]) -> dict[str, Any]:
        """Draw and score n architectures, and select the best; the first of equals wins."""
        found: Any = None
        for number in range(1, self.draws + 1):
            draw_uniformly(self.choices, self.generator)
            own = score()
            if found is None or own > found:
                found, self.best = own, [choice.drawn for choice in self.choices]
            logger.info("architecture %d of %d: %.4f, best %.4f", number, self.draws, own[0], found[0])
        self.decide()
        scores = scores_of_path(self.choices)
        for choice in self.choices:
            choice.distribution = lambda logits, own=scores[choice.key]: own.to(logits)
        return {"architectures": self.draws, "score": found[0]}
