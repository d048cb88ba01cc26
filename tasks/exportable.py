"""Trained networks as modules whose inputs are plain tensors, for torch.export and ONNX."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from models.backbone_net import UnimodalNet
from tasks.found_models import AttentionModel, FusionModel, OwnModel
from tasks.raw_samples import random_raw
from util.cli import UserError
from util.nested import parts_of

# Kinds of inputs whose tensors depend on the length of the samples.
VARYING = ("text", "audio", "sequence")
# Length of a sample (words, steps, or twentieths of a second) that exceeds the limit of every encoder that has one.
MANY = 700


class Tensor(NamedTuple):
    """An input of an exported network.

    name: Its name.
    shape: Without the batch axis. An axis of variable length is given by a name, which axes of equal length share.
    dtype: Its type.
    limit: Upper bound (exclusive) of random values, if they are integers.
    boxes: Whether the last axis is x1, y1, x2, y2.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: torch.dtype
    limit: int = 256
    boxes: bool = False

    def draw(self, count: int, generator: torch.Generator, length: int = 1) -> torch.Tensor:
        """Random values (count, *shape), with ``length`` entries on axes of variable length."""
        size = (count, *(side if isinstance(side, int) else length for side in self.shape))
        if self.boxes:
            return 50 * torch.rand(size, generator=generator).reshape(*size[:-1], 2, 2).cumsum(-2).flatten(-2)
        if self.dtype.is_floating_point:
            return torch.randn(size, generator=generator).to(self.dtype)
        low = 0 if self.dtype == torch.bool else 1
        return torch.randint(low, self.limit, size, generator=generator).to(self.dtype)


class Exportable(nn.Module):
    """A network whose inputs and outputs are plain tensors.

    Attributes:
        inputs: Its `Tensor`s, in order.
        outputs: Names of its outputs.
        says: Description of the outputs.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    says: str

    def draw(self, count: int, generator: torch.Generator, length: int) -> list[torch.Tensor]:
        """Random inputs of ``count`` samples; axes of variable length have up to about ``length`` entries."""
        return [one.draw(count, generator, length) for one in self.inputs]


class ExportedFusion(Exportable):
    """A complete network of BM-NAS, from its inputs to its outputs.

    Inputs that reach their encoder as a dict of tensors (texts, recordings, sequences) become one input per tensor,
    padded with zeros. Axes that depend on the length of the samples are axes of variable length.

    Args:
        model: The network.
        shapes: Input -> (shape without the batch axis, type), for the papers' tasks; own data have their own shapes.
        lengths: Input -> fixed length to which its samples are padded or cut, instead of a variable one.
        missing: Whether inputs that may be missing get a further input ``NAME_present``, bool (N,), which is True for
            samples that have them.

    Raises:
        UserError: A length is given for an input without variable length, or no input may be missing.
    """

    def __init__(
        self,
        model: FusionModel,
        shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
        lengths: Mapping[str, int] | None = None,
        missing: bool = False,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.net = model.net
        self.inputs: list[Tensor] = []
        self.outputs = ["outputs"]
        self.says = outputs_of(model)
        # Input -> names of its tensors; ("",) for an input that is a single tensor.
        self.parts: dict[str, tuple[str, ...]] = {}
        self.lengths = dict(lengths or {})
        for name in filter(model.is_read, model.inputs):
            example = parts_of(model.tensors(name, [None])) if isinstance(model, OwnModel) else None
            if example is None:
                self._add(name, {"": shapes[name]})
            elif self._varies(name):
                self._add(name, self._varying(name))
            else:
                self._add(name, {part: (tuple(value.shape[1:]), value.dtype) for part, value in example.items()})
        self.optional = optional_inputs(model) if missing else ()
        self.inputs += present_inputs(self.optional)
        if unknown := sorted(set(self.lengths) - {name for name in self.parts if self._varies(name)}):
            raise UserError(f"--length {unknown[0]}: the network reads no text, recording or sequence of this name")

    def _add(self, name, tensors):
        self.parts[name] = tuple(tensors)
        for part, (shape, dtype) in tensors.items():
            self.inputs.append(Tensor(f"{name}.{part}" if part else name, shape, dtype))

    def _varies(self, name):
        return isinstance(self.model, OwnModel) and self.model.manifest.modalities[name].kind in VARYING

    def _varying(self, name):
        """Tensor -> (shape, type) of an input; axes that depend on the length of the samples are given by a name."""
        short, long = (self._drawn(name, [length], 0) for length in (1, MANY))
        names: dict[tuple[int, int], str] = {}
        made = {}
        for part, value in long.items():
            sides: list[int | str] = []
            for pair in zip(short[part].shape[1:], value.shape[1:], strict=True):
                if pair[0] == pair[1]:
                    sides.append(pair[0])
                else:
                    sides.append(names.setdefault(pair, f"{name}_length" + (str(len(names) + 1) if names else "")))
            made[part] = tuple(sides), value.dtype
        return made

    def _drawn(self, name, lengths, seed):
        """The tensors of random samples with the given lengths."""
        modality, prepare = self.model.manifest.modalities[name], self.model.net.backbones[name].preparation
        rng, words = np.random.default_rng(seed), tuple(getattr(prepare, "words", ()))
        raw = random_raw(modality.kind, modality.size, lengths, rng, words)
        found = parts_of(self.model.tensors(name, raw))
        size = self.lengths.get(name)
        return found if size is None else fixed_length(found, size)

    def draw(self, count: int, generator: torch.Generator, length: int) -> list[torch.Tensor]:
        """See `Exportable.draw`; lengths and masks are consistent, as for real samples."""
        drawn: dict[str, torch.Tensor] = {}
        made = []
        for name in filter(self._varies, self.parts):
            seed = int(torch.randint(2**31, (), generator=generator))
            found = self._drawn(name, [max(1, length - 2 * number) for number in range(count)], seed)
            drawn |= {f"{name}.{part}": value for part, value in found.items()}
        for one in self.inputs:
            made.append(drawn[one.name] if one.name in drawn else one.draw(count, generator))
        return made

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Outputs (N, K) of the inputs."""
        left, values = iter(tensors), {}
        features: list[torch.Tensor | None] = []
        for name, parts in self.parts.items():
            values[name] = next(left) if parts == ("",) else {part: next(left) for part in parts}
        if isinstance(self.net, UnimodalNet):
            backbone = self.net.backbone
            return in_units(self.model, backbone.head(backbone(values[self.net.name])))
        for name, backbone in self.net.backbones.items():
            unread = [None] * len(backbone.channels)
            features += self.net.backbone_features(name, values[name]) if name in values else unread
        pooled = [None if one is None else static_pool(one, self.net.pool) for one in features]
        return in_units(self.model, self.net.fuse(with_learned(self.net, pooled, self.optional, left)))


