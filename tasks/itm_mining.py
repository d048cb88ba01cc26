"""Mining of hard negatives: the random candidates with the highest scores."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datasets.itm.negatives import hardest, other_captions, other_images
from search.gates import draw_path
from tasks.itm_pairs import own_share
from util.distributed import gather

if TYPE_CHECKING:
    from tasks.itm_pairs import PairScorer

logger = logging.getLogger("mdarts")


def mine(scorer: PairScorer, key: tuple[int, ...], *, candidates: int) -> tuple[tuple[np.ndarray, ...], int]:
    """Mine hard negatives of a full split; every process mines a share, and all receive the complete tables.

    Args:
        scorer: `PairScorer`.
        key: Seed and epoch; the draws depend only on them.
        candidates: Number of random candidates for each image and for each caption.

    Returns:
        (captions int64 (n, size), images int64 (5 n, size)), the arguments of `Negatives.set`, and the number of pairs
        that this process scored.
    """
    data, count = scorer.data, 0
    size, total = data.negatives.size, data.num_images
    images, captions = own_share(total), own_share(5 * total)
    drawn = other_captions(key, images, candidates, total)
    of_images = np.empty(drawn.shape, dtype=np.float32)
    of_captions = np.empty((len(captions), size), dtype=np.int64)
    with scorer.scoring():
        for held, encoded in scorer.blocks(np.arange(5 * total)):
            places = np.full(5 * total, -1)
            places[held] = np.arange(len(held))
            row, column = np.nonzero(places[drawn] >= 0)
            own = held[np.isin(held, captions)]
            others = other_images(key, own, candidates, total)
            image = np.concatenate([images[row], others.ravel()])
            place = np.concatenate([places[drawn[row, column]], np.repeat(places[own], candidates)])
            scores = scorer.score(encoded, image, place, "hard negatives")
            count += len(scores)
            of_images[row, column] = scores[: len(row)]
            best = hardest(scores[len(row) :].reshape(others.shape), others, size)
            if len(own):
                of_captions[own - captions[0]] = best
    parts = gather((hardest(of_images, drawn, size), of_captions))
    return tuple(np.concatenate(tables) for tables in zip(*parts, strict=True)), count


class Mining:
    """Renews the tables of negatives before an epoch.

    Before epoch ``start`` they are drawn at random in every epoch. From then on they are mined every ``every`` epochs
    and stay unchanged in between. In a supernet, mining uses one random path, which depends only on seed and epoch; the
    previous path is restored afterwards.

    Args:
        scorer: `PairScorer` of the training split.
        seed: Seed of all draws.
        candidates: See `mine`.
        start, every: First epoch with mining, from 0, and epochs from one mining to the next.
        period_from: ``start``: mine in epoch ``start`` and every ``every`` epochs after it; ``zero``: mine in the
            epochs from ``start`` on that are multiples of ``every``, as in the original.
    """

    def __init__(
        self,
        scorer: PairScorer,
        seed: int,
        *,
        candidates: int,
        start: int = 0,
        every: int = 1,
        period_from: str = "start",
    ) -> None:
        self.scorer, self.seed = scorer, seed
        self.candidates, self.start, self.every = candidates, start, every
        self.offset = start if period_from == "start" else 0

    def __call__(self, epoch: int) -> dict[str, dict[str, float]]:
        """Renew the tables for an epoch; returns ``{"mining": {"seconds": s, "pairs": p}}`` if it mined, else {}."""
        negatives = self.scorer.data.negatives
        if epoch < self.start:
            negatives.draw(self.seed, epoch)
            return {}
        if (epoch - self.offset) % self.every:
            return {}
        started, choices = time.perf_counter(), self.scorer.net.choices()
        drawn = [choice.drawn for choice in choices]
        draw_path(choices, torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        tables, count = mine(self.scorer, (self.seed, epoch), candidates=self.candidates)
        for choice, before in zip(choices, drawn, strict=True):
            choice.drawn = before
        negatives.set(*tables)
        pairs, seconds = sum(gather(count)), time.perf_counter() - started
        logger.info("epoch %d: hard negatives of %s pairs in %.1f s", epoch, f"{pairs:,}", seconds)
        return {"mining": {"seconds": seconds, "pairs": float(pairs)}}

    def state_dict(self) -> dict[str, Any]:
        """The tables, since not every epoch renews them."""
        return self.scorer.data.negatives.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the tables of `state_dict`; an imported checkpoint has none (an empty dict)."""
        if state:
            self.scorer.data.negatives.load_state_dict(state)
