"""Progress bars with rate and remaining time, shown on terminals only."""

import sys
from collections.abc import Iterable
from typing import Any


def progress(
    iterable: Iterable[Any],
    description: str | None,
    *,
    total: int | None = None,
    unit: str = "batch",
    disable: bool = False,
) -> Any:
    """Wrap ``iterable`` in a tqdm bar on stderr, which is only shown if stderr is a terminal.

    Args:
        iterable: The items.
        description: Text before the bar.
        total: Number of items, if ``iterable`` has no length.
        unit: Name of one item, for the rate.
        disable: Show nothing (ranks other than 0).
    """
    # Imported here, so that `--help` does not have to wait for it.
    from tqdm import tqdm

    return tqdm(
        iterable,
        desc=description,
        total=total,
        unit=unit,
        leave=False,
        dynamic_ncols=True,
        disable=disable or not sys.stderr.isatty(),
    )
