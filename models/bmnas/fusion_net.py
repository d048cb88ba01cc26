"""The complete network: backbones -> reshape layers -> fusion -> classifier, for every task and stage of BM-NAS.

A batch is a dict. For a backbone called ``image`` it contains either the raw input ``image`` or the cached features of
a frozen backbone, ``image_features`` (see `BackboneNet.extract`).
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
from models.genotypes import FusionGenotype
from models.missing import Placeholders, drop_modalities
from search.derive import argmax
from util.nested import tensors_in

if TYPE_CHECKING:
    from models.bmnas.cells import FusionCell
    from models.bmnas.late_fusion import LateFusion
    from search.choice import Choice


class FusionNet(BackboneNet):
    """Backbones, reshape layers, a fusion (mixed, fixed or late) and a linear classifier.

    Args:
        backbones: See `BackboneNet`.
        fusion: `FusionCell` or `LateFusion`; its attribute ``width`` is the size of its output.
        used: Indices of the features that the fusion reads, counted over all backbones in order.
        channels: Number of channels C of the reshaped features.
        pool: Output size (rows, columns) of the reshape layers' pool; L = rows * columns.
        dropout: Dropout rate of the reshape layers.
        num_outputs: Number of classes.
        input_names: Names of the features, for genotypes and pictures.
        frozen: True: no backbone is trained; False: all are; or the names of those that are not trained.
        backbone_mode: ``eval``: frozen backbones stay in evaluation mode; ``train``: they follow the network's mode
            (dropout, batch statistics, and updates of running statistics), as in the original's search.
        backbone_batch: See `BackboneNet`.
        train_reshape: Train the reshape layers in weight steps; False: they stay random, as in the original's NTU
            search.
        optional: Names of backbones whose inputs may be missing. The batch entry ``{name}_present``, bool (N,), marks
            the samples that have the input; learned values replace the features of the others, see
            `models.missing.Placeholders`.
        modality_dropout: Probability with which training drops an input of a sample; requires that ``optional``
            contains all names.
    """

    genotype_class = FusionGenotype  # what `genotype` returns

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
        self._edges: Any = next(iter(fusion.choices()), None)  # the choice between the cell's edges, in a search
        self.classifier = nn.Linear(fusion.width, num_outputs)
        self.optional = tuple(name for name in backbones if name in set(optional))
        self.modality_dropout = modality_dropout
        self._needed, self._start, start = {}, {}, 0
        for name, backbone in self.backbones.items():
            self._start[name], stop = start, start + len(backbone.channels)
            self._needed[name] = [index - start for index in sorted(used) if start <= index < stop]
            start = stop
        # Number of features to compute: layers after the last feature that is read are skipped.
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
        """Return class logits (N, num_outputs).

        Args:
            batch: Input or cached features of each backbone. Inputs that are optional or not read may be absent.
        """
        return self.fuse(self.with_placeholders(self._features(batch), batch))

    def fuse(self, features: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Return class logits (N, num_outputs).

        Args:
            features: Features of all backbones in order, (N, C_in, ...) each; None in place of those that are not read.
        """
        if self._edges is not None and self._edges.drawn is not None and torch.is_grad_enabled():
            return self._fuse_drawn(features, unread_sources(self._edges))
        reshaped = [self.reshape[str(i)](x) if str(i) in self.reshape else None for i, x in enumerate(features)]
        return self.classifier(self.fusion(reshaped))

    def _fuse_drawn(self, features, unread):
        """As `fuse`, where a strategy has drawn: gradients of what no step reads are set, not computed.

        Its reshape layers still run, since batch statistics and dropout must not depend on a draw. Only their gradients
        are known beforehand: they are zero.
        """
        reshaped: list[torch.Tensor | None] = []
        constant: list[nn.Parameter] = []
        for i, feature in enumerate(features):
            if str(i) not in self.reshape:
                reshaped.append(None)
                continue
            layer, known = self.reshape[str(i)], i in unread and not feature.requires_grad
            with torch.no_grad() if known else contextlib.nullcontext():
                reshaped.append(layer(feature))
            constant += [parameter for parameter in layer.parameters() if known and parameter.requires_grad]
        outputs = self.classifier(self.fusion(reshaped))
        return with_zero_gradients(outputs, constant) if constant else outputs

    def backbone_features(self, name: str, inputs: Any) -> list[torch.Tensor | None]:
        """Compute the features of a backbone in one forward pass.

        Args:
            name: Name of the backbone.
            inputs: Its input, a tensor (N, ...) or a dict of them.

        Returns:
            One entry per feature: (N, C_in, ...), or None after the last feature that the fusion reads.
        """
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
        """Return a copy of the batch in which features replace the inputs. Backbones must be in evaluation mode."""
        made = dict(batch)
        for name, count in self._counts.items():
            if name in made and f"{name}_features" not in made and count:
                made[f"{name}_features"] = self.extract(made, name, count)
            if f"{name}_features" in made:
                made.pop(name, None)
        return made

    def _absent_features(self, batch, name):
        """Zeros in the shape of pooled features, which learned values will replace."""
        samples = len(next(tensors_in(batch)))
        channels = self.backbones[name].channels[: self._counts[name]]
        return [self.classifier.weight.new_zeros(samples, width, *self.pool) for width in channels]

    def with_placeholders(
        self, features: Sequence[torch.Tensor | None], batch: dict[str, Any]
    ) -> Sequence[torch.Tensor | None]:
        """Replace the features of missing inputs, and of those that modality dropout drops, by learned values.

        Args:
            features: Features of all backbones in order; None in place of those that are not read.
            batch: An input is missing where ``{name}_present``, bool (N,), is False, or in all samples if the batch
                has neither this entry nor the input.
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
        """Names of the backbones whose features never change, so that they can be cached.

        With ``backbone_mode="train"`` these are only frozen backbones that have no dropout or batch norm before their
        features.
        """
        frozen = {name: backbone for name, backbone in self.backbones.items() if name in self.frozen}
        constant = {n: b for n, b in frozen.items() if n in self.fixed_backbones or b.deterministic_features}
        return [name for name, b in constant.items() if b.cacheable and self._counts[name]]

    def needed(self, name: str) -> list[int]:
        """Indices of the features of a backbone that the fusion reads."""
        return self._needed[name]

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters: key of a choice -> logits; empty for a found network."""
        return self.fusion.arch_parameters()

    def weights(self) -> list[nn.Parameter]:
        """Parameters that weight steps train: all that affect the output, except architecture and frozen parameters."""
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
        """Derive the genotype from scores of the candidates, see `search.choice.SearchSpace`."""
        return self.fusion.discretise(scores, self.input_names)

    def expected_cost(self, kind: str) -> ExpectedCost:
        """See `search.choice.SearchSpace`."""
        layers: list[Any] = [self.reshape[str(index)] for index in range(self.fusion.num_inputs)]
        return ExpectedCost(self.fusion, kind, layers, (layers[0].conv.out_channels, self.pool[0] * self.pool[1]))

    def genotype(self) -> FusionGenotype:
        """Derive the genotype of the largest probabilities."""
        return argmax(self)

    def probabilities(self) -> dict[str, dict[str, dict[str, float]]]:
        """Probabilities of all candidates: title -> {row name: {operation: probability}}."""
        return self.fusion.probabilities(self.input_names)

    def uses_all_weights(self) -> bool:
        """Whether every forward pass uses all parameters of `weights`; otherwise DDP must search for unused ones."""
        stopping = (
            name in self.frozen
            or getattr(backbone, "stops_early", True)
            or self._counts[name] == len(backbone.channels)
            for name, backbone in self.backbones.items()
        )
        return self.fusion.uses_all_weights() and all(stopping)

    def count_parameters(self) -> dict[str, int]:
        """Number of parameters of each part. ``fusion_part`` (reshape layers and fusion) is what the original logs."""
        arch = sum(p.numel() for p in self.arch_parameters().values())
        sizes = {part: count_weights(getattr(self, part)) for part in ("backbones", "reshape", "fusion", "classifier")}
        sizes["fusion"] -= arch
        if self.placeholders is not None:
            sizes["placeholders"] = count_weights(self.placeholders)
        return {**sizes, "fusion_part": sizes["reshape"] + sizes["fusion"], "architecture": arch}
