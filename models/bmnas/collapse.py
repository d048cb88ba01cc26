"""Signs that a search has collapsed."""

from models.bmnas.operations import has_weights

# Below this probability of `skip` an edge is as good as cut; undecided edges stand at 0.5.
NONE_DOMINATES = 0.25
# Rounding of a sum of float32 probabilities.
SUMS_TO_ONE = 1e-5


def collapse(genotype, probabilities):
    """Warnings, in words, about a `FusionGenotype` and the probabilities that it was derived from.

    Args:
        genotype: The genotype.
        probabilities: As `FusionCell.probabilities` gives them.
    """
    found = []
    names = [name for step in genotype.steps for name in step.inner_steps]
    if not any(has_weights(name) for name in names):
        found.append(f"the cell has collapsed onto operations without weights ({', '.join(names)})")
    for title, rows in probabilities.items():
        skips = [row["skip"] for row in rows.values() if "skip" in row]
        # Edges that are drawn in pairs compete: their probabilities sum to one, and they cannot all be cut.
        compete = abs(sum(skips) - 1) < SUMS_TO_ONE
        if skips and max(skips) < NONE_DOMINATES and not compete:
            found.append(f"every edge of {title} clearly prefers `none`")
    return found
