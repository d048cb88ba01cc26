"""All features of the encoders for your own data, as arrays: for baselines and tables of features."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.features import CachedFeatures, FeatureCache
from engine.loading import total_batch
from engine.updates import Precision
from models.backbone_net import BackboneNet
from util.cli import UserError

if TYPE_CHECKING:
    from tasks.task import FusionTask, LabelledData


class _AllFeatures(BackboneNet):
    """Frozen backbones whose features are all computed."""

    def cacheable(self) -> list[str]:
        """All backbones."""
        return list(self.backbones)

    def needed(self, name: str) -> list[int]:
        """All features."""
        return list(range(len(self.backbones[name].channels)))


def all_features(task: FusionTask, args: Namespace, data: LabelledData) -> dict[str, list[np.ndarray]]:
    """The tapped features of every encoder for every sample; features that a run has stored on disk are reused.

    Args:
        task, args: From `tasks.own.parse_found`.
        data: A split, from `tasks.bmnas.data.open_splits`.

    Returns:
        Modality -> list of an array for each tap: float32 (N, C, rows, columns), pooled to ``--L`` positions.

    Raises:
        UserError: ``--cache_features`` is off.
    """
    backbones = task.build_backbones(args)
    part = min(args.backbone_batch, total_batch(args))
    # Any: it is not one of the networks that `FeatureCache` declares, but has all that the cache uses.
    net: Any = _AllFeatures(backbones, task.pool(args), part).requires_grad_(False).eval()
    folder = args.cache_dir or Path(args.datadir) / "features"
    cpu = torch.device("cpu")
    cache = FeatureCache(net, args.cache_features, folder, cpu, Precision(args.amp, cpu), args.num_workers)
    cached = cache({data.split: data})[data.split]
    if not isinstance(cached, CachedFeatures):
        raise UserError("--cache_features off: features are needed here; use ram or disk")
    batch = cached.__getitems__(range(len(data)))
    return {name: [feature.numpy() for feature in batch[f"{name}_features"]] for name in backbones}
