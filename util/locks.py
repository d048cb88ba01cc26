"""Locks between processes, which also work on file systems without locks (some NFS, FUSE and cluster file systems)."""

import contextlib
import errno
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from util.cli import UserError

logger = logging.getLogger("mdarts")

# Errors of file systems that have no locks, or whose lock service is down.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
# A lease expires after this many seconds without renewal. Its holder renews it three times as often.
LEASE_SECONDS = 30.0


@contextlib.contextmanager
def locked(path: Path | str, *, busy: str | None = None, waiting: str | None = None) -> Iterator[None]:
    """Context manager that holds a lock. The lock is released when its process ends.

    On a file system without locks it is a lease: a file that its holder renews regularly, and that another process may
    take over once it is no longer renewed.

    Args:
        path: The lock file, in an existing folder. An empty file is left behind.
        busy: Error message if another process holds the lock; None: wait for it.
        waiting: Message to log before waiting.

    Raises:
        UserError: another process holds the lock, and ``busy`` is given.
        OSError: the lock file cannot be created.
    """
    lock = _native(path, busy, waiting) or _lease(path, busy, waiting)
    try:
        yield
    finally:
        lock.release()


def make_once(sign: Path | str, make: Callable[[], object]) -> None:
    """Call ``make()`` unless the file ``sign`` exists. If several processes do this at the same time, one calls it.

    Args:
        sign: A file that ``make`` writes last. The lock is in the parent of its folder, which is created.
        make: Function without arguments that creates the file and all that belongs to it.
    """
    sign = Path(sign)
    if sign.exists():
        return
    place = sign.parent.parent
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / f".{sign.parent.name}.lock", waiting=f"another process creates {sign.parent}; waiting for it"):
        if not sign.exists():
            make()


def _native(path, busy, waiting):
    """Acquire a lock of the operating system; None if this file cannot be locked."""
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
    # A separate name, since a machine that can lock this file may have left an empty lock file.
    lock = filelock.SoftFileLease(path.with_name(f"{path.name}.lease"), lease_duration=LEASE_SECONDS)
    return _taken(lock, busy, waiting, patience=1.2 * LEASE_SECONDS)


def _taken(lock, busy, waiting, patience=0):
    """Acquire and return ``lock``; with ``busy``, raise a `UserError` if it is not free within ``patience`` seconds."""
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
