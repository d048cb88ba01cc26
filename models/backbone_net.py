"""Networks on top of backbones, whose frozen features can be cached; unimodal networks; reshape layers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from util.cli import UserError
from util.nested import map_tensors, rows_of, tensors_in

if TYPE_CHECKING:
    from tasks.task import Backbone


def parameters_of(backbone: Backbone, count: int) -> list[nn.Parameter]:
    """Parameters that the first ``count`` features of a backbone depend on."""
    return [parameter for module in backbone.modules_of(count) for parameter in module.parameters()]


class BackboneNet(nn.Module):
    """Base class of networks on top of backbones. Features of frozen backbones can be computed once and cached.

    Args:
        backbones: Name of the modality -> `tasks.task.Backbone`. A backbone whose features depend on more than its
            weights has an attribute ``settings``.
        pool: Output size (rows, columns) of the reshape layers' pool.
        backbone_batch: Number of samples that a backbone in evaluation mode processes at a time, to limit memory.
            In evaluation mode a sample's features do not depend on the rest of the batch. None: the whole batch.

    Attributes:
        fixed_backbones: Names of the backbones of which training changes no tensor: those that stay frozen and in
            evaluation mode.
    """

    fixed_backbones: frozenset[str] = frozenset()

    def __init__(
        self, backbones: Mapping[str, nn.Module], pool: tuple[int, int], backbone_batch: int | None = None
    ) -> None:
        super().__init__()
        if wrong := next((name for name in backbones if "." in name or hasattr(nn.ModuleDict(), name)), None):
            raise UserError(f"an input of a network cannot be called {wrong!r}; prepare the data with another name")
        # Any, because the values of a `torch.nn.ModuleDict` are typed as `Module`, not as `Backbone`.
        self.backbones: Any = nn.ModuleDict(backbones)
        self.pool = pool
        self.backbone_batch = backbone_batch

    def extract(self, batch: dict[str, Any], name: str, count: int | None = None) -> list[torch.Tensor]:
        """Compute features of a backbone in evaluation mode, ``backbone_batch`` samples at a time.

        Args:
            batch: Contains the backbone's input under ``name``.
            name: Name of the backbone.
            count: Compute only the first ``count`` features; None: all.

        Returns:
            List of tensors (N, C, ...), as in the batch entry ``{name}_features``: pooled where that makes them
            smaller. The pool of the reshape layers has no weights, and pooling a second time changes nothing.
        """
        inputs = batch[name]
        samples = len(next(tensors_in(inputs)))
        size = self.backbone_batch or samples
        # Pad the last part to the size of the others: matrix products with another number of rows may round
        # differently.
        filled = map_tensors(lambda x: torch.cat([x, x[-1:].expand(-samples % size, *x.shape[1:])]), inputs)
        pieces = [rows_of(filled, start, start + size) for start in range(0, samples, size)]
        parts = [
            [self._compact(x) if x.dim() > 2 else x for x in self.backbones[name](piece, count)] for piece in pieces
        ]
        return [torch.cat(same)[:samples] for same in zip(*parts, strict=True)]

    def feature_shapes(self, batch: dict[str, Any], name: str) -> list[tuple[int, ...]]:
        """Shapes, without the batch axis, of the features that `extract` returns for ``batch``.

        They are inferred on the meta device, without computing anything. Networks from libraries may create tensors or
        read values in their forward pass, which fails there; such a network runs a real forward pass.
        """
        backbone = self.backbones[name]
        mode = backbone.training
        backbone.eval()
        try:
            features = self._meta_features(backbone, batch[name])
        except (RuntimeError, NotImplementedError):
            device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
            with torch.no_grad():
                features = backbone(map_tensors(lambda x: x.to(device), batch[name]))
        finally:
            backbone.train(mode)
        return [tuple((self._compact(x) if x.dim() > 2 else x).shape[1:]) for x in features]

    @torch.no_grad()
    def _meta_features(self, backbone, inputs):
        """Features on the meta device: tensors with shapes and no content."""
        # The state dict would lack non-persistent buffers.
        tensors = (*backbone.named_parameters(), *backbone.named_buffers())
        meta = {key: value.to("meta") for key, value in tensors}
        return torch.func.functional_call(backbone, meta, (map_tensors(lambda x: x.to("meta"), inputs),))

    def trainable_state(self) -> Any:
        """The part of the network that training changes, as an object with ``state_dict`` and ``load_state_dict``.

        Checkpoints for resuming hold only this part. Frozen backbones are rebuilt from their weight files.

        Raises:
            UserError: (``load_state_dict``) the frozen backbones have other weights than those of the saved run.
        """
        return _Changing(self)

    def _compact(self, feature):
        """The feature, pooled if that makes it smaller."""
        pooled = pool_feature(feature, self.pool)
        return pooled if pooled.numel() < feature.numel() else feature


class _Changing:
    def __init__(self, net):
        self.net = net
        self.fixed = tuple(f"backbones.{name}." for name in net.fixed_backbones)
        self.digest = self._digest()

    def _digest(self):
        """A hash of the frozen weights, so that a run is not resumed with different ones."""
        digest = hashlib.sha256()
        for key, value in self.net.state_dict().items():
            if key.startswith(self.fixed):
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def state_dict(self):
        state = self.net.state_dict()
        return {
            "frozen": self.digest,
            "weights": {key: value for key, value in state.items() if not key.startswith(self.fixed)},
        }

    def load_state_dict(self, state):
        if state["frozen"] != self.digest:
            raise UserError(
                "the frozen backbones are not those that the run started with; restore their weight files, or name"
                " their new paths"
            )
        self.net.load_state_dict({**self.net.state_dict(), **state["weights"]})


class UnimodalNet(BackboneNet):
    """One backbone with its own head: the unimodal baseline, and the source of a search's backbone checkpoints.

    Args:
        name: Name of the modality in the batch.
        backbone: A `tasks.task.Backbone` with a head.
        pool: Pool of cached features, which this network may share with a `FusionNet`.
        frozen: Train only the head, on features computed in evaluation mode.
        backbone_batch: See `BackboneNet`.
    """

    def __init__(
        self,
        name: str,
        backbone: nn.Module,
        pool: tuple[int, int],
        frozen: bool = False,
        backbone_batch: int | None = None,
    ) -> None:
        super().__init__({name: backbone}, pool, backbone_batch)
        self.name = name
        self.frozen = frozen

    @property
    def backbone(self) -> Any:
        """The only backbone."""
        return self.backbones[self.name]

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return class logits (N, num_outputs), from cached features if the batch has them, else from the input."""
        features = batch.get(f"{self.name}_features")
        return self.backbone.head(self._features(batch) if features is None else features)

    def _features(self, batch):
        if not self.frozen:
            return self.backbone(batch[self.name]) if self.training else self.extract(batch, self.name)
        mode = self.backbone.training
        self.backbone.eval()
        features = self.extract(batch, self.name)
        self.backbone.train(mode)
        return features

    def cacheable(self) -> list[str]:
        """Names of the backbones whose features can be cached: the only one, if it is frozen."""
        return [self.name] if self.frozen and self.backbone.cacheable else []

    def needed(self, name: str) -> list[int]:
        """Indices of the features that the head reads: only the last."""
        return [-1]

    def weights(self) -> list[nn.Parameter]:
        """The parameters to train."""
        if not self.frozen:
            return list(self.backbone.parameters())
        body = {id(p) for p in parameters_of(self.backbone, len(self.backbone.channels))}
        return [p for p in self.backbone.parameters() if id(p) not in body]

    def count_parameters(self) -> dict[str, int]:
        """Number of parameters of each part of the network."""
        return {"backbones": count_weights(self.backbones), "fusion_part": 0}


