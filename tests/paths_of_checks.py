"""Copies of tiny data sets, to be damaged."""

import json
import shutil


def copied(source, target):
    """``target``, a copy of the folder ``source``."""
    shutil.copytree(source, target)
    return target


def json_changed(path, **values):
    """Set entries of a JSON object in a file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