class ExportedFeatures(Exportable):
    """The fusion part of a network of BM-NAS: reshape layers, fusion, classifier.

    Args:
        model: The network. Inputs of the exported part are the features that the fusion reads, pooled as the reshape
            layers pool them.
        missing: See `ExportedFusion`.

    Raises:
        UserError: The network has no fusion, or no input may be missing.
    """

    def __init__(self, model: FusionModel, missing: bool = False) -> None:
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
        self.optional = optional_inputs(model) if missing else ()
        self.inputs += present_inputs(self.optional)
        self.outputs, self.says = ["outputs"], outputs_of(model)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Outputs (N, K) of the features."""
        left = iter(tensors)
        read: list[torch.Tensor | None] = [None] * len(self.net.input_names)
        for index in self.used:
            read[index] = next(left)
        return in_units(self.model, self.net.fuse(with_learned(self.net, read, self.optional, left)))


class ExportedAttention(Exportable):
    """A network of MMNas on padded texts and regions.

    Args:
        model: The network, loaded with ``plain=True``.
        tokens: Length to which texts are padded; None: the maximum of the task's data. It is fixed, since the exporters
            unroll an LSTM; padding comes last, so it does not affect the words before it.
        regions: Number to which regions are padded; None: variable, or the maximum of the task's data if results depend
            on padding.
    """

    def __init__(self, model: AttentionModel, tokens: int | None = None, regions: int | None = None) -> None:
        super().__init__()
        self.net = model.net
        data: Any = importlib.import_module(f"datasets.{model.task.name}.dataset")
        limits = importlib.import_module("datasets.regions.reading")
        words, count = tokens or data.MAX_TOKENS, regions or "regions"
        if self.net.needs_full_padding:
            count = regions or getattr(data, "MAX_REGIONS", limits.MAX_REGIONS)
        size, known = model.metadata["feature_size"], self.net.embedding.num_embeddings
        self.inputs = [Tensor("regions", (count, size), torch.float32)]
        if self.net.encoder_decoder.uses_relation() or self.net.box_linear is not None:
            self.inputs.append(Tensor("boxes", (count, 4), torch.float32, boxes=True))
        self.inputs += [Tensor("counts", (), torch.int64), Tensor("tokens", (words,), torch.int64, known)]
        if self.net.box_linear is not None:
            self.inputs.append(Tensor("image_size", (2,), torch.float32))
        outputs = {
            "vqa": (["answers"], "logits of the answers; the sigmoid gives probabilities"),
            "vgd": (["scores", "offsets"], "scores of the regions, and offsets of their boxes"),
            "itm": (["score"], "how well text and image match, 0..1"),
        }
        self.outputs, self.says = outputs[model.task.name]

    def draw(self, count: int, generator: torch.Generator, length: int) -> list[torch.Tensor]:
        """See `Exportable.draw`; the samples have different numbers of regions, and texts end in padding."""
        made = {one.name: one.draw(count, generator, length) for one in self.inputs}
        most = made["regions"].shape[1]
        made["counts"] = torch.tensor([max(1, most - number) for number in range(count)])
        for number, text in enumerate(made["tokens"]):
            text[max(1, len(text) - number) :] = 0
        if "image_size" in made:
            made["image_size"] = 100 + 400 * torch.rand(count, 2, generator=generator)
        return list(made.values())

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Outputs of the network, see `models.mmnas.net`."""
        return self.net({one.name: value for one, value in zip(self.inputs, tensors, strict=True)})


