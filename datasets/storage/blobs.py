"""An append-only file of byte blobs with a journal, so that work that was killed goes on where it stopped."""

import contextlib
import json
import os
import time
import zlib
from pathlib import Path

from util.cli import UserError
from util.files import write_fault
from util.locks import locked

SYNC_SECONDS = 2.0
# After a power cut lines of the journal may have reached the disk before the bytes they tell of.
CHECKED_TAIL = 64 << 20


class BlobJournal:
    """Named blobs, one after the other in a flat file, each known to a journal once its bytes are written.

    A journal line is ``{"name", "offset", "bytes", "crc", ...}``. On opening, everything that the journal
    does not know is cut off the data file, and a torn last line off the journal.

    Args:
        data: Path of the flat file.
        journal: Path of the journal (one JSON object per line).

    Attributes:
        entries: dict name -> the entry of its line, in the order of writing.

    Raises:
        UserError: the files cannot be written, or another run is writing them.
    """

    def __init__(self, data, journal):
        self.data, self.journal = Path(data), Path(journal)
        self.entries = {}
        self._files = contextlib.ExitStack()
        try:
            self.data.parent.mkdir(parents=True, exist_ok=True)
            # A file of its own, because Windows lets nobody else read a file that is locked.
            busy = f"another run is writing {self.data.parent}: wait for it or end it first"
            lock = self.journal.with_name(f".{self.journal.name}.lock")
            self._files.enter_context(locked(lock, busy=busy))
            self._lines = self._files.enter_context(self.journal.open("a+b"))
            self._blobs = self._files.enter_context(self.data.open("a+b"))
            self._recover()
        except OSError as error:
            self._files.close()
            raise self._cannot_write(error) from error
        self._synced = time.monotonic()

    def _cannot_write(self, error):
        remedy = "choose a folder you can write"
        return UserError(
            f"cannot write {self.data}: {write_fault(error, remedy)}; then run the same command again: it goes on"
            " where it stopped"
        )

    def _recover(self):
        size = os.fstat(self._blobs.fileno()).st_size
        known, line_ends, end = [], [], 0
        self._lines.seek(0)
        position = 0
        for line in self._lines:
            entry = _parse(line)
            if entry is None or entry["offset"] != end or end + entry["bytes"] > size:
                break
            position += len(line)
            end += entry["bytes"]
            known.append(entry)
            line_ends.append(position)
        while known and not self._tail_is_good(known):
            known.pop()
            line_ends.pop()
        self._lines.truncate(line_ends[-1] if line_ends else 0)
        self._blobs.truncate(known[-1]["offset"] + known[-1]["bytes"] if known else 0)
        self.entries = {entry["name"]: entry for entry in known}

    def _tail_is_good(self, known):
        checked = 0
        for entry in reversed(known):
            self._blobs.seek(entry["offset"])
            if zlib.crc32(self._blobs.read(entry["bytes"])) != entry["crc"]:
                return False
            checked += entry["bytes"]
            if checked > CHECKED_TAIL:
                break
        return True

    @property
    def size(self):
        """Bytes of all blobs."""
        if not self.entries:
            return 0
        last = next(reversed(self.entries.values()))
        return last["offset"] + last["bytes"]

    def append(self, name, blob, **facts):
        """Write the bytes ``blob`` under ``name`` and note them, with ``facts`` (JSON values), in the journal.

        Raises:
            ValueError: ``name`` is there already.
            UserError: the disk is full or the like.
        """
        if name in self.entries:
            raise ValueError(f"{name} is in {self.data} already")
        entry = {"name": name, "offset": self.size, "bytes": len(blob), "crc": zlib.crc32(blob), **facts}
        try:
            self._blobs.write(blob)
            self._blobs.flush()
            self._lines.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            self._lines.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.sync()
        except OSError as error:
            raise self._cannot_write(error) from error
        self.entries[name] = entry

    def sync(self):
        """Make the disk hold what was appended."""
        os.fsync(self._blobs.fileno())
        os.fsync(self._lines.fileno())
        self._synced = time.monotonic()

    def close(self):
        """Sync and close; a second call does nothing."""
        if not self._lines.closed:
            try:
                try:
                    self.sync()
                finally:
                    self._files.close()  # writes what is left in buffers
            except OSError as error:
                raise self._cannot_write(error) from error


def _parse(line):
    """The entry of a journal line, or None for a torn or foreign one."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), int) for key in ("offset", "bytes", "crc")):
        return None
    return entry if isinstance(entry.get("name"), str) else None
