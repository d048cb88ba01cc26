"""Sends the scores of a run's epochs to TensorBoard, if it is installed, and to the tracking tool of ``--track``.

``log.jsonl`` remains the authoritative record. After a tool has failed once, it is no longer used: one warning is
logged, and the run continues.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.cli import UserError

logger = logging.getLogger("mdarts")

# Both packages have the functions init, log and finish, with the same arguments.
TOOLS = ("trackio", "wandb")
PROJECT = "mdarts"


def check_tool(name: str) -> None:
    """Check that the tool of ``--track`` is installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec(name) is None:
        raise UserError(f"--track {name}: the package {name} is not installed; run pip install {name}")


class Tracker:
    """Sends the scores of epochs to TensorBoard and to the tool of ``--track``.

    Args:
        folder: The run folder.
        tool: One of `TOOLS`, or None.
        identity: Identity of the run, see `engine.identity`.
        arguments: The run's arguments.
    """

    def __init__(self, folder: Path, tool: str | None, identity: str | None, arguments: Mapping[str, Any]) -> None:
        self.folder, self.tool, self.identity, self.arguments = folder, tool, identity, arguments
        self._board: Any = None
        self._module: Any = None

    def log(self, record: Mapping[str, Any]) -> None:
        """Send the scores and entropies of an epoch's record."""
        groups = {name: values for name, values in record.items() if isinstance(values, dict)}
        scores = {f"{g}/{n}": v for g, values in groups.items() for n, v in values.items() if isinstance(v, float)}
        self._to_board(scores, record["epoch"])
        if self.tool:
            try:
                self._to_tool(scores, record["epoch"])
            except Exception as error:  # no exception of another library may end a run
                self._give_up(error)

    def _to_board(self, scores, epoch):
        try:
            if self._board is None:
                try:
                    from torch.utils.tensorboard import SummaryWriter
                except ImportError:
                    self._board = False
                else:
                    self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=epoch)
            if self._board:
                for name, value in scores.items():
                    self._board.add_scalar(name, value, epoch)
                self._board.flush()
        except OSError as error:
            self._board = False
            logger.warning("TensorBoard scalars are no longer written: %s", error)

    def _to_tool(self, scores, epoch):
        if self._module is None:
            tool = str(self.tool)
            module = importlib.import_module(tool)
            # wandb identifies a run to continue by its id, trackio by its name.
            own = {"id": self.identity, "dir": str(self.folder)} if tool == "wandb" and self.identity else {}
            project = os.environ.get(f"{tool.upper()}_PROJECT", PROJECT)
            config = {name: value for name, value in self.arguments.items() if value is not None}
            module.init(project=project, name=self.folder.name, config=config, resume="allow", **own)
            self._module = module
        self._module.log(scores, step=epoch)

    def _give_up(self, error):
        logger.warning("scores are no longer sent to %s: %s", self.tool, " ".join(str(error).split())[:200])
        self.tool = None

    def close(self) -> None:
        """Close the files and connections."""
        if self._board:
            with contextlib.suppress(OSError):
                self._board.close()
        if self._module is not None:
            try:
                self._module.finish()
            except Exception as error:
                self._give_up(error)
