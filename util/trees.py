"""Lists the files in a folder and its subfolders. Links are followed, except for loops."""

import os
from pathlib import Path

from util.cli import UserError


def list_files(folder: Path | str, depth: int | None = None) -> list[str]:
    """List the files in a folder and its subfolders.

    Links to files and folders are followed, except links to a folder that contains them, which would never end. Broken
    links count as files, so that reading them reports the error.

    Args:
        folder: The folder.
        depth: Number of levels of subfolders to search; None: all.

    Returns:
        Sorted names, relative to ``folder``, with ``/`` between their parts.

    Raises:
        UserError: a folder is missing or cannot be read.
    """
    files: list[str] = []
    _collect(os.fspath(folder), "", depth, frozenset(), files)
    return sorted(files)


def _collect(folder, place, depth, above, files):
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in above:
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror or error}") from None
    above |= {(status.st_dev, status.st_ino)}
    for entry in entries:
        if not _is_folder(entry):
            files.append(place + entry.name)
        elif depth is None or depth > 0:
            _collect(entry.path, f"{place}{entry.name}/", None if depth is None else depth - 1, above, files)


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
