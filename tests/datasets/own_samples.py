"""A small prepared folder with every kind of array, for tests."""

import numpy as np

from datasets.own.manifest import OwnLabel
from datasets.own.writing import write_samples

MODALITIES = {
    "numbers": ("vector", 4),
    "plot": ("text", None),
    "motion": ("sequence", 3),
    "maps": ("layers", [(2,), (3, 2)]),
}
FACTS = {"name": "made", "description": "made up", "synthetic": True, "license": None, "citation": None}
WORDS = ("день", "日の出", "été", "שלום")


def sample(number, rng):
    values = {
        "numbers": rng.normal(size=4).astype(np.float32) if number % 5 else None,
        "plot": WORDS[number % 4] if number % 7 else None,
        "motion": rng.normal(size=(number % 6, 3)).astype(np.float32) if number % 4 else None,
        "maps": [rng.normal(size=2).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)],
    }
    return f"s{number}", number % 3, values


def write_own(folder, sizes=(("train", 300), ("dev", 20), ("test", 9)), seed=0):
    """Write the folder; returns split -> its samples."""
    rng = np.random.default_rng(seed)
    splits = {split: [sample(number, rng) for number in range(size)] for split, size in sizes}
    write_samples(folder, splits, OwnLabel("mood", "class", ("a", "b", "c")), MODALITIES, FACTS)
    return splits
