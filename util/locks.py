"""One process at a time, also on file systems without locks (some NFS, FUSE and cluster file systems)."""

import contextlib
import errno
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock

from util.cli import UserError

logger = logging.getLogger("mdarts")

# What a file system answers that has no locks, or whose lock service is down.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
# Seconds after which a lease that nobody renews is free again. Its holder renews it three times as often.
LEASE_SECONDS = 30.0


@contextlib.contextmanager
def locked(path: Path | str, *, busy: str | None = None, waiting: str | None = None) -> Iterator[None]:
    """Hold a lock while the block runs; it ends with its process.

    A file system without locks gets a lease instead: a file that its holder renews, and that others take over when it
    is not renewed any more.

    Args:
        path: The lock file; its folder exists. An empty file stays behind.
        busy: What to tell the user if another process holds the lock; None waits for it.
        waiting: What to log before waiting.

    Raises:
        UserError: another process holds the lock, and ``busy`` is given.
        OSError: the lock file cannot be made.
    """
    lock = _native(path, busy, waiting) or _lease(path, busy, waiting)
    try:
        yield
    finally:
        lock.release()


def _native(path, busy, waiting):
    """A lock of the operating system, or None if there are none for this file."""
    if not (filelock.has_fcntl or sys.platform == "win32"):
        return None
    lock = filelock.FileLock(path, fallback_to_soft=False)
    try:
        return _taken(lock, busy, waiting)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None


def _lease(path, busy, waiting):
    path = Path(path)
    # Its own name: an empty lock file may be here from a system that can lock this file.
    lock = filelock.SoftFileLease(path.with_name(f"{path.name}.lease"), lease_duration=LEASE_SECONDS)
    return _taken(lock, busy, waiting, patience=1.2 * LEASE_SECONDS)


def _taken(lock, busy, waiting, patience=0):
    """``lock``, acquired; with ``busy`` a holder that does not end within ``patience`` seconds is a `UserError`."""
    try:
        lock.acquire(timeout=0)
        return lock
    except filelock.Timeout:
        if waiting:
            logger.info("%s", waiting)
    try:
        lock.acquire(timeout=-1 if busy is None else patience)
    except filelock.Timeout:
        raise UserError(busy) from None
    return lock
