"""The whole network: backbones -> reshape layers -> fusion -> classifier, for every task and stage of BM-NAS.

A batch is a dict. For a backbone called ``image`` it holds either the raw input ``image`` or, where a
frozen backbone's features were computed before, ``image_features`` (see `FusionNet.extract`).
"""

import math

from torch import nn
from torch.nn import functional as F


class ReshapeLayer(nn.Module):
    """One backbone feature to (N, C, L): adaptive max pool, Conv1d(1), BatchNorm, ReLU, Dropout.

    Args:
        in_channels: Channels of the feature.
        channels: C.
        pool: Output size (rows, columns) of the pool; L = rows * columns.
        dropout: Dropout rate.
    """

    def __init__(self, in_channels, channels, pool, dropout):
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv1d(in_channels, channels, 1)
        self.bn = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, feature):
        """(N, in_channels, ...) with up to three more axes -> (N, C, L)."""
        pooled = pool_feature(feature, self.pool).flatten(2)
        return self.dropout(F.relu(self.bn(self.conv(pooled))))


def pool_feature(feature, pool):
    """Adaptive max pool of a feature (N, C, ...) to (N, C, *pool); pooling twice changes nothing.

    Everything after the third axis counts as one: (N, C) -> (N, C, 1, 1), (N, C, T) -> (N, C, T, 1),
    (N, C, T, H, W) -> (N, C, T, H*W).
    """
    if feature.dim() < 4:
        feature = feature[(...,) + (None,) * (4 - feature.dim())]
    return F.adaptive_max_pool2d(feature.flatten(3), pool)


def square_pool(length):
    """Pool size (r, r) with r*r = length (MM-IMDB).

    Raises:
        ValueError: ``length`` is no perfect square.
    """
    side = math.isqrt(length)
    if side * side != length:
        raise ValueError(f"L = {length} is not a perfect square; use 4, 9, 16, 25, ...")
    return side, side


def parameters_of(backbone, count):
    """Parameters that the first ``count`` features of a backbone depend on."""
    return [parameter for module in backbone.modules_of(count) for parameter in module.parameters()]


class BackboneNet(nn.Module):
    """A network on backbones whose frozen features can be computed once and kept.

    Args:
        backbones: Name -> network with ``channels`` (of the features that a fusion reads),
            ``stateless`` (no dropout or batch norm before its features), a forward ``(input, count)``
            -> feature list, ``head(features)`` -> logits, and ``modules_of(count)``.
        pool: Output size of the reshape layers' pool.
    """

    def __init__(self, backbones, pool):
        super().__init__()
        self.backbones = nn.ModuleDict(backbones)
        self.pool = pool

    def extract(self, batch, name):
        """Every feature of the frozen backbone ``name``, as a batch carries them under ``{name}_features``.

        Returns:
            List of tensors (N, C, ...), pooled where that makes them smaller: the reshape layers'
            pool has no weights, and pooling again changes nothing.
        """
        return [self._compact(feature) for feature in self.backbones[name](batch[name])]

    def changing(self):
        """The part of the network that training changes, with ``state_dict`` / ``load_state_dict``.

        What resuming needs: frozen backbones in evaluation mode are built as they were and need no copy.
        """
        return _Changing(self)

    def _compact(self, feature):
        if feature.dim() < 3:
            return feature
        pooled = pool_feature(feature, self.pool)
        return pooled if pooled.numel() < feature.numel() else feature


class _Changing:
    def __init__(self, net):
        self.net = net

    def _keys(self):
        fixed = "backbones." if getattr(self.net, "frozen_eval", False) else "no prefix"
        return [key for key in self.net.state_dict() if not key.startswith(fixed)]

    def state_dict(self):
        state = self.net.state_dict()
        return {key: state[key] for key in self._keys()}

    def load_state_dict(self, state):
        self.net.load_state_dict({**self.net.state_dict(), **state})


