"""The complete network: backbones -> reshape layers -> fusion -> classifier, for every task and stage of BM-NAS.

A batch is a dict. For a backbone called ``image`` it holds either the raw input ``image`` or the stored features of a
frozen backbone, ``image_features`` (see `BackboneNet.extract`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.backbone_net import BackboneNet, ReshapeLayer, count_weights, parameters_of
from models.bmnas.drawn_edges import unread_sources, with_zero_gradients
from models.bmnas.expected_cost import ExpectedCost
from models.missing import Placeholders, drop_modalities
from search.derive import argmax
from util.nested import tensors_in

if TYPE_CHECKING:
    from models.bmnas.cells import FusionCell
    from models.bmnas.late_fusion import LateFusion
    from models.genotypes import FusionGenotype
    from search.choice import Choice


class FusionNet(BackboneNet):
    """Backbones, reshape layers, a fusion (mixed, fixed or late) and a linear classifier.

    Args:
        backbones: See `BackboneNet`.
        fusion: `FusionCell` or `LateFusion`, with its output ``width``.
        used: Indices of the features that the fusion reads, counted over all backbones in order.
        channels: C.
        pool: Output size of the reshape layers' pool, L = rows * columns.
        dropout: Dropout rate of the reshape layers.
        num_outputs: Number of classes.
        input_names: Names of the features, for genotypes and pictures.
        frozen: Do not train the backbones, or those of these names.
        backbone_mode: ``eval``: frozen backbones stay in evaluation mode; ``train``: they follow the network's mode
            (with dropout, batch statistics, and updates of running statistics), as in the originals' search.
        backbone_batch: See `BackboneNet`.
        train_reshape: Train the reshape layers in weight steps; False: they stay random, as in the original's NTU
            search.
        optional: Names of backbones whose inputs may be missing: a batch says by ``{name}_present``, bool (N,), which
            samples have them. Learned values take the place of their features, see `models.missing.Placeholders`.
        modality_dropout: Probability with which training drops an input of a sample; needs all names in ``optional``.
    """

    def __init__(
        self,
        backbones: Mapping[str, nn.Module],
        fusion: FusionCell | LateFusion,
        used: Iterable[int],
        *,
        channels: int,
        pool: tuple[int, int],
        dropout: float,
        num_outputs: int,
        input_names: Iterable[str] = (),
        frozen: bool | Iterable[str] = True,
        backbone_mode: str = "eval",
        backbone_batch: int | None = None,
        train_reshape: bool = True,
        optional: Iterable[str] = (),
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__(backbones, pool, backbone_batch)
        self.frozen = frozenset((backbones if frozen else ()) if isinstance(frozen, bool) else frozen)
        self.train_reshape = train_reshape
        self.input_names = tuple(input_names)
        self.fixed_backbones = self.frozen if backbone_mode == "eval" else frozenset()
        in_channels = [width for backbone in self.backbones.values() for width in backbone.channels]
        self.reshape = nn.ModuleDict(
            {str(i): ReshapeLayer(in_channels[i], channels, pool, dropout) for i in sorted(used)}
        )
        self.fusion: Any = fusion
        self.classifier = nn.Linear(fusion.width, num_outputs)
        self.optional = tuple(name for name in backbones if name in set(optional))
        self.modality_dropout = modality_dropout
        self._needed, self._start, start = {}, {}, 0
        for name, backbone in self.backbones.items():
            self._start[name], stop = start, start + len(backbone.channels)
            self._needed[name] = [index - start for index in sorted(used) if start <= index < stop]
            start = stop
        # Layers after the last feature that is read are not computed.
        self._counts = {name: max(needed, default=-1) + 1 for name, needed in self._needed.items()}
        replaced = [self._start[name] + index for name in self.optional for index in self._needed[name]]
        self.placeholders = Placeholders({index: in_channels[index] for index in replaced}) if self.optional else None
        self.train()

    def train(self, mode: bool = True) -> FusionNet:
        super().train(mode)
        for name in self.fixed_backbones:
            self.backbones[name].eval()
        self.backbones.training = any(backbone.training for backbone in self.backbones.values())
        return self

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Class logits (N, num_outputs) of a batch dict; it may lack inputs that are ``optional`` or not read."""
        return self.fuse(self.with_placeholders(self._features(batch), batch))

    def fuse(self, features: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Class logits (N, num_outputs) of the backbones' features; None for those that are not read."""
        edges = self.fusion.edge_choice
        is_drawn = edges is not None and edges.drawn is not None and torch.is_grad_enabled()
        unread = unread_sources(edges) if is_drawn else frozenset()
        reshaped: list[torch.Tensor | None] = []
        constant: list[nn.Parameter] = []
        feature: Any
        for i, feature in enumerate(features):
            if str(i) not in self.reshape:
                reshaped.append(None)
                continue
            layer, known = self.reshape[str(i)], i in unread and not feature.requires_grad
            # Batch statistics and dropout must not depend on a draw, but the gradients are known: zeros.
            with torch.no_grad() if known else contextlib.nullcontext():
                reshaped.append(layer(feature))
            constant += [parameter for parameter in layer.parameters() if known and parameter.requires_grad]
        outputs = self.classifier(self.fusion(reshaped))
        return with_zero_gradients(outputs, constant) if constant else outputs

    def backbone_features(self, name: str, inputs: Any) -> list[torch.Tensor | None]:
        """All features of a backbone that are read, in one pass over its inputs; None for those after the last one."""
        backbone, count = self.backbones[name], self._counts[name]
        own = backbone(inputs, count) if count else []
        return [*own, *[None] * (len(backbone.channels) - len(own))]

    def _features(self, batch):
        features = []
        for name, backbone in self.backbones.items():
            if not self._counts[name]:
                own = []
            elif f"{name}_features" in batch:
                own = batch[f"{name}_features"][: len(backbone.channels)]
            elif name not in batch and name in self.optional:
                own = self._absent_features(batch, name)
            elif backbone.training:
                own = backbone(batch[name], self._counts[name])
            else:
                own = self.extract(batch, name, self._counts[name])
            features += [*own, *[None] * (len(backbone.channels) - len(own))]
        return features

    def with_features(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with features in place of the inputs of all backbones, which must be in evaluation mode."""
        made = dict(batch)
        for name, count in self._counts.items():
            if name in made and f"{name}_features" not in made and count:
                made[f"{name}_features"] = self.extract(made, name, count)
            if f"{name}_features" in made:
                made.pop(name, None)
        return made

    def _absent_features(self, batch, name):
        """Features in the shape that the reshape layers read, to be replaced by learned values."""
        samples = len(next(tensors_in(batch)))
        channels = self.backbones[name].channels[: self._counts[name]]
        return [self.classifier.weight.new_zeros(samples, width, *self.pool) for width in channels]

    def with_placeholders(
        self, features: Sequence[torch.Tensor | None], batch: dict[str, Any]
    ) -> Sequence[torch.Tensor | None]:
        """The features with learned values in place of those of missing or dropped inputs.

        Args:
            features: Of all backbones in order; None for those that are not read.
            batch: Says by ``{name}_present``, bool (N,), or by an input that is not there, what is missing.
        """
        if self.placeholders is None:
            return features
        present = torch.stack([self._present(batch, name) for name in self.optional], dim=1)
        if self.training and self.modality_dropout:
            present = drop_modalities(present, self.modality_dropout)
        features = list(features)
        for name, rows in zip(self.optional, present.unbind(1), strict=True):
            for index in (self._start[name] + own for own in self._needed[name]):
                features[index] = self.placeholders(index, features[index], rows)
        return features

    def _present(self, batch, name):
        """bool (N,): which samples have the input ``name``."""
        if f"{name}_present" in batch:
            return batch[f"{name}_present"]
        there = name in batch or f"{name}_features" in batch
        samples = len(next(tensors_in(batch)))
        return torch.full((samples,), there, dtype=torch.bool, device=self.classifier.weight.device)

    def cacheable(self) -> list[str]:
        """Names of the backbones whose features never change and can be stored.

        In ``backbone_mode="train"`` these are only frozen backbones without dropout and batch norm before their
        features.
        """
        frozen = {name: backbone for name, backbone in self.backbones.items() if name in self.frozen}
        constant = {n: b for n, b in frozen.items() if n in self.fixed_backbones or b.deterministic_features}
        return [name for name, b in constant.items() if b.cacheable and self._counts[name]]

    def needed(self, name: str) -> list[int]:
        """Indices of the features of the backbone ``name`` that the fusion reads."""
        return self._needed[name]

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters: name -> parameter."""
        return self.fusion.arch_parameters()

    def weights(self) -> list[nn.Parameter]:
        """Parameters that weight steps train: those that affect the output, without architecture and frozen parts."""
        arch = frozenset(map(id, self.arch_parameters().values()))
        parts = [*([self.reshape] if self.train_reshape else []), self.fusion, self.classifier]
        parts += [self.placeholders] if self.placeholders is not None else []
        own = [p for part in parts for p in part.parameters() if id(p) not in arch]
        trained = {name: b for name, b in self.backbones.items() if name not in self.frozen}
        return [p for name, b in trained.items() for p in parameters_of(b, self._counts[name])] + own

    def choices(self) -> list[Choice]:
        """The choices of the fusion, see `search.choice.SearchSpace`."""
        return self.fusion.choices()

    def discretise(self, scores: dict[str, torch.Tensor]) -> FusionGenotype:
        """The genotype for scores of the candidates, see `search.choice.SearchSpace`."""
        return self.fusion.discretise(scores, self.input_names)

    def expected_cost(self, kind: str) -> ExpectedCost:
        """See `search.choice.SearchSpace`."""
        layers: list[Any] = [self.reshape[str(index)] for index in range(self.fusion.num_inputs)]
        return ExpectedCost(self.fusion, kind, layers, (layers[0].conv.out_channels, self.pool[0] * self.pool[1]))

    def genotype(self) -> FusionGenotype:
        """The genotype of the largest probabilities."""
        return argmax(self)

    def probabilities(self) -> dict[str, dict[str, dict[str, float]]]:
        """Softmax of every architecture parameter: title -> {row name: {operation: probability}}."""
        return self.fusion.probabilities(self.input_names)

    def uses_all_weights(self) -> bool:
        """Whether every forward pass uses all parameters of `weights` (else DDP must search for unused ones)."""
        stopping = (
            name in self.frozen
            or getattr(backbone, "stops_early", True)
            or self._counts[name] == len(backbone.channels)
            for name, backbone in self.backbones.items()
        )
        return self.fusion.uses_all_weights() and all(stopping)

    def count_parameters(self) -> dict[str, int]:
        """Numbers of weights by part; "fusion_part", reshape layers and fusion, is what the originals log."""
        arch = sum(p.numel() for p in self.arch_parameters().values())
        sizes = {part: count_weights(getattr(self, part)) for part in ("backbones", "reshape", "fusion", "classifier")}
        sizes["fusion"] -= arch
        if self.placeholders is not None:
            sizes["placeholders"] = count_weights(self.placeholders)
        return {**sizes, "fusion_part": sizes["reshape"] + sizes["fusion"], "architecture": arch}
