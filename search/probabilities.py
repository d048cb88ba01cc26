"""The probabilities of a search: their entropy, and their arrangement for plots. Does not import torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Maximum number of lines in one panel of a plot; more could not be distinguished.
MAX_LINES = 16


def mean_entropy(rows: Mapping[str, Mapping[str, float]]) -> float:
    """Mean entropy of the rows' distributions in nats (log 2 for two equally likely operations).

    Args:
        rows: Name of a row -> {operation: probability}.
    """
    entropies = [-sum(p * math.log(p) for p in row.values() if p > 0) for row in rows.values()]
    return sum(entropies) / len(entropies)


def probability_panels(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arrange the probabilities of logged epochs for `util.plots.plot_probabilities`.

    A title with more than `MAX_LINES` lines is split into one panel per row.

    Args:
        records: Records of the epochs, each with ``epoch`` and ``probabilities``, title -> row -> operation -> value.

    Returns:
        Title of a panel -> ``{"epochs": [...], "series": {label: [probability of each epoch]}}``.
    """
    panels: dict[str, dict[str, Any]] = {}
    epochs = [record["epoch"] for record in records]

    def add(panel, label, title, row, name):
        series = panels.setdefault(panel, {"epochs": epochs, "series": {}})["series"]
        series[label] = [record["probabilities"][title][row][name] for record in records]

    for title, rows in records[-1]["probabilities"].items() if records else ():
        crowded = sum(map(len, rows.values())) > MAX_LINES
        for row, operations in rows.items():
            if "skip" in operations:
                add(f"{title} (skip)", row, title, row, "skip")
                continue
            for name in operations:
                label = f"{row} {name}" if len(rows) > 1 else name
                add(f"{title}, {row}" if crowded else title, name if crowded else label, title, row, name)
    return panels
