"""Short hashes that identify content."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Number of evenly spaced files whose content is read, and number of bytes read at each end of such a file.
PROBES = 48
PROBE_BYTES = 2**16


def short_hash(*facts: Any) -> str:
    """A hex string of 16 digits that changes with any of ``facts``: NumPy arrays or JSON-serialisable values."""
    digest = hashlib.blake2b(digest_size=8)
    for fact in facts:
        if hasattr(fact, "tobytes"):
            digest.update(f"{fact.dtype.str} {fact.shape}".encode())
            digest.update(fact.tobytes())
        else:
            digest.update(json.dumps(fact, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def file_hash(path: Path | str) -> str:
    """A hex string of 16 digits that changes with the content of a file."""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()


def files_hash(files: Iterable[tuple[str, Path | str]]) -> str:
    """A hex string of 16 digits that identifies a set of files, independent of their location and modification times.

    It depends on all names and sizes, but only on the content of a few files, since reading all would take hours.

    Args:
        files: Pairs (name, path). The name identifies the file wherever it is stored.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    files = sorted(files)
    probed = {round(i * (len(files) - 1) / max(1, PROBES - 1)) for i in range(PROBES)} if files else set()
    for number, (name, path) in enumerate(files):
        size = os.stat(path).st_size
        digest.update(b"%s %d\n" % (os.fsencode(name), size))
        if number in probed:
            digest.update(_ends(path, size))
    return digest.hexdigest()


def _ends(path: Path | str, size: int) -> bytes:
    with open(path, "rb") as file:
        first = file.read(PROBE_BYTES)
        file.seek(max(0, size - PROBE_BYTES))
        return first + file.read(PROBE_BYTES)
