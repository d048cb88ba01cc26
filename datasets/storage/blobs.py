"""Stores of named byte blobs: a flat file that only grows, and a journal that lets interrupted work resume.

A `Schema` describes one kind of store. `BlobWriter` appends blobs, and can resume after the process was killed.
`BlobReader` reads a finished store by memory map. Frames, skeletons and region features are stored this way.
"""

import contextlib
import json
import os
import time
import zlib
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from util.arrays import MappedFile, sums_of
from util.cli import UserError
from util.files import atomic_path, read_json, write_fault, write_json
from util.locks import locked
from util.progress import progress

META_FILE = "meta.json"
SYNC_SECONDS = 2.0
# After a power failure, lines of the journal may be on the disk without the bytes that they describe, so that this many
# bytes at the end of the data file are compared with their check sums.
CHECKED_TAIL = 64 << 20


class Schema(NamedTuple):
    """Description of one kind of store.

    data: Name of the flat file.
    journal: Name of the journal, which has one JSON object per line.
    facts: dict name -> type (str, int, float, or list of int) of the facts about a blob in its journal line.
    format, version: How ``meta.json`` identifies the store; None for a part of a store with another ``meta.json``.
    """

    data: str
    journal: str
    facts: dict
    format: str | None = None
    version: int | None = None


class BlobWriter:
    """Makes a store, or resumes an unfinished one; a context manager.

    A journal line is ``{"name", "offset", "bytes", "crc", <facts>, "line"}``, where ``line`` is the CRC-32 of the line
    without this key. (Lines that version 0.1.0 wrote do not have it, and are accepted.) A line is written after its
    blob. On opening, the journal is truncated at its first line that is incomplete, damaged, or does not fit the data
    file; then the data file is truncated after the last blob in the journal.

    Args:
        folder: Folder of the store.

    Attributes:
        schema: `Schema`, set by each derived class.
        entries: dict name -> the facts in its journal line, in the order of writing.

    Raises:
        UserError: the files cannot be written, or another run is writing them.
    """

    schema = None

    def __init__(self, folder):
        self.folder, self.entries = Path(folder), {}
        self._files = contextlib.ExitStack()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A separate file, because on Windows other processes cannot read a locked file.
            busy = f"another run is writing {self.folder}: wait for it or end it first"
            self._files.enter_context(locked(self.folder / f".{self.schema.journal}.lock", busy=busy))
            self._lines = self._files.enter_context((self.folder / self.schema.journal).open("a+b"))
            self._blobs = self._files.enter_context((self.folder / self.schema.data).open("a+b"))
            self._recover()
        except OSError as error:
            self._files.close()
            raise self._cannot_write(error) from error
        self._synced = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _cannot_write(self, error):
        return UserError(
            f"cannot write {self.folder / self.schema.data}: {write_fault(error, 'choose a folder you can write')};"
            " then run the same command again: it goes on where it stopped"
        )

    def _recover(self):
        size = os.fstat(self._blobs.fileno()).st_size
        known, line_ends, end, position = [], [], 0, 0
        self._lines.seek(0)
        for line in self._lines:
            entry = parse_line(line, self.schema.facts)
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
    def done(self):
        """Names of the stored blobs, a set-like view."""
        return self.entries.keys()

    @property
    def size(self):
        """Total number of bytes of all blobs."""
        if not self.entries:
            return 0
        last = next(reversed(self.entries.values()))
        return last["offset"] + last["bytes"]

    def append(self, name, blob, **facts):
        """Write the bytes ``blob`` under ``name``, and a journal line with ``facts``.

        Raises:
            ValueError: the store already has a blob ``name``.
            UserError: the disk is full, or another file system error occurs.
        """
        if name in self.entries:
            raise ValueError(f"{name} is already in {self.folder / self.schema.data}")
        if self.schema.format is not None:
            # The index of a growing store is out of date; a reader must not mistake the store for a finished one.
            (self.folder / META_FILE).unlink(missing_ok=True)
        entry = {"name": name, "offset": self.size, "bytes": len(blob), "crc": zlib.crc32(blob), **facts}
        try:
            self._blobs.write(blob)
            self._blobs.flush()
            self._lines.write(journal_line(entry))
            self._lines.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self.sync()
        except OSError as error:
            raise self._cannot_write(error) from error
        self.entries[name] = entry

    def sync(self):
        """Flush to the disk everything that was appended."""
        os.fsync(self._blobs.fileno())
        os.fsync(self._lines.fileno())
        self._synced = time.monotonic()

    def write_meta(self, meta, facts, index_files):
        """Write ``meta.json``, the last file of a store, from the dicts ``meta`` and ``facts`` and index checksums."""
        head = {"format": self.schema.format, "version": self.schema.version}
        sums = {"bytes": self.size, "sums": sums_of(self.folder, index_files)}
        write_json(self.folder / META_FILE, meta | head | facts | sums)

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


