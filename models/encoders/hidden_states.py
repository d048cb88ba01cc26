"""Encoders from transformers: the hidden states of a text or an audio model, pooled without padding."""

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

    Features are means over segments of a sample's real positions.

    Args:
        model: A transformers model that returns ``hidden_states``.
        pool: (rows, columns) of the features.
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
        """Four layers spread over the depth; the embedding is not among them unless there are fewer."""
        layers = available - 1
        return tuple(sorted({-(-layers * part // 4) for part in range(1, 5)}))

    def forward(self, inputs: dict[str, torch.Tensor], count: int | None = None) -> list[torch.Tensor]:
        """The first ``count`` tapped features (N, d, *pool) of what the preparation gives."""
        mask = inputs.get("attention_mask")
        unreal = mask is not None and (mask.is_meta or isinstance(mask, FakeTensor))
        if unreal and not torch.compiler.is_exporting():
            # Only shapes are asked for, and transformers looks at the values of masks. An export must keep the mask.
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
    """int64 (N,) positions of ``states`` (N, T, d) that are no padding; a network may have shortened time."""
    size = states.shape[1]
    if mask is None:
        return torch.full((states.shape[0],), size, device=states.device)
    return -(-mask.sum(1) * size // mask.shape[1])


def build_hidden_states(
    name: str, modality: str, weights: str, pool: tuple[int, int], preparation: Any, **options: Any
) -> HiddenStates:
    """A transformers model by its folder or its name on the hub.

    Args:
        name: Folder with ``config.json``, or the name of a published model.
        modality: Name of the modality, for messages.
        weights: ``default``: its weights; else random ones.
        pool, preparation: See `HiddenStates`.
        options: ``taps``, ``num_outputs`` and ``dropout`` of `Encoder`.

    Raises:
        UserError: transformers is not installed, there is no such model, or it has no weights here.
    """
    encoder = f"transformers:{name}"
    transformers = libraries.import_library("transformers", f"{modality}={encoder}")
    check_source(name, modality)
    quiet = logging.getLogger("transformers")
    level, random = quiet.level, weights != libraries.DEFAULT
    quiet.setLevel(logging.ERROR)  # it warns of weights that are not needed
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
        model.pooler = None  # its weights would have no part in the features
    net = HiddenStates(model.float(), pool, preparation, name=encoder, **options)
    if not random:
        net.source = f"transformers' pretrained {name}"
    return net


def check_source(name: str, modality: str) -> None:
    """Check that a name that is a path is a folder.

    Raises:
        UserError: it is not.
    """
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not (Path(name) / "config.json").is_file():
        raise UserError(
            f"--encoder {modality}=transformers:{name}: there is no {Path(name) / 'config.json'}; name a folder that "
            "save_pretrained wrote, or a published model"
        )
