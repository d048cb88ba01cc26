"""Encoders from transformers: the hidden states of a text or audio model, pooled over real positions."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from models.encoders import libraries
from models.encoders.base import Encoder, segment_means
from util.cli import UserError


class HiddenStates(Encoder):
    """The hidden states of a transformer: tap 0 is its embedding, tap i the output of layer i.

    Features are means over segments of a sample's real positions, see `segment_means`.

    Args:
        model: A transformers model that returns ``hidden_states``.
        pool: Size (rows, columns) of the features.
        preparation: See `Encoder`.
        taps, num_outputs, dropout, name: See `Encoder`.
    """

    stops_early = False  # the whole model runs

    def __init__(self, model: Any, pool: tuple[int, int], preparation: Any, **options: Any) -> None:
        config = model.config
        layers = getattr(config, "num_hidden_layers", None) or config.encoder_layers
        width = getattr(config, "hidden_size", None) or config.d_model
        super().__init__([width] * (layers + 1), **options)
        self.model, self.pool, self.preparation = model, pool, preparation
        self.settings |= {"config": hashlib.sha256(config.to_json_string(use_diff=False).encode()).hexdigest()}

    @staticmethod
    def default_taps(available: int) -> tuple[int, ...]:
        """Four layers spread over the depth, including the last; all layers if there are at most four.

        The embedding, tap 0, is left out.
        """
        layers = available - 1
        return tuple(sorted({-(-layers * part // 4) for part in range(1, 5)}))

    def forward(self, inputs: dict[str, torch.Tensor], count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` (None: all) tapped features, (N, d, *pool) each.

        Args:
            inputs: The tensors that the preparation returns, (N, T) or (N, T, ...).
            count: Number of features.
        """
        mask = inputs.get("attention_mask")
        unreal = mask is not None and (mask.is_meta or isinstance(mask, FakeTensor))
        if unreal and not torch.compiler.is_exporting():
            # Only shapes are needed, and transformers reads the values of masks. An export must keep the mask.
            inputs, mask = {name: value for name, value in inputs.items() if name != "attention_mask"}, None
        states = self.model(**inputs, output_hidden_states=True, return_dict=True).hidden_states
        length = _lengths(mask, states[-1])
        wanted = self.taps if count is None else self.taps[:count]
        return [segment_means(states[tap].transpose(1, 2), length, self.pool) for tap in wanted]

    def modules_of(self, count: int) -> list[nn.Module]:
        return [self.model] if count else []

    def load_library_weights(self, path: str, state: dict[str, torch.Tensor]) -> None:
        raise UserError(f"{path}: name the folder with config.json and the weights as the encoder, transformers:FOLDER")


def _lengths(mask, states):
    """Number of real positions, int64 (N,), of ``states`` (N, T, d). The network may have downsampled time."""
    size = states.shape[1]
    if mask is None:
        return torch.full((states.shape[0],), size, device=states.device)
    return -(-mask.sum(1) * size // mask.shape[1])


def build_hidden_states(
    name: str, modality: str, weights: str, pool: tuple[int, int], preparation: Any, **options: Any
) -> HiddenStates:
    """Build an encoder from a transformers model, named by its folder or by its name on the hub.

    Args:
        name: Folder with ``config.json``, or the name of a published model.
        modality: Name of the modality, for messages.
        weights: ``default``: the model's pretrained weights; otherwise random ones.
        pool, preparation: See `HiddenStates`.
        options: ``taps``, ``num_outputs`` and ``dropout`` of `Encoder`.

    Raises:
        UserError: transformers is not installed, the model does not exist, or its weights are not available.
    """
    encoder = f"transformers:{name}"
    transformers = libraries.import_library("transformers", f"{modality}={encoder}")
    check_source(name, modality)
    quiet = logging.getLogger("transformers")
    level, random = quiet.level, weights != libraries.DEFAULT
    quiet.setLevel(logging.ERROR)  # it warns about weights that are not used
    transformers.utils.logging.disable_progress_bar()
    try:
        with libraries.fetching(encoder, modality, libraries.FOLDER_REMEDY):
            config = transformers.AutoConfig.from_pretrained(name)
            auto = transformers.AutoModel
            model = auto.from_config(config) if random else auto.from_pretrained(name, config=config)
    finally:
        quiet.setLevel(level)
    model = model.get_encoder() if config.is_encoder_decoder else model
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None  # features do not depend on it
    net = HiddenStates(model.float(), pool, preparation, name=encoder, **options)
    if not random:
        net.source = f"transformers' pretrained {name}"
    return net


def check_source(name: str, modality: str) -> None:
    """Check that a name that looks like a path is a model's folder.

    Raises:
        UserError: the folder has no ``config.json``.
    """
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not (Path(name) / "config.json").is_file():
        raise UserError(
            f"--encoder {modality}=transformers:{name}: there is no {Path(name) / 'config.json'}; name a folder that "
            "save_pretrained wrote, or a published model"
        )
