"""What is logged before a run has its folder: shown at once, and kept for the run's own log file."""

import contextlib
import logging
import os
import sys

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


class LogFile(logging.FileHandler):
    """The log file of a run. A full disk costs lines of the log, said once, and not the run.

    Args:
        path: The file.
    """

    def __init__(self, path):
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._told = False

    def handleError(self, record):
        """Called by `logging` where a record cannot be written."""
        if not self._told:
            print(f"warning: cannot write {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)
        self._told = True

    def close(self):
        """Close; what is still in the buffer may be lost."""
        with contextlib.suppress(OSError):
            super().close()


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
