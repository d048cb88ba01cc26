"""Divides samples into train, dev and test: as the user says, or drawn by class and group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.own.manifest import SPLITS
from util.cli import UserError

ALIASES = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev"}
ALIASES |= {"test": "test", "testing": "test", "eval": "test"}


def split_number(name: object, place: str) -> int:
    """Number of the split that a user calls ``name``.

    Raises:
        UserError: it is not known; ``place`` says where it was found.
    """
    text = str(name).strip().lower()
    if text not in ALIASES:
        raise UserError(f"{place}: unknown split {str(name)!r}; expected one of {', '.join(ALIASES)}")
    return SPLITS.index(ALIASES[text])


def draw_splits(
    strata: np.ndarray, shares: Sequence[float], seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Draw splits so that each has its share of every stratum, and no group is in two.

    Without groups a stratum of as many samples as there are splits is in each of them; of fewer samples, the first
    goes to train.

    Args:
        strata: int64 (N,), -1: left out.
        shares: Share of each split, summing to 1; 0: the split stays empty.
        seed: Of the draw.
        groups: int64 (N,), or None.

    Returns:
        int8 (N,): number of each sample's split, -1 for those left out.
    """
    drawn = np.full(len(strata), -1, np.int8)
    rng = np.random.default_rng(seed)
    if groups is not None:
        return _draw_groups(drawn, strata, np.asarray(shares), rng, groups)
    for stratum in np.unique(strata[strata >= 0]):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        begin = 0
        for split, count in enumerate(_portions(len(rows), shares)):
            drawn[rows[begin : begin + count]] = split
            begin += count
    return drawn


def _portions(count, shares):
    """Whole numbers that sum to ``count``, near ``shares``, at least 1 each where possible."""
    wanted = [split for split, share in enumerate(shares) if share > 0]
    exact = np.asarray(shares, dtype=np.float64) * count
    portions = np.floor(exact + 1e-9).astype(int)
    for split in sorted(wanted, key=lambda one: (portions[one] - exact[one], one))[: count - portions.sum()]:
        portions[split] += 1
    if count >= len(wanted):
        for split in wanted:
            if not portions[split]:
                portions[split] += 1
                portions[portions.argmax()] -= 1
        return portions
    # Too few for every split: train first, then test, since dev has other samples.
    portions[:] = 0
    for split in [wanted[0], *reversed(wanted[1:])][:count]:
        portions[split] += 1
    return portions


def _draw_groups(drawn, strata, shares, rng, groups):
    """Large groups first, each to the split that lacks most of what it holds, rare strata counting most."""
    used = strata >= 0
    names, inverse = np.unique(groups[used], return_inverse=True)
    if len(names) < (shares > 0).sum():
        raise UserError(f"there are {len(names)} groups for {(shares > 0).sum()} splits; name a --group with more")
    kinds = int(strata.max()) + 1
    held = np.zeros((len(names), kinds), np.int64)
    np.add.at(held, (inverse, strata[used]), 1)
    totals = held.sum(0)
    weights = 1 / np.maximum(totals, 1)
    lacking = shares[:, None] * totals[None]
    split_of, sizes = np.zeros(len(names), np.int8), held.sum(1)
    order = rng.permutation(len(names))
    empty = {split for split, share in enumerate(shares) if share > 0}
    for left, group in zip(range(len(names), 0, -1), order[np.argsort(-sizes[order], kind="stable")], strict=True):
        gain = (np.minimum(lacking, held[group]) - np.maximum(0, held[group] - np.maximum(lacking, 0))) @ weights
        gain[shares <= 0] = -np.inf
        if left == len(empty):  # no split stays without a group
            gain[[split for split in range(len(shares)) if split not in empty]] = -np.inf
        chosen = int(gain.argmax())
        split_of[group] = chosen
        lacking[chosen] -= held[group]
        empty.discard(chosen)
    drawn[used] = split_of[inverse]
    return drawn


def complete_splits(
    given: np.ndarray, strata: np.ndarray, shares: Sequence[float], seed: int, groups: np.ndarray | None
) -> tuple[np.ndarray, list[str]]:
    """Draw the splits that the user's own lack from the samples of train, in the proportion of ``shares``.

    Args:
        given: int8 (N,), -1: left out.
        strata, shares, seed, groups: As for `draw_splits`.

    Returns:
        The splits, and the names of those that were drawn.

    Raises:
        UserError: there are no samples of train.
    """
    present = np.unique(given[given >= 0]).tolist()
    if 0 not in present:
        raise UserError("no sample is in the split train; name the samples to train on")
    lacking = [split for split in range(len(SPLITS)) if split not in present]
    if lacking:
        kept = np.array([share if split in (0, *lacking) else 0 for split, share in enumerate(shares)])
        inner = draw_splits(np.where(given == 0, strata, -1), kept / kept.sum(), seed, groups)
        given = np.where(given == 0, inner, given).astype(np.int8)
    return given, [SPLITS[split] for split in lacking]
