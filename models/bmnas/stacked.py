"""Trains many found networks with the same operations as one network, so that they share every kernel call.

The networks may read different features and have different weights. Each has its own outputs, batch statistics, dropout
masks and gradients, as if it were trained alone. Results differ from those of separate trainings by rounding and by the
dropout masks that are drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from models.bmnas.fusion_net import FusionNet


class StackedNets(nn.Module):
    """G found networks on the same frozen backbones: batch dict -> class logits (G, N, K).

    Args:
        nets: Networks of `tasks.bmnas.networks.build_found_net` whose genotypes have the same operations and inner
            edges. The backbones of the first one are used for all of them, frozen and in evaluation mode.

    Raises:
        ValueError: the networks differ in more than the features that their steps read.
    """

    def __init__(self, nets: Sequence[FusionNet]) -> None:
        super().__init__()
        operations = {_structure(net.fusion) for net in nets}
        if len(operations) > 1:
            raise ValueError(f"the networks have different operations: {sorted(operations)}")
        parts = [_Part(net) for net in nets]
        parameters, buffers = torch.func.stack_module_state(parts)
        self.names = {name.replace(".", "/"): name for name in parameters}
        self.stacked = nn.ParameterDict({key: nn.Parameter(parameters[name]) for key, name in self.names.items()})
        self.states = buffers
        # In lists, so that they are not registered as submodules.
        self._source, self._part = [nets[0]], [copy.deepcopy(parts[0]).to("meta")]

    def train(self, mode: bool = True) -> StackedNets:
        super().train(mode)
        if hasattr(self, "_part"):
            self._part[0].train(mode)
        return self

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return logits (G, N, K) of a batch dict in the form that `FusionNet` reads."""
        source = self._source[0]
        with torch.no_grad():
            features = [feature for name in source.backbones for feature in source.extract(batch, name)]
        parameters = {name: self.stacked[key] for key, name in self.names.items()}
        # Fused attention kernels would run once per network.
        with sdpa_kernel(SDPBackend.MATH):
            every = torch.vmap(self._one, in_dims=(0, 0, None), randomness="different")
            return every(parameters, self.states, features)

    def _one(self, parameters, buffers, features):
        return torch.func.functional_call(self._part[0], (parameters, buffers), (features,))


def summed_cross_entropy(outputs: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Cross entropy of logits (G, N, K) and ``batch["label"]``, int64 (N,): mean over samples, summed over networks.

    The gradient of each network is that of its own loss.
    """
    count = len(outputs)
    return F.cross_entropy(outputs.flatten(0, 1), batch["label"].repeat(count)) * count


class StackedAccuracy:
    """A metric: the number of correct samples of each of G networks."""

    name = "accuracy"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new pass."""
        self.correct: Any = 0

    def update(self, outputs: torch.Tensor, batch: dict[str, Any]) -> None:
        """Add logits (G, N, K) and ``batch["label"]``, int64 (N,)."""
        self.correct = self.correct + (outputs.argmax(dim=2) == batch["label"]).sum(dim=1)

    def compute(self) -> dict[str, Any]:
        """Return ``{"correct": int64 tensor (G,)}``."""
        return {"correct": self.correct}


class _Part(nn.Module):
    """The trained part of a found network, with a reshape layer for every feature and with edges as an index tensor."""

    def __init__(self, net):
        super().__init__()
        any_layer = next(iter(net.reshape.values()))
        in_channels = [width for backbone in net.backbones.values() for width in backbone.channels]
        layers = []
        for index, width in enumerate(in_channels):
            used = str(index) in net.reshape
            layer = copy.deepcopy(net.reshape[str(index)] if used else any_layer)
            if not used:
                # No step of this network reads the feature, so this weight has no gradient.
                layer.conv.weight = nn.Parameter(torch.zeros(any_layer.conv.out_channels, width, 1))
            layers.append(layer)
        self.reshape = nn.ModuleList(layers)
        self.fusion = copy.deepcopy(net.fusion)
        self.fusion.edges = _NumberedEdges(self.fusion.edges)
        self.classifier = copy.deepcopy(net.classifier)
        _replace_convolutions(self)

    def forward(self, features):
        reshaped = [layer(feature) for layer, feature in zip(self.reshape, features, strict=True)]
        return self.classifier(self.fusion(reshaped))


class _NumberedEdges(nn.Module):
    """Like `FixedEdges` without ``none``, but with indices in a tensor, so that they can differ between networks."""

    def __init__(self, edges):
        super().__init__()
        self.indices: torch.Tensor
        self.register_buffer("indices", torch.tensor([[index for _, index in pair] for pair in edges.pairs]))

    def forward(self, states, step):
        return torch.stack(list(states))[self.indices[step]].unbind(0)


class _Pointwise(nn.Module):
    """A convolution of kernel size 1 as a matrix product, since stacked convolutions are slow on a CPU."""

    def __init__(self, conv):
        super().__init__()
        self.weight, self.bias, self.in_channels = conv.weight, conv.bias, conv.in_channels

    def forward(self, x):
        return F.linear(x.transpose(1, 2), self.weight[:, :, 0], self.bias).transpose(1, 2)


def _replace_convolutions(module):
    for name, child in module.named_children():
        if isinstance(child, nn.Conv1d) and child.kernel_size == (1,):
            setattr(module, name, _Pointwise(child))
        else:
            _replace_convolutions(child)


def _structure(cell):
    """Operations and inner edges of a fixed cell, as text."""
    steps = [f"{[next(iter(ops)) for ops in node.ops]} on {node.edges.pairs}" for node in cell.nodes]
    none = [index for pair in cell.edges.pairs for name, index in pair if name != "skip"]
    return f"{'; '.join(steps)}; {len(cell.norm.weight)}; none at {none}"
