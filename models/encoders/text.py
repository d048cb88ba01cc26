"""Text encoders: a pretrained transformer, or word embeddings and a small convolutional network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from models.encoders import libraries
from models.encoders.base import lengths_mask
from models.encoders.hidden_states import HiddenStates, build_hidden_states, check_source
from models.encoders.sequences import SequenceNet

WORD_SIZE = 128


@dataclasses.dataclass(frozen=True)
class TextPreparation:
    """Tokenizes texts with a transformer's own tokenizer.

    Args:
        name: Folder or published name of the model.
        max_tokens: Longer texts are truncated.
        content: Hash of the tokenizer, so that features cached with another tokenizer are not used.
    """

    name: str
    max_tokens: int
    content: str

    def __call__(self, texts: list) -> dict[str, torch.Tensor]:
        """Map N texts (None: an empty text) to ``input_ids``, ``attention_mask``, ..., int64 (N, T) each."""
        tokenizer, _ = _tokenizer(self.name)
        tokens = tokenizer(
            [text or "" for text in texts],
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return dict(tokens)


@functools.lru_cache(maxsize=4)
def _tokenizer(name):
    """The tokenizer, loaded once per process, and its hash, computed here because calls change its padding settings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data workers are processes already
    transformers = libraries.import_library("transformers", f"transformers:{name}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    content = getattr(tokenizer, "backend_tokenizer", None)
    text = content.to_str() if content is not None else repr(sorted(tokenizer.get_vocab().items()))
    return tokenizer, hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def build_text_transformer(
    name: str, modality: str, weights: str, pool: tuple[int, int], max_tokens: int, **options: Any
) -> HiddenStates:
    """Build a text model of transformers.

    Args:
        max_tokens: Longer texts are truncated to this length, or to the model's maximum if that is smaller.
        name, modality, weights, pool, options: See `build_hidden_states`.

    Raises:
        UserError: see `build_hidden_states`.
    """
    libraries.import_library("transformers", f"{modality}=transformers:{name}")
    check_source(name, modality)
    with libraries.fetching(f"transformers:{name}", modality, libraries.FOLDER_REMEDY):
        tokenizer, digest = _tokenizer(name)
    preparation = TextPreparation(name, min(max_tokens, tokenizer.model_max_length), digest)
    return build_hidden_states(name, modality, weights, pool, preparation, **options)


class WordNet(SequenceNet):
    """Word embeddings, then the convolutions of `SequenceNet`. Tap 0 is the embeddings.

    Args:
        num_words: Number of words in the vocabulary; index 0 is padding.
        vectors: Initial word vectors, float32 (num_words, E); None: random ones of length `WORD_SIZE`.
        preparation: Function from texts to ``values``, int64 (N, T), and ``length``, int64 (N,).
        widths, pool, taps, num_outputs, dropout: See `SequenceNet`.
    """

    def __init__(
        self,
        num_words: int,
        vectors: torch.Tensor | None,
        preparation: Any,
        widths: Sequence[int] | None,
        pool: tuple[int, int],
        taps: Sequence[int] | None,
        num_outputs: int,
        dropout: float,
    ) -> None:
        size = WORD_SIZE if vectors is None else vectors.shape[1]
        super().__init__(size, widths, pool, taps, num_outputs, dropout, "words")
        self.embedding = nn.Embedding(num_words, size)
        if vectors is not None:
            self.embedding.weight.data.copy_(vectors)
        self.preparation = preparation

    def forward(self, inputs: dict[str, torch.Tensor], count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` (None: all) tapped features, (N, C, *pool) each.

        Args:
            inputs: ``values``, int64 (N, T), the word indices, and ``length``, int64 (N,).
            count: Number of features.
        """
        words = inputs["values"].long()
        mask = lengths_mask(inputs["length"], words.shape[1])[:, None]
        return self.features(self.embedding(words).transpose(1, 2) * mask, inputs["length"], count)

    def modules_of(self, count: int) -> list[nn.Module]:
        return [self.embedding, *super().modules_of(count)] if count else []
