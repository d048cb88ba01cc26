"""Multi-objective ranking: non-dominated sorting and crowding distance (Deb et al., NSGA-II, 2002).

Objectives are tuples of floats; larger is better. One tuple dominates another if it is nowhere smaller and somewhere
larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Values = tuple[float, ...]


def dominates(one: Values, other: Values) -> bool:
    """Whether ``one`` is nowhere worse than ``other``, and better somewhere."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def sorted_fronts(values: Sequence[Values]) -> list[list[int]]:
    """Indices of ``values`` by front: nothing dominates the first, only the first dominates the second, and so on."""
    left, fronts = list(range(len(values))), []
    while left:
        front = [i for i in left if not any(dominates(values[j], values[i]) for j in left)]
        fronts.append(front)
        left = [i for i in left if i not in front]
    return fronts


def crowding_distances(values: Sequence[Values]) -> list[float]:
    """Crowding distance of each tuple of one front.

    It is the sum over objectives of the distance between the neighbours on both sides, divided by the objective's
    range. Tuples that are first or last in an objective have an infinite distance.
    """
    distances = [0.0] * len(values)
    for objective in range(len(values[0]) if values else 0):
        order = sorted(range(len(values)), key=lambda i, k=objective: values[i][k])  # type: ignore[misc]
        low, high = values[order[0]][objective], values[order[-1]][objective]
        distances[order[0]] = distances[order[-1]] = math.inf
        if not (math.isfinite(low) and high > low):
            continue
        for before, own, after in zip(order, order[1:], order[2:], strict=False):
            distances[own] += (values[after][objective] - values[before][objective]) / (high - low)
    return distances


def ranks(values: Sequence[Values]) -> list[tuple[float, ...]]:
    """A sort key for each tuple (larger is better): its front, then its crowding distance within the front.

    With a single objective, the key is the tuple itself.
    """
    if not values or len(values[0]) == 1:
        return list(values)
    keys: list[tuple[float, ...]] = [()] * len(values)
    for number, front in enumerate(sorted_fronts(values)):
        distances = crowding_distances([values[i] for i in front])
        for i, distance in zip(front, distances, strict=True):
            keys[i] = (-float(number), distance)
    return keys
