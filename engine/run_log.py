"""The log of a run: on the terminal, and in a file that a full disk must not turn into a heap of tracebacks."""

import contextlib
import logging

from util import early_log
from util.cli import UserError

logger = logging.getLogger("mdarts")


@contextlib.contextmanager
def writing(path):
    """Turn what the system says of a file that cannot be written into one line.

    Raises:
        UserError: naming ``path``.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def open_log(path):
    """Let the suite's logger write to the terminal, and everything to the file ``path``; to neither if it is None.

    What was logged before goes into the file as well.

    Returns:
        The handlers, for `close_log`.

    Raises:
        UserError: the file cannot be written.
    """
    handlers = [logging.NullHandler()]
    if path is not None:
        with writing(path):
            handlers = [logging.StreamHandler(), early_log.LogFile(path)]
        handlers[0].setLevel(logging.INFO)
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    for record in early_log.release():
        handlers[-1].handle(record)  # the terminal has it already
    return handlers


def close_log(handlers):
    """Undo `open_log`."""
    logger.propagate = True
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()
