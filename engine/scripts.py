"""The names of a task's scripts, by family, and the commands that usually follow a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from util.cli import quoted

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Family:
    """The scripts of a family.

    Attributes:
        name: Name of the family.
        unimodal, search, training, predict: File names of the scripts, with ``{}`` for the task; None: the family has
            no such script.
        search_flag: Flag of the training script that names a search run.
        test_flags: Flags with which the training script scores a finished training.
    """

    name: str
    unimodal: str | None
    search: str
    training: str
    predict: str | None
    search_flag: str
    test_flags: str


FAMILIES = (
    Family(
        name="bmnas",
        unimodal="main_unimodal_{}.py",
        search="main_darts_searchable_{}.py",
        training="main_darts_found_{}.py",
        predict=None,
        search_flag="--search_exp_dir",
        test_flags="--eval_exp_dir",
    ),
    Family(
        name="mmnas",
        unimodal=None,
        search="search_{}.py",
        training="train_{}.py",
        predict="predict_{}.py",
        search_flag="--ARCH_PATH",
        test_flags="--RUN test --CKPT_PATH",
    ),
)
STAGES = ("unimodal", "search", "training", "predict")


def stage_of(script: str) -> tuple[Family, str, str] | None:
    """Parse the path of a script into (family, stage, task); None for a script of another kind."""
    name = Path(script).name
    for family in FAMILIES:
        for stage in STAGES:
            before, _, after = (getattr(family, stage) or "/{}").partition("{}")
            if name.startswith(before) and name.endswith(after):
                return family, stage, name[len(before) : len(name) - len(after)]
    return None


def families_of(task: str, root: Path | None = None) -> list[Family]:
    """The families that have a search script for a task, in the folder ``root`` (by default the project's)."""
    return [family for family in FAMILIES if ((root or ROOT) / family.search.format(task)).is_file()]


def next_commands(script: str, folder: Path | str) -> list[tuple[str, str]]:
    """Commands that continue from a finished run: pairs (description, command).

    Args:
        script: Path of the script that made the run.
        folder: The run folder.
    """
    place = stage_of(script)
    if place is None:
        return []
    family, stage, task = place
    training = f"python {family.training.format(task)}"
    if stage == "search":
        run = " --RUN train" if family.name == "mmnas" else ""
        return [("train what it found", f"{training}{run} {family.search_flag} {quoted(folder)}")]
    if stage == "training":
        return [("score it again", f"{training} {family.test_flags} {quoted(folder)}")]
    return []