def fixed_length(parts: Mapping[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """The tensors of an input, zero-padded or cut to ``size`` entries on axis 1; lengths (N,) are limited to it."""
    made = {}
    for name, value in parts.items():
        if value.dim() < 2:
            made[name] = value.clamp(max=size)
            continue
        cut = value[:, :size]
        made[name] = torch.cat([cut, cut.new_zeros(len(cut), size - cut.shape[1], *cut.shape[2:])], dim=1)
    return made


def optional_inputs(model: FusionModel) -> tuple[str, ...]:
    """Names of the inputs that a network reads and that may be missing.

    Raises:
        UserError: There are none.
    """
    names = tuple(name for name in getattr(model.net, "optional", ()) if model.is_read(name))
    if not names:
        raise UserError(
            f"--missing: {model.folder} has learned no values for missing inputs; train with --modality_dropout 0.2"
        )
    return names


def present_inputs(names: Sequence[str]) -> list[Tensor]:
    """The inputs ``NAME_present``, which tell which samples have the inputs ``names``."""
    return [Tensor(f"{name}_present", (), torch.bool, 2) for name in names]


def with_learned(net: Any, features: list, names: Sequence[str], left: Iterator[torch.Tensor]) -> list:
    """Replace the features of missing inputs by learned values.

    Args:
        net: The fusion network.
        features: Its features; None for those that are not read.
        names: Inputs that may be missing.
        left: The remaining inputs of the exported network: ``NAME_present`` of each of ``names``.
    """
    if not names:
        return features
    present = {f"{name}_present": next(left) for name in names}
    others = torch.ones_like(next(iter(present.values())))
    return net.with_placeholders(features, {f"{name}_present": others for name in net.optional} | present)


def static_pool(feature: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """Like `models.backbone_net.pool_feature`, but with slices of fixed sizes: ONNX has no adaptive max-pooling."""
    feature = feature[(...,) + (None,) * max(0, 4 - feature.dim())].flatten(3)
    for axis, count in zip((2, 3), pool, strict=True):
        size = feature.shape[axis]
        bounds = [(part * size // count, -(-(part + 1) * size // count)) for part in range(count)]
        feature = torch.cat([feature.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in bounds], axis)
    return feature


def in_units(model: FusionModel, outputs: torch.Tensor) -> torch.Tensor:
    """The outputs; if the label is a number, converted to its own units."""
    return model.probabilities(outputs) if model.label == "number" else outputs


def outputs_of(model: FusionModel) -> str:
    """Description of the outputs."""
    return {
        "class": "logits of the classes; their softmax gives probabilities",
        "classes": "logits of the classes; the sigmoid gives probabilities",
        "number": f"{model.label_name}, in its own units",
    }[model.label]
