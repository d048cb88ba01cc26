"""Texts as words, and words as numbers."""

import re

import numpy as np

from util.cli import UserError

SPECIAL_WORDS = ("PAD", "UNK", "CLS")
PAD, UNK, CLS = range(3)

DELETED = re.compile(r"[.,'!?\"()*#:;]")


def tokenise(text):
    """List of the words of a question or caption.

    Lower case; the characters ``. , ' ! ? " ( ) * # : ;`` are deleted, ``-`` and ``/`` become spaces.
    """
    return DELETED.sub("", text.lower()).replace("-", " ").replace("/", " ").split()


class Vocabulary:
    """Words in the order in which they were first seen, after PAD 0, UNK 1 and CLS 2.

    Args:
        words: All words but the special ones, without repetition.

    Attributes:
        words: Tuple of all words, the special ones first.
    """

    def __init__(self, words=()):
        self.words = (*SPECIAL_WORDS, *words)
        self._numbers = {word: number for number, word in enumerate(self.words)}
        if len(self._numbers) != len(self.words):
            raise ValueError("a vocabulary holds every word once")

    @classmethod
    def of_texts(cls, texts):
        """The vocabulary of an iterable of texts."""
        return cls.of_words(map(tokenise, texts))

    @classmethod
    def of_words(cls, lists):
        """The vocabulary of an iterable of lists of words."""
        # A word of a text that looks like a special word gets the special word's number.
        return cls(dict.fromkeys(word for words in lists for word in words if word not in SPECIAL_WORDS))

    def __len__(self):
        return len(self.words)

    def __eq__(self, other):
        return isinstance(other, Vocabulary) and self.words == other.words

    __hash__ = None

    def encode(self, texts, max_tokens):
        """Numbers of the first words of each text.

        Args:
            texts: List of B texts.
            max_tokens: T, more words are cut off.

        Returns:
            int32 (B, T), 0 after the last word (everywhere for a text without words), 1 for unknown words.
        """
        return self.encode_words(map(tokenise, texts), len(texts), max_tokens)

    def encode_words(self, lists, count, max_tokens):
        """As `encode`, of ``count`` texts that are lists of words already."""
        numbers = np.zeros((count, max_tokens), dtype=np.int32)
        for row, words in enumerate(lists):
            words = words[:max_tokens]
            numbers[row, : len(words)] = [self._numbers.get(word, UNK) for word in words]
        return numbers

    def to_dict(self):
        """What `from_dict` needs, as JSON values; a checkpoint carries it."""
        return {"words": list(self.words)}

    @classmethod
    def from_dict(cls, value, origin="the vocabulary"):
        """The vocabulary of `to_dict`.

        Raises:
            UserError: ``value`` is something else; ``origin`` says where it comes from.
        """
        words = value.get("words") if isinstance(value, dict) else None
        good = isinstance(words, list) and tuple(words[:3]) == SPECIAL_WORDS
        if not good or not all(isinstance(word, str) for word in words) or len(set(words)) < len(words):
            raise UserError(
                f"{origin} holds no list of distinct words that begins with {', '.join(SPECIAL_WORDS)}; make it again"
            )
        return cls(words[3:])