def count_weights(module: nn.Module) -> int:
    """Number of scalar parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


class ReshapeLayer(nn.Module):
    """Maps one backbone feature to (N, C, L): adaptive max pool, Conv1d(1), BatchNorm, ReLU, Dropout.

    A fusion cell needs features of equal shape. As in the original, the pool comes before the convolution.

    Args:
        in_channels: Number of channels of the feature.
        channels: Number of output channels C.
        pool: Output size (rows, columns) of the pool; L = rows * columns.
        dropout: Dropout rate.
    """

    def __init__(self, in_channels: int, channels: int, pool: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv1d(in_channels, channels, 1)
        self.bn = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Map a feature (N, in_channels, ...), with at most three more axes, to (N, C, L)."""
        pooled = pool_feature(feature, self.pool).flatten(2)
        return self.dropout(F.relu(self.bn(self.conv(pooled))))


def pool_feature(feature: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """Adaptive max pool of a feature (N, C, ...) to (N, C, *pool). Pooling a second time changes nothing.

    The axes of the feature are brought to four first: (N, C) -> (N, C, 1, 1), (N, C, T) -> (N, C, T, 1),
    (N, C, H, W) as it is, (N, C, T, H, W) -> (N, C, T, H*W).
    """
    if feature.dim() < 4:
        feature = feature[(...,) + (None,) * (4 - feature.dim())]
    feature = feature.flatten(3)
    if tuple(feature.shape[2:]) == tuple(pool) and feature.is_contiguous():
        return feature  # cached features are pooled already; pooling would return the same values in the same layout
    return F.adaptive_max_pool2d(feature, pool)


def square_pool(length: int) -> tuple[int, int]:
    """Pool size (r, r) with r * r = ``length``, as MM-IMDB uses it.

    Raises:
        ValueError: ``length`` is not a perfect square.
    """
    side = math.isqrt(length)
    if side * side != length:
        raise ValueError(f"L = {length} is not a perfect square; use 4, 9, 16, 25, ...")
    return side, side
