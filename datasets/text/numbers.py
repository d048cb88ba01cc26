"""Texts as sequences of word numbers, for a text encoder that is trained from scratch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from datasets.storage.blobs import state_without_caches
from datasets.text.vocabulary import SPECIAL_WORDS, Vocabulary, tokenise
from util.hashes import short_hash

# Rarer words cannot be learned, and a randomly initialised embedding is not enough for more words than this.
MIN_COUNT, MAX_WORDS = 2, 20_000


@dataclasses.dataclass(frozen=True, repr=False)
class WordNumbers:
    """Function from texts to sequences of word numbers.

    Args:
        words: The vocabulary's words, the special ones first.
        max_tokens: Maximum number of words of a text; the rest is cut off.
    """

    words: tuple[str, ...]
    max_tokens: int

    @cached_property
    def _vocabulary(self):
        return Vocabulary(self.words[len(SPECIAL_WORDS) :])

    def __call__(self, texts: list) -> dict[str, torch.Tensor]:
        """Encode N texts, of which None counts as one without words.

        Returns:
            dict of ``values`` int64 (N, T), padded with 0, and ``length`` int64 (N,).
        """
        lists = [tokenise(text or "")[: self.max_tokens] for text in texts]
        length = [len(words) for words in lists]
        numbers = self._vocabulary.encode_words(lists, len(lists), max(1, *length))
        return {"values": torch.from_numpy(numbers.astype(np.int64)), "length": torch.tensor(length)}

    def __repr__(self) -> str:
        return f"WordNumbers({short_hash(list(self.words))}, {self.max_tokens})"

    def __getstate__(self) -> dict[str, Any]:
        return state_without_caches(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def frequent_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The special words, then up to `MAX_WORDS` words that occur at least `MIN_COUNT` times, most frequent first.

    If no word occurs that often, words of any frequency are taken.
    """
    counts = Counter(word for text in texts for word in tokenise(text) if word not in SPECIAL_WORDS)
    order = sorted(counts, key=lambda word: (-counts[word], word))
    kept = [word for word in order if counts[word] >= MIN_COUNT] or order
    return (*SPECIAL_WORDS, *kept[:MAX_WORDS])
