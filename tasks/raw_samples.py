"""Random raw inputs of data of one's own, with which exported networks are traced and checked."""

from __future__ import annotations

from typing import Any

import numpy as np

RATE = 16_000
# Samples of a recording per unit of length: encoders of sounds shorten them.
_PER_UNIT = 800
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def random_raw(kind: str, size: Any, lengths: list[int], rng: np.random.Generator, words: tuple[str, ...] = ()) -> list:
    """Random values of a text, recording or sequence, as `datasets.own.OwnData.raw` gives them.

    Args:
        kind: ``text``, ``audio`` or ``sequence``.
        size: Numbers of a step of a sequence.
        lengths: Words, steps, or twentieths of a second of each sample.
        rng: Draws them.
        words: Of the texts; (): made up.
    """
    if kind == "text":
        known = words or tuple("".join(rng.choice(list(_LETTERS), 3)) for _ in range(20))
        return [" ".join(rng.choice(known, length)) for length in lengths]
    if kind == "audio":
        return [(rng.normal(0, 0.1, _PER_UNIT * length).astype(np.float32), RATE) for length in lengths]
    return [rng.normal(size=(length, size)).astype(np.float32) for length in lengths]
