"""What is logged before a run has its folder: shown at once, and kept for the run's own log file."""

import logging
import os

logger = logging.getLogger("mdarts")
# Data are opened before a run begins, so that nothing is left of a run whose data are at fault.
_held = []


class _Keeper(logging.StreamHandler):
    """Prints like any handler, and keeps the records."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)
        if os.environ.get("RANK", "0") == "0":
            super().emit(record)


def hold():
    """Begin to keep, once; forgets what an earlier call has kept."""
    release()
    _held.append(_Keeper())
    logger.addHandler(_held[0])
    logger.setLevel(logging.INFO)


def release():
    """End keeping; returns the list of records."""
    if not _held:
        return []
    keeper = _held.pop()
    logger.removeHandler(keeper)
    return keeper.records
