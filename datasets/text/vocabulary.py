"""The tokeniser of questions and captions, and vocabularies that number words."""

import re

import numpy as np

from util.cli import UserError

SPECIAL_WORDS = ("PAD", "UNK", "CLS")
PAD, UNK, CLS = range(3)

DELETED = re.compile(r"[.,'!?\"()*#:;]")


def tokenise(text):
    """Split a question or caption into a list of words.

    The text is lower-cased; the characters ``. , ' ! ? " ( ) * # : ;`` are deleted, ``-`` and ``/`` become spaces.
    """
    return DELETED.sub("", text.lower()).replace("-", " ").replace("/", " ").split()


class Vocabulary:
    """Words in the order in which they were first seen, after PAD 0, UNK 1 and CLS 2.

    Args:
        words: All words except the special ones, without repetition.

    Attributes:
        words: Tuple of all words, the special ones first.
    """

    def __init__(self, words=()):
        self.words = (*SPECIAL_WORDS, *words)
        self._numbers = {word: number for number, word in enumerate(self.words)}
        if len(self._numbers) != len(self.words):
            raise ValueError("a vocabulary contains every word only once")

    @classmethod
    def of_texts(cls, texts):
        """Make the vocabulary of an iterable of texts."""
        return cls.of_words(map(tokenise, texts))

    @classmethod
    def of_words(cls, lists):
        """Make the vocabulary of an iterable of lists of words."""
        # A word in a text that is spelt like a special word gets the special word's number.
        return cls(dict.fromkeys(word for words in lists for word in words if word not in SPECIAL_WORDS))

    def __len__(self):
        return len(self.words)

    def __eq__(self, other):
        return isinstance(other, Vocabulary) and self.words == other.words

    __hash__ = None

    def encode(self, texts, max_tokens):
        """Convert texts to word numbers.

        Args:
            texts: List of B texts.
            max_tokens: Maximum number of words, T; the rest of a text is cut off.

        Returns:
            int32 (B, T), padded with 0 after the last word (a text without words is all 0); 1 for unknown words.
        """
        return self.encode_words(map(tokenise, texts), len(texts), max_tokens)

    def encode_words(self, lists, count, max_tokens):
        """Convert ``count`` texts, given as an iterable of lists of words, as `encode` does."""
        numbers = np.zeros((count, max_tokens), dtype=np.int32)
        for row, words in enumerate(lists):
            words = words[:max_tokens]
            numbers[row, : len(words)] = [self._numbers.get(word, UNK) for word in words]
        return numbers

    def to_dict(self):
        """dict of JSON values for `from_dict`, to be saved in checkpoints."""
        return {"words": list(self.words)}

    @classmethod
    def from_dict(cls, value, origin="the vocabulary"):
        """Restore a vocabulary from the dict of `to_dict`.

        Args:
            value: The dict.
            origin: Where it comes from, for messages.

        Raises:
            UserError: ``value`` is something else.
        """
        words = value.get("words") if isinstance(value, dict) else None
        good = isinstance(words, list) and tuple(words[:3]) == SPECIAL_WORDS
        if not good or not all(isinstance(word, str) for word in words) or len(set(words)) < len(words):
            raise UserError(
                f"{origin} has no list of distinct words that begins with {', '.join(SPECIAL_WORDS)}; make it again"
            )
        return cls(words[3:])
