"""Shared by imports of files of both original projects: reading them, listing unused parts, writing the run folder."""

from __future__ import annotations

import dataclasses
import hashlib
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from util.checkpoint import load_checkpoint
from util.cli import UserError
from util.files import write_json

if TYPE_CHECKING:
    import torch

LISTED = 5


@dataclasses.dataclass
class Original:
    """A file of an original project.

    Attributes:
        path: The file.
        state: Its state dict, without the prefix ``module.``.
        entries: Its other entries.
        unused: Parts that could not be used, as texts.
    """

    path: Path
    state: dict[str, torch.Tensor]
    entries: dict[str, Any]
    unused: list[str] = dataclasses.field(default_factory=list)

    def translate(self, function: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> dict[str, Any]:
        """The state dict under our names.

        Args:
            function: Renames the entries of a state dict. It is called with one entry at a time; entries for which it
                raises a `UserError` are listed as unused.
        """
        ours: dict[str, Any] = {}
        for key, value in self.state.items():
            try:
                ours |= function({key: value})
            except UserError:
                self.drop([key], "which no network of this task has")
        return ours

    def fit(self, state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """``state`` restricted to the keys of ``own``, a network's state dict, with missing batch counts from ``own``.

        Batch norm did not count batches before torch 0.4.1, and evaluation does not use the counts.
        """
        self.drop([key for key in state if key not in own], "which the network of this architecture lacks")
        counts = {key: value for key, value in own.items() if key.endswith(".num_batches_tracked")}
        return {**counts, **{key: value for key, value in state.items() if key in own}}

    def drop(self, names: list[str], why: str) -> None:
        """Record that tensors are not used."""
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            self.unused.append(f"{', '.join(names[:LISTED])}{more}, {why}")

    def facts(self) -> dict[str, Any]:
        """Facts about the import for ``result.json``."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        imported = {"file": str(self.path), "sha256": digest, "not_used": self.unused}
        return {"kind": "import", "imported_from": imported, "metrics": {}}


def read_original(path: Path) -> Original:
    """Read a checkpoint: a state dict, or a dict with one as ``state_dict``. Reading never runs code from the file.

    Raises:
        UserError: The file is neither.
    """
    content = load_checkpoint(path)
    entries: dict[str, Any] = {}
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        entries = {str(name): value for name, value in content.items() if name != "state_dict"}
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(hasattr(value, "dtype") for value in content.values()):
        raise UserError(
            f"{path} contains no state dict; expected a file of the original projects: names -> tensors, alone or as "
            "state_dict"
        )
    return Original(path, {str(key).removeprefix("module."): value for key, value in content.items()}, entries)


def new_folder(out: Path | str) -> Path:
    """The path of the run folder to fill; it is not created.

    Raises:
        UserError: It exists and is not empty, or it is a file.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder} exists already; name a new folder")
    return folder


def write_run(folder: Path, args: Namespace, result: Mapping[str, Any]) -> None:
    """Write the arguments and then the result of an import, which marks the folder as complete."""
    write_json(folder / "args.json", vars(args))
    write_json(folder / "result.json", {**result, "folder": str(folder), "arguments": vars(args)})
