"""Short hashes that tell content from other content."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Of so many files of a tree the content is read, evenly spaced; of each so many bytes at both ends.
PROBES = 48
PROBE_BYTES = 2**16


def short_hash(*facts: Any) -> str:
    """A hex string of 16 digits that changes with any of ``facts``: numpy arrays, or values that JSON can hold."""
    digest = hashlib.blake2b(digest_size=8)
    for fact in facts:
        if hasattr(fact, "tobytes"):
            digest.update(f"{fact.dtype.str} {fact.shape}".encode())
            digest.update(fact.tobytes())
        else:
            digest.update(json.dumps(fact, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def files_hash(files: Iterable[tuple[str, Path | str]]) -> str:
    """A hex string of 16 digits that stays the same for a copy of the files in another place, whatever their times.

    It changes with their names and sizes, and with the content of a few of them: reading all would take hours.

    Args:
        files: List of (name, path): the name says which file it is, wherever the tree lies.

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
