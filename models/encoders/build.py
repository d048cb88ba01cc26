"""Builds encoders from the names that ``--encoder`` accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.encoders import libraries
from models.encoders.base import Encoder
from util.checkpoint import load_weights
from util.cli import UserError
from util.registry import Registry, is_own

# Kind of a modality -> its encoders, the default first. LIBRARY:NAME is a network of that library.
ENCODERS = {
    "vector": ("mlp",),
    "sequence": ("conv",),
    "layers": ("layers",),
    "picture": ("torchvision:resnet18", "torchvision:NAME", "timm:NAME", "package:efficientnet-lite0"),
    "text": ("words", "transformers:FOLDER_OR_NAME", "package:all-MiniLM-L6-v2"),
    "audio": ("logmel", "transformers:FOLDER_OR_NAME"),
}
LIBRARIES = ("torchvision", "timm", "transformers", "package")
# The user's own encoders, module:Class.
OWN: Registry = Registry("encoder", {}, Encoder)
BACKBONE_FILE = "backbone.pth"


@dataclasses.dataclass(frozen=True)
class Words:
    """What a word encoder needs to know about the data.

    Attributes:
        count: Number of words in the vocabulary.
        vectors: Initial word vectors, float32 (count, E); None: random ones.
        preparation: Function from texts to word indices, see `models.encoders.text.WordNet`.
    """

    count: int
    vectors: torch.Tensor | None
    preparation: Callable[[list], Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Describes the encoder of one modality, in plain values.

    Attributes:
        modality: Name of the modality.
        kind: Kind of the modality, a key of `ENCODERS`.
        size: Length of a vector or of a step's vector, or the shapes of layers; None for other kinds.
        encoder: Name of the encoder, optionally followed by ``:widths`` or ``:name``.
        taps: Indices of the features to read; None: the encoder's default.
        weights: ``default``, ``none``, or a file or run folder.
        max_tokens, max_seconds: Longer texts and sounds are truncated.
    """

    modality: str
    kind: str
    size: Any
    encoder: str
    taps: tuple[int, ...] | None = None
    weights: str = libraries.DEFAULT
    max_tokens: int = 128
    max_seconds: float = 10.0

    @property
    def name(self) -> str:
        """The part of ``encoder`` before the colon."""
        return self.encoder.partition(":")[0]

    @property
    def file(self) -> Path | None:
        """The weights file; None if ``weights`` is ``default`` or ``none``."""
        if self.weights in (libraries.DEFAULT, libraries.NONE):
            return None
        path = Path(self.weights)
        return path / BACKBONE_FILE if path.is_dir() else path

    @property
    def starts_trained(self) -> bool:
        """Whether the encoder starts with trained weights, or has no weights at all."""
        library = self.name in LIBRARIES and self.weights != libraries.NONE
        return library or self.file is not None or self.kind == "layers"

    def check(self) -> None:
        """Check names and paths without building anything.

        Raises:
            UserError: this kind of modality has no such encoder, or the weights file does not exist.
        """
        known = ENCODERS[self.kind]
        unknown = self.name not in {name.partition(":")[0] for name in known} and not is_own(self.encoder)
        if unknown or (self.name == "package" and self.encoder not in known):
            raise UserError(
                f"--encoder {self.modality}={self.encoder}: {self.modality} is a {self.kind}; its encoders are "
                f"{', '.join(known)}, and module:Class"
            )
        if self.name in LIBRARIES and not self.encoder.partition(":")[2]:
            raise UserError(f"--encoder {self.modality}={self.encoder}: which network? pass {self.name}:NAME")
        if self.file is not None and not self.file.is_file():
            raise UserError(
                f"--encoder_weights {self.modality}={self.weights}: {self.file} does not exist; pass the run folder of "
                f"`python main_unimodal_own.py --modality {self.modality}`, a file of weights, default or none"
            )


def build_encoder(
    plan: Plan,
    *,
    num_outputs: int,
    pool: tuple[int, int],
    dropout: float,
    words: Words | None = None,
    follows: bool = False,
) -> Encoder:
    """Build the encoder that a plan describes, and load its weights.

    Args:
        plan: See `Plan`.
        num_outputs: Number of outputs of the head.
        pool: Size (rows, columns) of features with positions.
        dropout: Dropout rate.
        words: Required for a word encoder.
        follows: A checkpoint of the complete network is loaded next, so no weights are read here.

    Raises:
        UserError: see `Plan.check`; or a library is not installed, or weights are missing or do not fit.
    """
    plan.check()
    shared = {"taps": plan.taps, "num_outputs": num_outputs, "dropout": dropout}
    weights = libraries.NONE if follows or plan.file is not None else plan.weights
    encoder = _build(plan, pool, weights, words, shared)
    if plan.file is not None and not follows:
        _load(encoder, plan)
    return encoder


def _build(plan, pool, weights, words, shared):
    _, _, rest = plan.encoder.partition(":")
    if plan.name in LIBRARIES:
        return _build_of_library(plan, rest, pool, weights, shared)
    if plan.name == "mlp":
        from models.encoders.vectors import VectorNet

        return VectorNet(plan.size, _widths(plan, rest), **shared)
    if plan.name == "layers":
        from models.encoders.layers import Layers

        return Layers(plan.size, **shared)
    if plan.name == "words":
        from models.encoders.text import WordNet

        assert words is not None
        return WordNet(words.count, words.vectors, words.preparation, _widths(plan, rest), pool, **shared)
    if plan.name in ("conv", "logmel"):
        from models.encoders.audio import BANDS, LogMel
        from models.encoders.sequences import SequenceNet

        sound = plan.name == "logmel"
        encoder = SequenceNet(BANDS if sound else plan.size, _widths(plan, rest), pool, name=plan.name, **shared)
        encoder.preparation = LogMel(plan.max_seconds) if sound else None
        return encoder
    return OWN[plan.encoder](plan.size, pool=pool, **shared)


def _build_of_library(plan, name, pool, weights, shared):
    place = (name, plan.modality, weights, pool)
    if plan.name == "package":
        from models.encoders.packaged import build_packaged

        return build_packaged(*place, plan.max_tokens, **shared)
    if plan.kind == "picture":
        from models.encoders import pictures

        build = pictures.build_timm if plan.name == "timm" else pictures.build_torchvision
        return build(*place, **shared)
    if plan.kind == "text":
        from models.encoders.text import build_text_transformer

        return build_text_transformer(*place, plan.max_tokens, **shared)
    from models.encoders.audio import build_audio_transformer

    return build_audio_transformer(*place, plan.max_seconds, **shared)


def _widths(plan, text):
    """Parse the widths of layers, "128,64"; None for an empty text."""
    if not text:
        return None
    parts = text.split(",")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"--encoder {plan.modality}={plan.encoder}: expected widths such as {plan.name}:128,64")
    return [int(part) for part in parts]


def _load(encoder, plan):
    """Load a file: a backbone of our own unimodal training, or weights in the form of a library."""
    try:
        state = libraries.read_state(plan.file)
        own = set(encoder.state_dict())
        if plan.file.name == BACKBONE_FILE or set(state) == own or plan.name not in LIBRARIES:
            load_weights(encoder, state, plan.file)
        else:
            encoder.load_library_weights(str(plan.file), state)
    except UserError as error:
        raise UserError(f"--encoder_weights {plan.modality}: {error}") from None
    encoder.source = str(plan.file)
