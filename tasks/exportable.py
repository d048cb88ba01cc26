"""Trained networks as modules whose inputs are plain tensors, for torch.export and ONNX."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from models.backbone_net import UnimodalNet
from tasks.found_models import AttentionModel, FusionModel, OwnModel
from util.cli import UserError


class Tensor(NamedTuple):
    """An input of an exported network.

    name: Its name.
    shape: Without the batch axis.
    dtype: Its type.
    limit: Values of random inputs are below this, if they are whole numbers.
    boxes: Whether the last axis is x1, y1, x2, y2.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    limit: int = 256
    boxes: bool = False

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random values (count, *shape)."""
        size = (count, *self.shape)
        if self.boxes:
            return 50 * torch.rand(size, generator=generator).reshape(*size[:-1], 2, 2).cumsum(-2).flatten(-2)
        if self.dtype.is_floating_point:
            return torch.randn(size, generator=generator).to(self.dtype)
        return torch.randint(1, self.limit, size, generator=generator).to(self.dtype)


class Exportable(nn.Module):
    """A network of plain tensors.

    Attributes:
        inputs: Its `Tensor`s, in order.
        outputs: Names of its outputs.
        says: What the outputs are, in words.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    says: str


class ExportedFusion(Exportable):
    """A network of BM-NAS on its inputs, all of which are there.

    Args:
        model: The network.
        shapes: Input -> (shape without the batch axis, type), for tasks whose data say it.

    Raises:
        UserError: an input is a dict of tensors of varying length, or its shape is unknown.
    """

    def __init__(self, model: FusionModel, shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        super().__init__()
        self.model: Any = model
        self.net = model.net
        self.inputs: list[Tensor] = []
        self.outputs = ["outputs"]
        self.says = outputs_of(model)
        self.parts: dict[str, tuple[str, ...]] = {}
        for name in filter(model.is_read, model.inputs):
            example = model.tensors(name, [None]) if isinstance(model, OwnModel) else None
            if isinstance(example, torch.Tensor):
                self._add(name, (), tuple(example.shape[1:]), example.dtype)
            elif example is not None:
                self._add_layers(name, example)
            else:
                self._add(name, (), *shapes[name])

    def _add(self, name, part, shape, dtype):
        self.inputs.append(Tensor(".".join((name, *part)), shape, dtype))
        self.parts[name] = (*self.parts.get(name, ()), *part)

    def _add_layers(self, name, example):
        kind = self.model.manifest.modalities[name].kind
        if kind != "layers":
            raise UserError(
                f"{name} ({kind}) reaches its encoder as a dict of tensors ({', '.join(example)}) whose length depends "
                "on the samples, which the formats do not take; export the fusion part with --features"
            )
        for part, value in example.items():
            self._add(name, (part,), tuple(value.shape[1:]), value.dtype)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Outputs (N, K) of the inputs."""
        left, values = iter(tensors), {}
        features: list[torch.Tensor | None] = []
        for name, parts in self.parts.items():
            values[name] = {part: next(left) for part in parts} if parts else next(left)
        if isinstance(self.net, UnimodalNet):
            backbone = self.net.backbone
            return in_units(self.model, backbone.head(backbone(values[self.net.name])))
        for name, backbone in self.net.backbones.items():
            unread = [None] * len(backbone.channels)
            features += self.net.backbone_features(name, values[name]) if name in values else unread
        pooled = [None if one is None else static_pool(one, self.net.pool) for one in features]
        return in_units(self.model, self.net.fuse(pooled))


class ExportedFeatures(Exportable):
    """The fusion part of a network of BM-NAS: reshape layers, fusion, classifier.

    Args:
        model: The network; its inputs are the backbones' features that are read, pooled as the reshape layers do.

    Raises:
        UserError: the network has no fusion.
    """

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        if isinstance(model.net, UnimodalNet):
            raise UserError(f"--features: {model.folder} is a unimodal network and has no fusion; drop the flag")
        self.model, self.net = model, model.net
        self.used = [int(index) for index in model.net.reshape]
        names = model.net.input_names
        layers = [model.net.reshape[str(index)] for index in self.used]
        self.inputs = [
            Tensor(names[index], (layer.conv.in_channels, *layer.pool), torch.float32)
            for index, layer in zip(self.used, layers, strict=True)
        ]
        self.outputs, self.says = ["outputs"], outputs_of(model)

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        """Outputs (N, K) of the features."""
        read: list[torch.Tensor | None] = [None] * len(self.net.input_names)
        for index, feature in zip(self.used, features, strict=True):
            read[index] = feature
        return in_units(self.model, self.net.fuse(read))


class ExportedAttention(Exportable):
    """A network of MMNas on padded texts and regions.

    Args:
        model: The network, loaded with ``plain=True``.
        tokens, regions: T and N, to which texts and regions are padded; None: those of the task's data.
    """

    def __init__(self, model: AttentionModel, tokens: int | None = None, regions: int | None = None) -> None:
        super().__init__()
        self.net = model.net
        data: Any = importlib.import_module(f"datasets.{model.task.name}.dataset")
        limits = importlib.import_module("datasets.regions.reading")
        words = tokens or data.MAX_TOKENS
        count = regions or getattr(data, "MAX_REGIONS", limits.MAX_REGIONS)
        size, known = model.metadata["feature_size"], self.net.embedding.num_embeddings
        self.inputs = [Tensor("regions", (count, size), torch.float32)]
        if self.net.encoder_decoder.uses_relation():
            self.inputs.append(Tensor("boxes", (count, 4), torch.float32, boxes=True))
        self.inputs += [Tensor("counts", (), torch.int64, count + 1), Tensor("tokens", (words,), torch.int64, known)]
        outputs = {
            "vqa": (["answers"], "logits of the answers; the sigmoid gives probabilities"),
            "vgd": (["scores", "offsets"], "scores of the regions, and offsets of their boxes"),
            "itm": (["score"], "how well text and image match, 0..1"),
        }
        self.outputs, self.says = outputs[model.task.name]

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the network gives, see `models.mmnas.net`."""
        return self.net({one.name: value for one, value in zip(self.inputs, tensors, strict=True)})


def static_pool(feature: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """As `models.backbone_net.pool_feature`, in slices of known size: ONNX has no adaptive maximum."""
    feature = feature[(...,) + (None,) * max(0, 4 - feature.dim())].flatten(3)
    for axis, count in zip((2, 3), pool, strict=True):
        size = feature.shape[axis]
        bounds = [(part * size // count, -(-(part + 1) * size // count)) for part in range(count)]
        feature = torch.cat([feature.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in bounds], axis)
    return feature


def in_units(model: FusionModel, outputs: torch.Tensor) -> torch.Tensor:
    """Outputs; a label that is a number in its own units."""
    return model.probabilities(outputs) if model.label == "number" else outputs


def outputs_of(model: FusionModel) -> str:
    """What the outputs are, in words."""
    return {
        "class": "logits of the classes; their softmax gives probabilities",
        "classes": "logits of the classes; the sigmoid gives probabilities",
        "number": f"{model.label_name}, in its own units",
    }[model.label]