class FusionNet(BackboneNet):
    """Backbones, reshape layers, a fusion (mixed, fixed or late) and a linear classifier.

    Args:
        backbones: See `BackboneNet`.
        fusion: `FusionCell` or `LateFusion`; it states its output ``width``.
        used: Indices of the features that the fusion reads, over all backbones in order.
        channels: C.
        pool: Output size of the reshape layers' pool, L = rows * columns.
        dropout: Dropout rate of the reshape layers.
        num_outputs: Number of classes.
        input_names: Names of the features, for genotypes and pictures.
        frozen: Backbones get no gradients.
        backbone_mode: ``eval``: frozen backbones stay in evaluation mode; ``train``: they follow the
            network's mode (dropout active, batch statistics used and moved), as in the originals' search.
    """

    def __init__(
        self,
        backbones,
        fusion,
        used,
        *,
        channels,
        pool,
        dropout,
        num_outputs,
        input_names=(),
        frozen=True,
        backbone_mode="eval",
    ):
        super().__init__(backbones, pool)
        self.frozen = frozen
        self.input_names = tuple(input_names)
        self.frozen_eval = frozen and backbone_mode == "eval"
        in_channels = [width for backbone in self.backbones.values() for width in backbone.channels]
        self.num_features = len(in_channels)
        self.reshape = nn.ModuleDict(
            {str(i): ReshapeLayer(in_channels[i], channels, pool, dropout) for i in sorted(used)}
        )
        self.fusion = fusion
        self.classifier = nn.Linear(fusion.width, num_outputs)
        self._needed, start = {}, 0
        for name, backbone in self.backbones.items():
            stop = start + len(backbone.channels)
            self._needed[name] = [index - start for index in sorted(used) if start <= index < stop]
            start = stop
        # What lies behind the last feature that is read is never computed.
        self._counts = {name: max(needed, default=-1) + 1 for name, needed in self._needed.items()}
        self.train()

    def train(self, mode=True):
        super().train(mode)
        if self.frozen_eval:
            self.backbones.eval()
        return self

    def forward(self, batch):
        """Class logits (N, num_outputs) of a batch dict."""
        features = self._features(batch)
        reshaped = [self.reshape[str(i)](x) if str(i) in self.reshape else None for i, x in enumerate(features)]
        return self.classifier(self.fusion(reshaped))

    def _features(self, batch):
        features = []
        for name, backbone in self.backbones.items():
            if not self._counts[name]:
                found = []
            elif f"{name}_features" in batch:
                found = batch[f"{name}_features"][: len(backbone.channels)]
            else:
                found = backbone(batch[name], self._counts[name])
            features += [*found, *[None] * (len(backbone.channels) - len(found))]
        return features

    def cacheable(self):
        """Names of the backbones whose features never change: frozen, and nothing random or moving inside.

        In ``backbone_mode="train"`` that leaves the networks without dropout and batch norm on the
        way to their taps.
        """
        if not self.frozen:
            return []
        return [name for name, b in self.backbones.items() if self._counts[name] and (self.frozen_eval or b.stateless)]

    def needed(self, name):
        """Indices of the features of the backbone ``name`` that the fusion reads."""
        return self._needed[name]

    def arch_parameters(self):
        """Architecture parameters: name -> parameter."""
        return self.fusion.arch_parameters()

    def weights(self):
        """Parameters that weight steps train: all that the output depends on but architecture and frozen parts."""
        arch = {id(parameter) for parameter in self.arch_parameters().values()}
        own = [p for m in (self.reshape, self.fusion, self.classifier) for p in m.parameters() if id(p) not in arch]
        if self.frozen:
            return own
        return [p for name, b in self.backbones.items() for p in parameters_of(b, self._counts[name])] + own

    def genotype(self):
        """The architecture as it would be discretised now."""
        return self.fusion.genotype(self.input_names)

    def probabilities(self):
        """Softmax of every architecture parameter: title -> {row name: {operation: probability}}."""
        return self.fusion.probabilities(self.input_names)

    def uses_all_weights(self):
        """Whether every parameter of `weights` takes part in every forward (else DDP must look for the idle ones)."""
        return self.fusion.uses_all_weights()

    def count_parameters(self):
        """Numbers of weights by part; "fusion_part" is what the originals log: reshape layers and fusion."""
        arch = sum(p.numel() for p in self.arch_parameters().values())
        sizes = {part: _size(getattr(self, part)) for part in ("backbones", "reshape", "fusion", "classifier")}
        sizes["fusion"] -= arch
        return {**sizes, "fusion_part": sizes["reshape"] + sizes["fusion"], "architecture": arch}


class UnimodalNet(BackboneNet):
    """One backbone with its own head: the unimodal rows, and the checkpoints that a search starts from.

    Args:
        name: Name of the modality in the batch.
        backbone: The network.
        pool: Pool of the feature store that this network may share with a `FusionNet`.
        frozen: Train the head alone, on features in evaluation mode.
    """

    def __init__(self, name, backbone, pool, frozen=False):
        super().__init__({name: backbone}, pool)
        self.name = name
        self.frozen = frozen

    @property
    def backbone(self):
        """The one network."""
        return self.backbones[self.name]

    def forward(self, batch):
        """Class logits (N, num_outputs)."""
        features = batch.get(f"{self.name}_features")
        return self.backbone.head(self._features(batch) if features is None else features)

    def _features(self, batch):
        if not self.frozen:
            return self.backbone(batch[self.name])
        mode = self.backbone.training
        self.backbone.eval()
        features = self.backbone(batch[self.name])
        self.backbone.train(mode)
        return features

    def cacheable(self):
        """The backbone, if frozen."""
        return [self.name] if self.frozen else []

    def needed(self, name):
        """The head reads the last feature."""
        return [-1]

    def weights(self):
        """The parameters to train."""
        if not self.frozen:
            return list(self.backbone.parameters())
        body = {id(p) for p in parameters_of(self.backbone, len(self.backbone.channels))}
        return [p for p in self.backbone.parameters() if id(p) not in body]

    def arch_parameters(self):
        """A unimodal network has no architecture parameters."""
        return {}

    def uses_all_weights(self):
        """Every weight takes part."""
        return True

    def count_parameters(self):
        """Numbers of weights."""
        return {"backbones": _size(self.backbones), "fusion_part": 0}


def _size(module):
    return sum(parameter.numel() for parameter in module.parameters())
