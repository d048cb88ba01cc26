"""Mining of hard negatives (specification section 8): the random candidates that the network scores highest."""

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
    """Tables of hard negatives of a whole split; every process finds a share, and all get everything.

    Args:
        scorer: `PairScorer`.
        key: Tuple of ints, seed and epoch: what is drawn depends on it alone.
        candidates: Random candidates of each image and of each caption.

    Returns:
        (captions int64 (n, size), images int64 (5 n, size)), as `Negatives.set` takes them, and the number of pairs
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
    """What matching does before every epoch: new tables of negatives.

    Before epoch ``start`` they are drawn at random in every epoch; from then on they are mined in every so many
    epochs (``every``), and else stay. A searched network is mined with one random path, drawn from seed and epoch
    alone; afterwards its path is what it was.

    Args:
        scorer: `PairScorer` of the training split.
        seed: Seed of all draws.
        candidates: See `mine`.
        start, every: When to mine.
        period_from: ``start``: epoch ``start`` is the first that is mined; ``zero``: of the epochs from ``start`` on
            those that ``every`` divides, as in the original.
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
        """Renew the tables for an epoch; returns ``{"mining": {"seconds": s, "pairs": p}}`` where it mined."""
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
        """The tables: not every epoch renews them."""
        return self.scorer.data.negatives.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the tables of `state_dict`."""
        self.scorer.data.negatives.load_state_dict(state)
