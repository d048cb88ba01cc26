"""The log of a run, on the terminal and in its folder. It includes messages from before the folder exists."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from util.cli import UserError

logger = logging.getLogger("mdarts")


class _Keeper(logging.StreamHandler):
    """Prints records on rank 0, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if os.environ.get("RANK", "0") == "0":
            super().emit(record)


# Keeps what is logged while the data are opened. The run folder is only created afterwards, so that faulty data leave
# no folder behind.
_held: list[_Keeper] = []


class LogFile(logging.FileHandler):
    """The log file of a run. On a full disk, lines are lost, with one warning, and the run continues.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by `logging` if a record cannot be written."""
        if not self._warned:
            print(f"warning: cannot write {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)
        self._warned = True

    def close(self) -> None:
        """Close the file; buffered lines may be lost if the disk is full."""
        with contextlib.suppress(OSError):
            super().close()


def hold() -> None:
    """Start keeping records; those of an earlier call are dropped."""
    release()
    _held.append(_Keeper())
    logger.addHandler(_held[0])
    logger.setLevel(logging.INFO)


def show() -> None:
    """Print messages on the terminal, in a script that does not start a run."""
    if not any(isinstance(handler, logging.StreamHandler) for handler in logger.handlers):
        logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)


def release() -> list[logging.LogRecord]:
    """Stop keeping records, and return those kept so far."""
    if not _held:
        return []
    keeper = _held.pop()
    logger.removeHandler(keeper)
    return keeper.records


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Context manager that turns an `OSError` from writing a file into a `UserError`.

    Raises:
        UserError: the file cannot be written; the message names ``path``.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def open_log(path: Path | None) -> list[logging.Handler]:
    """Send log messages to the terminal and, including debug messages, to the file ``path``; None: to neither.

    Messages that `hold` has kept are also written to the file.

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
        handlers[-1].handle(record)  # only to the file, since the terminal has shown it already
    return handlers


def close_log(handlers: Iterable[logging.Handler]) -> None:
    """Undo `open_log`."""
    logger.propagate = True
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()