def journal_line(entry):
    """Encode an entry (dict of JSON values) as a journal line (bytes)."""
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b'%s,"line":%d}\n' % (text[:-1], zlib.crc32(text))


def parse_line(line, facts):
    """Decode a journal line (bytes) to a dict; None if it is incomplete, damaged, or lacks one of ``facts``."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    if entry.pop("line", None) is not None and journal_line(entry) != line:
        return None
    kinds = {"name": str, "offset": int, "bytes": int, "crc": int} | facts
    return entry if all(_is_of(entry.get(name), kind) for name, kind in kinds.items()) else None


def _is_of(value, kind):
    if kind is list:
        return isinstance(value, list) and all(_is_of(one, int) for one in value)
    return type(value) is kind and (kind is not int or value >= 0)


def save_array(path, array):
    """Write ``array`` atomically as a ``.npy`` file."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


class BlobReader:
    """Base class of readers of finished stores. Cheap to pickle: every process opens its own memory maps.

    Args:
        folder: Folder of the store.
        remedy: Command that makes the store, for messages.

    Attributes:
        schema: `Schema`, set by each derived class.
        folder, remedy: As given.
        again: What to do about a damaged store, the end of messages.
    """

    schema = None
    # Minimum size of the data file in bytes.
    _bytes = 0

    def __init__(self, folder, remedy):
        self.folder, self.remedy = Path(folder), remedy
        self.again = f"delete {folder} and make it again with `{remedy}`"

    def _read_meta(self):
        """Read ``meta.json``, a dict.

        Raises:
            UserError: the file is missing, or identifies another kind of store.
        """
        path, kind = self.folder / META_FILE, (self.schema.format, self.schema.version)
        if not path.is_file():
            raise UserError(f"{path} is missing: the store is not finished; finish it with `{self.remedy}`")
        meta = read_json(path)
        if not isinstance(meta, dict) or (meta.get("format"), meta.get("version")) != kind:
            raise UserError(f"{path} is not a {kind[0]} of version {kind[1]}; make it with `{self.remedy}`")
        return meta

    def _damaged(self, name, reason):
        """Make a `UserError` about the file ``name`` in the folder; ``reason`` is a predicate ("is missing")."""
        return UserError(f"{self.folder / name} {reason}; {self.again}")

    @cached_property
    def _file(self):
        file = MappedFile(self.folder / self.schema.data, self.again, np.uint8)
        if file.array.size < self._bytes:
            raise self._damaged(self.schema.data, f"has fewer than {self._bytes:,} bytes")
        return file

    @property
    def _data(self):
        """The flat file as a read-only array uint8 (bytes,)."""
        return self._file.array

    def _check_blobs(self, names, begins, ends, crcs, *, what, unit):
        """Compare blobs with their CRC-32; raises a `UserError` that names the first damaged one."""
        blobs = zip(names, begins, ends, crcs, strict=True)
        for name, begin, end, crc in progress(blobs, f"checking {what}s", total=len(names), unit=unit):
            if zlib.crc32(self._data[begin:end]) != crc:
                raise self._damaged(self.schema.data, f"is damaged at {what} {name}")

    def __getstate__(self):
        return state_without_caches(self)


def state_without_caches(value):
    """dict of an object's attributes to pickle: all except cached properties, which may contain whole files."""
    kind, attributes = type(value), vars(value).items()
    return {name: one for name, one in attributes if not isinstance(getattr(kind, name, None), cached_property)}
