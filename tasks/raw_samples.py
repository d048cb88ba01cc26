"""Random raw inputs like those of your own data, for tracing and checking exported networks."""

from __future__ import annotations

from typing import Any

import numpy as np

RATE = 16_000
# Audio samples per unit of length (1/20 s); audio encoders reduce the length of their inputs.
_PER_UNIT = 800
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def random_raw(kind: str, size: Any, lengths: list[int], rng: np.random.Generator, words: tuple[str, ...] = ()) -> list:
    """Random texts, recordings or sequences, in the form of `datasets.own.OwnData.raw`.

    Args:
        kind: ``text``, ``audio`` or ``sequence``.
        size: Width of a step of a sequence.
        lengths: Length of each sample in words, steps, or twentieths of a second.
        rng: Random generator.
        words: Words to draw texts from; (): made-up words.
    """
    if kind == "text":
        known = words or tuple("".join(rng.choice(list(_LETTERS), 3)) for _ in range(20))
        return [" ".join(rng.choice(known, length)) for length in lengths]
    if kind == "audio":
        return [(rng.normal(0, 0.1, _PER_UNIT * length).astype(np.float32), RATE) for length in lengths]
    return [rng.normal(size=(length, size)).astype(np.float32) for length in lengths]
