"""Detects signs that a search has collapsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.bmnas.operations import has_weights

if TYPE_CHECKING:
    from models.genotypes import FusionGenotype

# An edge whose probability of `skip` is smaller counts as removed; that of an undecided edge is 0.5.
NONE_DOMINATES = 0.25
# Tolerance for the rounding of a sum of float32 probabilities.
SUMS_TO_ONE = 1e-5


def collapse_warnings(
    genotype: FusionGenotype, probabilities: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[str]:
    """Check a genotype, and the probabilities that it was derived from, for signs of collapse.

    Args:
        genotype: The genotype of an epoch.
        probabilities: As returned by `FusionCell.probabilities`.

    Returns:
        Warnings: the cell has only operations without weights, or all edges of some step prefer ``none``.
    """
    warnings = []
    names = [name for step in genotype.steps for name in step.inner_steps]
    if not any(has_weights(name) for name in names):
        warnings.append(f"the cell has collapsed onto operations without weights ({', '.join(names)})")
    for title, rows in probabilities.items():
        skips = [row["skip"] for row in rows.values() if "skip" in row]
        # Edges that are drawn in pairs compete: their probabilities sum to one, so they cannot all be removed.
        compete = abs(sum(skips) - 1) < SUMS_TO_ONE
        if skips and max(skips) < NONE_DOMINATES and not compete:
            warnings.append(f"every edge of {title} clearly prefers `none`")
    return warnings


# The former name, for recipes of your own.
collapse = collapse_warnings
