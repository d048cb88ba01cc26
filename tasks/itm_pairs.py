"""Scores pairs of images and captions of a full split: captions are encoded once, two settings limit the memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from util.distributed import gather, rank, world_size
from util.nested import to_device
from util.progress import progress

if TYPE_CHECKING:
    from datasets.itm import ITM
    from engine.updates import Precision
    from models.mmnas.matching import Captions, MatchingNet

# Images that are projected together; more if more pairs are scored together.
_IMAGES = 64
# Minimum images per caption of a block for scoring caption by caption, each with all its images, to be faster.
_TOGETHER = 4
# Maximum number of pairs that are listed in memory at a time.
_LISTED = 2**21


def own_share(count: int) -> np.ndarray:
    """The items, out of ``count``, that this process works on: int64 (m,), consecutive."""
    return np.array_split(np.arange(count), world_size())[rank()]


class PairScorer:
    """Scores pairs with the current weights (and path) of a network, in evaluation mode.

    Captions are encoded once, in blocks of ``hold``, sorted by length. For each block the images are projected in order
    and not kept; with at most ``hold`` captions, they too are projected only once.

    Args:
        net: `MatchingNet`.
        data: `datasets.itm.ITM`.
        device: Device of the network.
        precision: `engine.updates.Precision`.
        pairs: Pairs that are scored together. Memory: about 10 regions x 4 H numbers for each, 3 MB at H = 512.
        hold: Captions that are kept encoded. Memory: words x H numbers for each, 25 KB at H = 512.
    """

    def __init__(
        self, net: MatchingNet, data: ITM, device: torch.device, precision: Precision, *, pairs: int, hold: int
    ) -> None:
        self.net, self.data, self.device, self.precision = net, data, device, precision
        self.pairs, self.hold = pairs, hold

    @contextlib.contextmanager
    def scoring(self) -> Iterator[PairScorer]:
        """Context in evaluation mode without gradients; restores the previous mode afterwards."""
        training = self.net.training
        self.net.eval()
        try:
            with torch.no_grad(), self.precision.autocast():
                yield self
        finally:
            self.net.train(training)

    def blocks(self, captions: np.ndarray) -> Iterator[tuple[np.ndarray, Captions]]:
        """Encode ``captions`` int64 (m,) in blocks; yields their numbers, sorted by length, and their `Captions`."""
        from models.mmnas.matching import Captions

        ordered = captions[np.argsort(self.data.lengths()[captions], kind="stable")]
        for start in range(0, len(ordered), self.hold):
            held = ordered[start : start + self.hold]
            parts = range(0, len(held), self.pairs)
            title = f"captions {start:,} to {start + len(held):,}"
            tokens = (
                self.data.captions(held[at : at + self.pairs]) for at in progress(parts, title, disable=rank() > 0)
            )
            yield held, Captions.joined([self.net.encode(part.to(self.device)) for part in tokens])

    def score(self, captions: Captions, image: np.ndarray, place: np.ndarray, title: str | None = None) -> np.ndarray:
        """Scores of P pairs.

        Args:
            captions: `Captions` of `blocks`.
            image: int64 (P,), numbers of the images in the data set.
            place: int64 (P,), positions of the captions in the block.
            title: Text of a progress bar; None: no bar.

        Returns:
            float32 (P,).
        """
        # Sorted by image, then by caption and so by length: little padding, and pairs of an image are adjacent.
        width = len(captions.lengths)
        wanted, inverse = np.unique(image * width + place, return_inverse=True)
        image, place = np.divmod(wanted, width)
        scores = np.empty(len(wanted), dtype=np.float32)
        distinct, firsts = np.unique(image, return_index=True)
        borders, size = [*firsts, len(image)], max(min(_IMAGES, self.pairs), self.pairs // 8)
        blocks = range(0, len(distinct), size)
        for start in progress(blocks, title, unit="block", disable=title is None or rank() > 0):
            images = distinct[start : start + size]
            piece = slice(borders[start], borders[start + len(images)])
            scores[piece] = self._block(captions, images, np.searchsorted(images, image[piece]), place[piece])
        return scores[inverse]

    def _block(self, captions, images, member, place):
        """Scores of pairs: ``images[member]`` with the captions at ``place``."""
        projected = self.net.project(to_device(self.data.images(images), self.device))
        order = np.lexsort((member, place))
        which, firsts, counts = np.unique(place[order], return_index=True, return_counts=True)
        scores = np.empty(len(order), dtype=np.float32)
        if len(order) < _TOGETHER * len(which):
            parts = torch.from_numpy(np.stack([member, place])[:, order]).to(self.device).split(self.pairs, dim=1)
            outputs = [self.net.match(projected, captions, *part) for part in parts]
            scores[order] = torch.cat(outputs).cpu().numpy()
            return scores
        longest = int(counts.max())
        step = max(1, self.pairs // longest)
        # Every caption of a batch has the same number of images; missing ones are filled with its last image.
        column = np.arange(longest)
        real = column < counts[:, None]
        slots = member[order][firsts[:, None] + np.minimum(column, counts[:, None] - 1)]
        batches = [torch.from_numpy(part).to(self.device).split(step) for part in (slots, which)]
        outputs = [self.net.match(projected, captions, *batch) for batch in zip(*batches, strict=True)]
        scores[order] = torch.cat(outputs).cpu().numpy()[real]
        return scores

    def matrix(self, images: np.ndarray, title: str) -> np.ndarray:
        """Scores of the images ``images`` int64 (m,) with every caption: float32 (m, 5 n)."""
        scores = np.empty((len(images), len(self.data.lengths())), dtype=np.float32)
        with self.scoring():
            for held, captions in self.blocks(np.arange(scores.shape[1])):
                parts = range(0, len(images), max(1, _LISTED // len(held)))
                for start in progress(parts, title, unit="part", disable=rank() > 0):
                    rows = images[start : start + parts.step]
                    image, place = (grid.ravel() for grid in np.meshgrid(rows, np.arange(len(held)), indexing="ij"))
                    part = self.score(captions, image, place).reshape(len(rows), len(held))
                    scores[start : start + len(rows), held] = part
        return scores


class Retrieval:
    """Retrieval scores of a network on one split; every process scores a share of the images.

    Args:
        build: Function net -> `PairScorer`.
        title: Name of the split in progress bars.
        fold: Images of a fold; the mean scores over folds are added with the prefix ``1K`` (COCO). None: no folds.

    Attributes:
        matrix: float32 (n, 5 n), scores of all pairs in the last call.
        scores: The result of the last call.
    """

    def __init__(self, build: Callable[[MatchingNet], PairScorer], title: str, fold: int | None = None) -> None:
        self._build, self._title, self._fold = build, title, fold
        self.matrix: Any = None
        self.scores: Any = None

    def __call__(self, net: MatchingNet) -> dict[str, float]:
        """Scores of the network: dict of `metrics.retrieval.retrieval_scores`."""
        from metrics.retrieval import retrieval_scores

        scorer = self._build(net)
        own = scorer.matrix(own_share(scorer.data.num_images), self._title)
        self.matrix = np.concatenate(gather(own))
        self.scores = retrieval_scores(self.matrix)
        if self._fold:
            folds = retrieval_scores(self.matrix, self._fold)
            self.scores |= {f"{self._fold // 1000}K {name}": value for name, value in folds.items()}
        return self.scores
