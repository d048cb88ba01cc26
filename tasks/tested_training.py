"""What the result of a val or test run records about the training whose network it scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.arguments import read_arguments
from engine.identity import identity_of
from util.cli import UserError
from util.files import read_json

# Entries of the training's result that hold for its network too.
_SHARED = ("architecture", "protocol", "trained_on", "backbones_started_from")


def facts_of_training(folder: Path | str) -> dict[str, Any]:
    """Entries of a result about the training in a run folder.

    Args:
        folder: The folder that contains the checkpoint. If it is not a run folder, little or nothing is known.

    Returns:
        Entries that the training's own result has too, where its architecture comes from for example, and ``training``:
        a dict of the folder, id, seed, ``demo`` and ``small_dataset`` of the training, and of the selected epoch, the
        number of epochs and the checksum of its result, which change if the training is made longer.
    """
    folder = Path(folder)
    result, identity = _read(read_json, folder / "result.json"), _read(identity_of, folder)
    arguments = _read(read_arguments, folder / "args.json")
    if not arguments and not result:
        return {}
    training = {name: result.get(name) for name in ("selected_epoch", "epochs", "checksum")}
    training |= {name: arguments.get(name) for name in ("seed", "demo", "small_dataset")}
    training |= {"folder": str(folder), "id": identity.get("id")}
    return {name: result[name] for name in _SHARED if name in result} | {"training": training}


def _read(function, path):
    """The dict that a file contains; {} if there is none, or it is damaged."""
    try:
        value = function(path) if Path(path).exists() else {}
    except UserError:
        return {}
    return value if isinstance(value, dict) else {}
