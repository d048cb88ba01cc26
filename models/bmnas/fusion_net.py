"""The complete network: backbones -> reshape layers -> fusion -> classifier, for every task and stage of BM-NAS.

A batch is a dict. For a backbone called ``image`` it holds either the raw input ``image`` or the stored features of a
frozen backbone, ``image_features`` (see `BackboneNet.extract`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from models.backbone_net import BackboneNet, ReshapeLayer, count_weights, parameters_of
from models.bmnas.expected_cost import ExpectedCost
from search.derive import argmax

if TYPE_CHECKING:
    import torch

    from models.bmnas.cells import FusionCell
    from models.bmnas.late_fusion import LateFusion
    from models.genotypes import FusionGenotype
    from search.choice import Choice
    from search.relaxation import Relaxation


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
        frozen: Do not train the backbones.
        backbone_mode: ``eval``: frozen backbones stay in evaluation mode; ``train``: they follow the network's mode
            (with dropout, batch statistics, and updates of running statistics), as in the originals' search.
        backbone_batch: See `BackboneNet`.
        train_reshape: Train the reshape layers in weight steps; False: they stay random, as in the original's NTU
            search.
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
        frozen: bool = True,
        backbone_mode: str = "eval",
        backbone_batch: int | None = None,
        train_reshape: bool = True,
    ) -> None:
        super().__init__(backbones, pool, backbone_batch)
        self.frozen = frozen
        self.train_reshape = train_reshape
        self.input_names = tuple(input_names)
        self.frozen_eval = frozen and backbone_mode == "eval"
        in_channels = [width for backbone in self.backbones.values() for width in backbone.channels]
        self.reshape = nn.ModuleDict(
            {str(i): ReshapeLayer(in_channels[i], channels, pool, dropout) for i in sorted(used)}
        )
        self.fusion: Any = fusion
        self.classifier = nn.Linear(fusion.width, num_outputs)
        self._needed, start = {}, 0
        for name, backbone in self.backbones.items():
            stop = start + len(backbone.channels)
            self._needed[name] = [index - start for index in sorted(used) if start <= index < stop]
            start = stop
        # Layers after the last feature that is read are not computed.
        self._counts = {name: max(needed, default=-1) + 1 for name, needed in self._needed.items()}
        self.train()

    def train(self, mode: bool = True) -> FusionNet:
        super().train(mode)
        if self.frozen_eval:
            self.backbones.eval()
        return self

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Class logits (N, num_outputs) of a batch dict."""
        features = self._features(batch)
        reshaped = [self.reshape[str(i)](x) if str(i) in self.reshape else None for i, x in enumerate(features)]
        return self.classifier(self.fusion(reshaped))

    def _features(self, batch):
        features = []
        for name, backbone in self.backbones.items():
            if not self._counts[name]:
                own = []
            elif f"{name}_features" in batch:
                own = batch[f"{name}_features"][: len(backbone.channels)]
            elif backbone.training:
                own = backbone(batch[name], self._counts[name])
            else:
                own = self.extract(batch, name, self._counts[name])
            features += [*own, *[None] * (len(backbone.channels) - len(own))]
        return features

    def cacheable(self) -> list[str]:
        """Names of the backbones whose features never change and can be stored.

        In ``backbone_mode="train"`` these are only frozen backbones without dropout and batch norm before their
        features.
        """
        if not self.frozen:
            return []
        constant = {name: b for name, b in self.backbones.items() if self.frozen_eval or b.deterministic_features}
        return [name for name, b in constant.items() if b.cacheable and self._counts[name]]

    def fixed_backbones(self) -> bool:
        """Whether training changes no tensor of the backbones: if they are frozen in evaluation mode."""
        return self.frozen_eval

    def needed(self, name: str) -> list[int]:
        """Indices of the features of the backbone ``name`` that the fusion reads."""
        return self._needed[name]

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters: name -> parameter."""
        return self.fusion.arch_parameters()

    def weights(self) -> list[nn.Parameter]:
        """Parameters that weight steps train: those that affect the output, without architecture and frozen parts."""
        arch = {id(parameter) for parameter in self.arch_parameters().values()}
        parts = [*([self.reshape] if self.train_reshape else []), self.fusion, self.classifier]
        own = [p for part in parts for p in part.parameters() if id(p) not in arch]
        if self.frozen:
            return own
        return [p for name, b in self.backbones.items() for p in parameters_of(b, self._counts[name])] + own

    def choices(self) -> list[Choice]:
        """The choices of the fusion, see `search.choice.SearchSpace`."""
        return self.fusion.choices()

    def relax(self, relaxation: Relaxation) -> None:
        """See `search.choice.SearchSpace`."""
        self.fusion.relax(relaxation)

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
        return self.fusion.uses_all_weights()

    def count_parameters(self) -> dict[str, int]:
        """Numbers of weights by part; "fusion_part", reshape layers and fusion, is what the originals log."""
        arch = sum(p.numel() for p in self.arch_parameters().values())
        sizes = {part: count_weights(getattr(self, part)) for part in ("backbones", "reshape", "fusion", "classifier")}
        sizes["fusion"] -= arch
        return {**sizes, "fusion_part": sizes["reshape"] + sizes["fusion"], "architecture": arch}
