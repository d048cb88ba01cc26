"""Caches the batches of a split, with features instead of inputs, while a network is scored repeatedly."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch

from engine.loading import to_device
from util.memory import available_memory
from util.nested import tensors_in

logger = logging.getLogger("mdarts")

# Kept batches may use this fraction of the free memory.
_SHARE = 0.5


class KeptBatches:
    """The batches of a loader. The first pass computes features and keeps them; later passes reuse them.

    All passes yield the same batches, bit for bit, as long as the backbones and the order of the loader do not change.
    If the batches would not fit into memory, every pass reads and computes them.

    Args:
        evaluation: The `engine.training.Evaluation` whose loader is read, on its device and in its precision.
        net: A network with a method ``with_features``, see `models.bmnas.fusion_net.FusionNet`.
        limit: Number of bytes that may be kept; None: half of the free memory, divided by the number of processes on
            this machine.
    """

    def __init__(self, evaluation: Any, net: Any, limit: int | None = None) -> None:
        self.loader, self.net, self.limit = evaluation.loader, net, limit
        self.device, self.precision = evaluation.options["device"], evaluation.options["precision"]
        # `Evaluation` sets the loader's order through this attribute.
        self.batch_sampler = evaluation.loader.batch_sampler
        self._kept: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[dict[str, Any]] | None = []
        for batch in self.loader:
            if kept is None:
                yield batch
                continue
            with torch.no_grad(), self.precision.autocast():
                made = self.net.with_features(to_device(batch, self.device))
            if not kept and not self._fits(made):
                kept = None
            else:
                kept.append(made)
            yield made
        self._kept = kept

    def _fits(self, first):
        """Whether all batches of the loader may be kept, if each is as large as the first."""
        limit = self.limit
        if limit is None:
            free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else available_memory()
            limit = int(_SHARE * free / int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        size = len(self) * sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(first))
        if size > limit:
            logger.info(
                "features of dev: computed in every pass, since %s bytes would not fit into memory", f"{size:,}"
            )
        return size <= limit


@contextlib.contextmanager
def features_kept(scorer: Any, net: Any, limit: int | None = None) -> Iterator[None]:
    """Context manager in which ``scorer`` computes the features of each batch only once.

    It has no effect on scorers that are not an `Evaluation`, and on networks without ``with_features``.

    Args:
        scorer: An `engine.training.Evaluation`, or any function.
        net: The network that is scored. Its backbones must not change meanwhile.
        limit: See `KeptBatches`.
    """
    if not hasattr(scorer, "loader") or not hasattr(net, "with_features"):
        yield
        return
    loader = scorer.loader
    kept: Any = KeptBatches(scorer, net, limit)
    scorer.loader = kept
    try:
        yield
    finally:
        scorer.loader = loader
