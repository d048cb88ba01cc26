"""Picture encoders: networks of timm and torchvision, tapped at several depths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.encoders import libraries
from models.encoders.base import Encoder
from util.checkpoint import load_weights
from util.cli import UserError
from util.torchvision_weights import fetch


@dataclasses.dataclass(frozen=True)
class PicturePreparation:
    """Brings pictures to the size that a network was trained with: scales the shorter side, then crops the centre.

    Args:
        size: (height, width) of the result.
        share: Fraction of the scaled shorter side that the crop keeps, as in the network's own evaluation.
        interpolation: ``bilinear`` or ``bicubic``.
    """

    size: tuple[int, int]
    share: float
    interpolation: str

    def __call__(self, pictures: list) -> torch.Tensor:
        """Map N pictures, uint8 (H, W, 3) or None, to uint8 (N, 3, height, width), with zeros for None."""
        made = torch.zeros((len(pictures), 3, *self.size), dtype=torch.uint8)
        for row, picture in enumerate(pictures):
            if picture is not None:
                made[row] = torch.from_numpy(self._fit(picture)).permute(2, 0, 1)
        return made

    def _fit(self, picture):
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(picture))
        height, width = self.size
        scale = max(height / image.height, width / image.width) / self.share
        scaled = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(scaled, getattr(Image.Resampling, self.interpolation.upper()))
        left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
        return np.array(image.crop((left, top, left + width, top + height)))


class PictureNet(Encoder):
    """Base class of picture networks whose tapped maps are average-pooled to ``pool``.

    Average pooling, because the head that these networks were trained with reads the average of their last map.

    Args:
        pool: Size (rows, columns) of the features.
        mean, std: Mean and standard deviation of each channel of the training pictures, for values in 0..1.
        available, taps, num_outputs, dropout, name: See `Encoder`.
    """

    def __init__(
        self,
        available: Sequence[int],
        pool: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        taps: Sequence[int] | None,
        num_outputs: int,
        dropout: float,
        name: str,
    ) -> None:
        super().__init__(available, taps, num_outputs, dropout, name)
        self.pool = pool
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, inputs: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` (None: all) tapped features, (N, C, *pool), of pictures, uint8 (N, 3, H, W)."""
        pictures = (inputs.to(self.dtype) / 255 - self.mean) / self.std
        maps = self.maps(pictures, self.taps if count is None else self.taps[:count])
        return [F.adaptive_avg_pool2d(one, self.pool) for one in maps]

    def maps(self, pictures: torch.Tensor, taps: Sequence[int]) -> list[torch.Tensor]:
        """Return the maps, (N, C, h, w) each, at ``taps`` of normalised pictures, float (N, 3, H, W)."""
        raise NotImplementedError


class TimmNet(PictureNet):
    """A network of timm: ResNets, EfficientNets, vision transformers, ...

    Args:
        model: The network, without its classifier.
        settings: The result of timm's ``resolve_model_data_config`` for it.
        pool: See `PictureNet`.
        name, taps, num_outputs, dropout: See `Encoder`.
    """

    def __init__(self, model: Any, settings: dict[str, Any], pool: tuple[int, int], **options: Any) -> None:
        available = [stage["num_chs"] for stage in model.feature_info]
        super().__init__(available, pool, settings["mean"], settings["std"], **options)
        self.model = model
        self.settings |= {"library": {key: str(value) for key, value in sorted(settings.items())}}
        kind = settings["interpolation"] if settings["interpolation"] in ("bilinear", "bicubic") else "bicubic"
        self.preparation = PicturePreparation(tuple(settings["input_size"][1:]), settings["crop_pct"], kind)

    def maps(self, pictures: torch.Tensor, taps: Sequence[int]) -> list[torch.Tensor]:
        options = {"indices": list(taps), "stop_early": True, "intermediates_only": True, "output_fmt": "NCHW"}
        return self.model.forward_intermediates(pictures, **options)

    stops_early = False  # layers after the last requested feature belong to the same module

    def modules_of(self, count: int) -> list[nn.Module]:
        return [self.model] if count else []

    def load_library_weights(self, path: str, state: dict[str, torch.Tensor]) -> None:
        """Load timm's weights, except for the classifier."""
        names = self.model.pretrained_cfg.get("classifier") or ()
        names = (names,) if isinstance(names, str) else names
        own = set(self.model.state_dict())
        kept = {k: v for k, v in state.items() if k in own or not k.startswith(tuple(f"{name}." for name in names))}
        load_weights(self.model, kept, path)


