"""The log of a run: on the terminal and in its folder, also what is said before the folder exists."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from util.cli import UserError

logger = logging.getLogger("mdarts")


class _Keeper(logging.StreamHandler):
    """Prints like any handler, and keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if os.environ.get("RANK", "0") == "0":
            super().emit(record)


# What was logged while the data were opened. The run folder is made after that: data with a fault leave no folder.
_held: list[_Keeper] = []


class LogFile(logging.FileHandler):
    """The log file of a run. A full disk costs lines of the log, said once, and not the run.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by `logging` where a record cannot be written."""
        if not self._told:
            print(f"warning: cannot write {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)
        self._told = True

    def close(self) -> None:
        """Close; what is still in the buffer may be lost."""
        with contextlib.suppress(OSError):
            super().close()


def hold() -> None:
    """Begin to keep, once; forgets what an earlier call has kept."""
    release()
    _held.append(_Keeper())
    logger.addHandler(_held[0])
    logger.setLevel(logging.INFO)


def release() -> list[logging.LogRecord]:
    """End keeping; returns the list of records."""
    if not _held:
        return []
    keeper = _held.pop()
    logger.removeHandler(keeper)
    return keeper.records


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into one line.

    Raises:
        UserError: naming ``path``.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def open_log(path: Path | None) -> list[logging.Handler]:
    """Let the suite's logger write to the terminal, and everything to the file ``path``; to neither if it is None.

    What was logged before goes into the file as well.

    Returns:
        The handlers, for `close_log`.

    Raises:
        UserError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if path is not None:
        with writing(path):
            handlers = [logging.StreamHandler(), LogFile(path)]
        handlers[0].setLevel(logging.INFO)
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    for record in release():
        handlers[-1].handle(record)  # the terminal has it already
    return handlers


def close_log(handlers: Iterable[logging.Handler]) -> None:
    """Undo `open_log`."""
    logger.propagate = True
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()
