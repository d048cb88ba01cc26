"""Split samples into train, dev and test: as the user says, or drawn at random by class and group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.own.manifest import SPLITS
from util.cli import UserError

ALIASES = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev"}
ALIASES |= {"test": "test", "testing": "test", "eval": "test"}
# Maximum number of passes over all groups after the first assignment.
SWEEPS = 5


def split_number(name: object, place: str) -> int:
    """Number of the split that a user calls ``name``.

    Raises:
        UserError: the name is unknown; the message begins with ``place``, where it was found.
    """
    text = str(name).strip().lower()
    if text not in ALIASES:
        raise UserError(f"{place}: unknown split {str(name)!r}; expected one of {', '.join(ALIASES)}")
    return SPLITS.index(ALIASES[text])


def draw_splits(strata: np.ndarray, shares: Sequence[float], seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Draw splits so that each has its share of every stratum, and no group is in two splits.

    Without groups, every split gets at least one sample of a stratum if the stratum has enough; if it has fewer, its
    first sample goes to train.

    Args:
        strata: int64 (N,), -1 for samples that are left out.
        shares: Share of each split; they sum to 1, and a split with share 0 stays empty.
        seed: Seed of the draw.
        groups: int64 (N,), or None.

    Returns:
        int8 (N,): number of each sample's split, -1 for samples that are left out.

    Raises:
        UserError: there are fewer groups than splits.
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
    """Whole numbers that sum to ``count``, nearly in the ratio of ``shares``, each at least 1 if possible."""
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
    # Too few for every split: train comes first, then test, since dev has samples of other strata.
    portions[:] = 0
    for split in [wanted[0], *reversed(wanted[1:])][:count]:
        portions[split] += 1
    return portions


def _draw_groups(drawn, strata, shares, rng, groups):
    """Assign each group to the split where it lowers the misfit most, large groups first; then move single groups.

    The misfit is that of a chi-square test: the squared difference from the expected count, divided by the expected
    count, summed over strata and splits. The total size of a split has the same weight as all strata together.
    """
    used = strata >= 0
    names, inverse = np.unique(groups[used], return_inverse=True)
    splits = np.flatnonzero(shares > 0)
    if len(names) < len(splits):
        raise UserError(f"there are {len(names)} groups for {len(splits)} splits; name a --group with more values")
    held = np.zeros((len(names), int(strata.max()) + 2))
    np.add.at(held, (inverse, strata[used]), 1)
    held[:, -1] = held.sum(1)
    held = held[:, held.any(0)]
    weights = np.ones(held.shape[1])
    weights[-1] = len(weights) - 1
    expected = shares[splits, None] * held.sum(0)
    counts, chosen = np.zeros_like(expected), np.full(len(names), -1)
    order = rng.permutation(len(names))
    order = order[np.argsort(-held[order, -1], kind="stable")]
    for turn in range(1 + SWEEPS):
        moved = False
        for place, group in enumerate(order):
            before = chosen[group]
            if turn and (chosen == before).sum() == 1:
                continue  # a split must not lose its last group
            if turn:
                counts[before] -= held[group]
            misfit = (held[group] * (2 * (counts - expected) + held[group]) / expected) @ weights
            empty = np.flatnonzero(~counts.any(1))
            after = empty[misfit[empty].argmin()] if len(names) - place == len(empty) and not turn else misfit.argmin()
            counts[after] += held[group]
            chosen[group] = after
            moved |= after != before
        if not moved:
            break
    drawn[used] = splits[chosen[inverse]]
    return drawn


def complete_splits(
    given: np.ndarray, strata: np.ndarray, shares: Sequence[float], seed: int, groups: np.ndarray | None
) -> tuple[np.ndarray, list[str]]:
    """Draw dev or test from the samples of train, in the ratio of ``shares``, if the user's splits lack them.

    Args:
        given: int8 (N,), number of each sample's split, -1 for samples that are left out.
        strata, shares, seed, groups: As for `draw_splits`.

    Returns:
        (int8 (N,) of all splits, list of the names of those that were drawn).

    Raises:
        UserError: train has no samples.
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