def build_timm(name: str, modality: str, weights: str, pool: tuple[int, int], **options: Any) -> TimmNet:
    """Build an encoder from a network of timm.

    Args:
        name: Its name in timm, e.g. ``resnet18`` or ``vit_small_patch14_dinov2.lvd142m``.
        modality: Name of the modality, for messages.
        weights: ``default``: timm's pretrained weights; otherwise random ones.
        pool: See `PictureNet`.
        options: ``taps``, ``num_outputs`` and ``dropout`` of `Encoder`.

    Raises:
        UserError: timm is not installed, it does not know the name, or there are no weights.
    """
    timm = libraries.import_library("timm", f"{modality}=timm:{name}")
    bare = name.partition(".")[0]
    if ":" not in name and not timm.is_model(bare):
        raise UserError(f"--encoder {modality}=timm:{name}: timm has no such network{_near(timm, bare)}")
    with libraries.fetching(f"timm:{name}", modality):
        model = timm.create_model(name, pretrained=weights == libraries.DEFAULT, num_classes=0)
    net = TimmNet(model, timm.data.resolve_model_data_config(model), pool, name=f"timm:{name}", **options)
    if weights == libraries.DEFAULT:
        net.source = f"timm's pretrained {name}"
    return net


def _near(timm, name):
    return libraries.near_names(name, timm.list_models())


class TorchvisionNet(PictureNet):
    """A classification network of torchvision whose stages form a chain.

    Args:
        stages: Parts of the network that are called one after the other; each output can be tapped.
        channels_last: Whether the outputs are (N, h, w, C).
        crop, resize: Crop and resize sizes in pixels of the evaluation that belongs to the weights.
        pool, mean, std: See `PictureNet`.
        name, taps, num_outputs, dropout: See `Encoder`.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        channels_last: bool,
        crop: int,
        resize: int,
        pool: tuple[int, int],
        **options: Any,
    ) -> None:
        available = _channels_of(stages, channels_last, crop)
        super().__init__(available, pool, **options)
        self.stages, self.channels_last = nn.ModuleList(stages[: self.taps[-1] + 1]), channels_last
        self.settings |= {"channels_last": channels_last}
        self.preparation = PicturePreparation((crop, crop), crop / resize, "bilinear")

    def maps(self, pictures: torch.Tensor, taps: Sequence[int]) -> list[torch.Tensor]:
        found, x = [], pictures
        for index, stage in enumerate(self.stages[: taps[-1] + 1]):
            x = stage(x)
            if index in taps:
                found.append(x.movedim(-1, 1) if self.channels_last else x)
        return found

    def modules_of(self, count: int) -> list[nn.Module]:
        return list(self.stages[: self.taps[count - 1] + 1]) if count else []

    def load_library_weights(self, path: str, state: dict[str, torch.Tensor]) -> None:
        """Load a state dict of the network in ``torchvision.models``."""
        from torchvision import models

        net = models.get_model(self.settings["name"].partition(":")[2], weights=None)
        load_weights(net, state, path)
        self.stages.load_state_dict(nn.ModuleList(_stages_of(net)[: len(self.stages)]).state_dict())


def build_torchvision(name: str, modality: str, weights: str, pool: tuple[int, int], **options: Any) -> TorchvisionNet:
    """Build an encoder from a network of torchvision; arguments and errors as in `build_timm`."""
    from torchvision import models

    encoder = f"torchvision:{name}"
    known = models.list_models(module=models)
    if name not in known:
        near = libraries.near_names(name, known)
        raise UserError(f"--encoder {modality}={encoder}: torchvision has no such network{near}")
    entry = models.get_model_weights(name).DEFAULT
    net: Any = models.get_model(name, weights=None)
    if weights == libraries.DEFAULT:
        way = f"download {{url}} elsewhere and pass --encoder_weights {modality}=FILE, or {modality}=none"
        net.load_state_dict(fetch(entry, name, way))
    stages = _stages_of(net)
    if stages is None:
        raise UserError(
            f"--encoder {modality}={encoder}: its stages are not known here; timm has most networks: timm:NAME"
        )
    evaluation = entry.transforms()
    sizes = {"crop": evaluation.crop_size[0], "resize": evaluation.resize_size[0]}
    shape = {"mean": evaluation.mean, "std": evaluation.std, "name": encoder}
    made = TorchvisionNet(stages, hasattr(net, "permute"), **sizes, pool=pool, **shape, **options)
    if weights == libraries.DEFAULT:
        made.source = f"torchvision's {entry}"
    return made


def _stages_of(net):
    """The stages of a torchvision network, or None if they do not form a chain."""
    if hasattr(net, "layer1"):  # ResNets
        return [
            nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool),
            net.layer1,
            net.layer2,
            net.layer3,
            net.layer4,
        ]
    if hasattr(net, "trunk_output"):  # RegNets
        return [net.stem, *net.trunk_output.children()]
    return list(net.features.children()) if isinstance(getattr(net, "features", None), nn.Sequential) else None


@torch.no_grad()
def _channels_of(stages, channels_last, crop):
    """Number of channels of every stage's output."""
    x, channels = torch.zeros(1, 3, crop, crop), []
    for stage in stages:
        mode = stage.training
        x = stage.eval()(x)
        stage.train(mode)
        channels.append(x.shape[-1] if channels_last else x.shape[1])
    return channels
