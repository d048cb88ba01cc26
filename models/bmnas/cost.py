"""The cost of a found fusion network without its backbones: reshape layers, fusion and classifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.cost import cost_facts, costs_of
from models.backbone_net import ReshapeLayer
from models.bmnas.cells import FusionCell

if TYPE_CHECKING:
    from models.bmnas.fusion_net import FusionNet
    from models.genotypes import FusionGenotype

WHAT = "reshape layers, fusion and classifier of the found network"


class FusionPart(nn.Module):
    """A fusion network without backbones: pooled features -> class logits (N, K).

    Args:
        reshape: Index of a feature that is read -> its `ReshapeLayer`.
        fusion: `FusionCell` or `LateFusion`.
        num_outputs: Number of classes K.
        num_features: Number of features of all backbones, read or not.
    """

    def __init__(self, reshape: Mapping[int, ReshapeLayer], fusion: Any, num_outputs: int, num_features: int) -> None:
        super().__init__()
        self.reshape = nn.ModuleDict({str(index): layer for index, layer in reshape.items()})
        self.fusion = fusion
        self.classifier = nn.Linear(fusion.width, num_outputs)
        self.num_features = num_features

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        """Return logits (N, K).

        Args:
            features: The features that are read, (N, channels, rows, columns) each, in the order of ``reshape``.
        """
        read: list[torch.Tensor | None] = [None] * self.num_features
        for (index, layer), feature in zip(self.reshape.items(), features, strict=True):
            read[int(index)] = layer(feature)
        return self.classifier(self.fusion(read))

    def inputs(self, count: int, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Random arguments of `forward` for ``count`` samples."""
        layers: Iterable[Any] = self.reshape.values()
        return tuple(torch.randn(count, layer.conv.in_channels, *layer.pool).to(device) for layer in layers)


def fusion_part(net: FusionNet, genotype: FusionGenotype | None = None) -> FusionPart:
    """Fusion part of a network, on its device, for measuring its cost. Reshape layers and classifier are random copies.

    Args:
        net: A found network, or a supernet if ``genotype`` is given.
        genotype: Build the fusion of this genotype instead of using the network's own.
    """
    device = net.classifier.weight.device
    # Initial weights are drawn here, which must not change what the run draws afterwards.
    with torch.random.fork_rng(devices=[]):
        fusion, used = net.fusion, [int(index) for index in net.reshape]
        if genotype is not None:
            first: Any = next(iter(net.reshape.values()))
            length = first.pool[0] * first.pool[1]
            used = genotype.used_inputs()
            fusion = FusionCell.fixed(genotype, genotype.num_inputs, first.conv.out_channels, length, 0.0)
        layers: dict[int, Any] = {index: net.reshape[str(index)] for index in used}
        copies = {i: ReshapeLayer(r.conv.in_channels, r.conv.out_channels, r.pool, 0.0) for i, r in layers.items()}
        features = sum(len(backbone.channels) for backbone in net.backbones.values())
        classifier: Any = net.classifier
        part = FusionPart(copies, fusion, classifier.out_features, features)
        # If the fusion is the network's own, it is on this device already.
        return part.to(device)


def fusion_cost(net: FusionNet, batch: int, genotype: FusionGenotype | None = None) -> dict[str, Any]:
    """The entries of a result for the cost of a found network, see `engine.cost.cost_facts`.

    Args:
        net, genotype: See `fusion_part`.
        batch: Batch size of the second latency; the first is measured on one sample.
    """
    part = fusion_part(net, genotype)
    return cost_facts(part, part.inputs, net.classifier.weight.device, batch, WHAT)


def fusion_counts(net: FusionNet) -> dict[str, int]:
    """``parameters`` and ``flops`` of the fusion part of a found network, without measuring its latency."""
    part = fusion_part(net)
    return costs_of(part, part.inputs, net.classifier.weight.device)
