"""Plans the commands of a sweep: for every seed unimodal networks, searches, trainings of what they find, baselines."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.scripts import FAMILIES, families_of
from util.cli import UserError, quoted

# Task -> modality -> flag of the search that takes the trained unimodal network, or None if the search does not need
# one (it starts from ImageNet weights). `_modalities` covers own data, and derives this for tasks that are not listed.
UNIMODAL: dict[str, dict[str, str | None]] = {
    "mmimdb": {"image": None, "text": "--text_cp"},
    "ntu": {"rgb": "--rgb_cp", "skeleton": "--ske_cp"},
    "ego": {"rgb": "--rgb_cp", "depth": "--depth_cp"},
}
# Name of a baseline -> family -> flags of the training script. Unimodal networks have their own script.
BASELINES: dict[str, dict[str, tuple[str, ...]]] = {
    "late-fusion": {"bmnas": ("--fusion", "late")},
    "concat": {"bmnas": ("--fusion", "concat")},
    "random": {"bmnas": ("--genotype", "random"), "mmnas": ("--ARCH_PATH", "random")},
    "mcan": {"mmnas": ("--ARCH_PATH", "mcan")},
    "unimodal": {"bmnas": ()},
}
# Flags that are errors for a network without a cell.
_CELL = {"--steps", "--multiplier", "--node_steps", "--node_multiplier", "--step_ops"}


@dataclasses.dataclass(frozen=True)
class RunOf:
    """Placeholder in a command for the run folder that another command makes.

    Attributes:
        name: Name of that command.
        pattern: Its run folder as a glob pattern, for the shell.
    """

    name: str
    pattern: str


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a sweep.

    Attributes:
        name: Its name, unique in the sweep: ``seed-0/search-published``.
        script: File name of the script.
        words: Its flags; a `RunOf` is the placeholder of a folder that is not known yet.
        out_dir: Folder that contains only this command's run folder.
        makes: A file that its run folder must contain in addition to ``result.json``, or "".
        pattern: Glob pattern of its run folder.
    """

    name: str
    script: str
    words: tuple[str | RunOf, ...]
    out_dir: str
    pattern: str
    makes: str = ""

    def line(self) -> str:
        """The command as a line for a shell, which fills in the folders of earlier commands."""
        words = [_quoted(word) for word in self.words]
        return " ".join(["python", shlex.quote(self.script), *words])

    @property
    def run(self) -> RunOf:
        """The placeholder of its run folder in other commands."""
        return RunOf(self.name, self.pattern)


def _quoted(word):
    if not isinstance(word, RunOf):
        return shlex.quote(word)
    folder, _, name = word.pattern.rpartition("/")
    return f"{shlex.quote(folder)}/{name}"  # the shell expands the *


class Planner:
    """Plans the jobs of a sweep: lists of commands that run one after another.

    Args:
        task: Name of the task.
        out: Folder of the sweep.
        flags: Flags for the scripts; each script receives those that it has. ``--search:epochs 5`` goes to the search
            only; the other prefixes are ``unimodal`` and ``training``.

    Raises:
        UserError: There is no such task, or no script has one of the flags.
    """

    def __init__(self, task: str, out: Path | str, flags: Sequence[str] = ()) -> None:
        families = families_of(task)
        if not families:
            names = ", ".join(family.search.format(task) for family in FAMILIES)
            raise UserError(f"--task {task}: there is no script {names}; name a task that has search scripts")
        self.task, self.out, self.family = task, Path(out), families[0]
        stages = {"unimodal": self.family.unimodal, "search": self.family.search, "training": self.family.training}
        self.scripts = {stage: script.format(task) for stage, script in stages.items() if script}
        self.flags = {stage: _flags_for(stage, script, flags) for stage, script in self.scripts.items()}
        _check_all_used(flags, self.flags)

    def jobs(self, seeds: Sequence[int], strategies: Sequence[str], baselines: Sequence[str]) -> list[list[Command]]:
        """Plan the jobs. The commands of a seed form one job if they share unimodal networks; else each row is a job.

        Args:
            seeds: The seeds.
            strategies: Values of ``--strategy``; a value may be followed by further flags of the search.
            baselines: Keys of `BASELINES`.

        Raises:
            UserError: A baseline does not exist for the task.
        """
        for name in baselines:
            if self.family.name not in BASELINES[name]:
                raise UserError(f"--baselines {name}: {self.task} has no such baseline; drop it")
        jobs: list[list[Command]] = []
        for seed in seeds:
            first, weights = self._unimodal(seed, all_of_them="unimodal" in baselines)
            rows = [self._searched(seed, strategy, weights) for strategy in strategies]
            rows += [[self._baseline(seed, name, weights)] for name in baselines if name != "unimodal"]
            jobs += [[*first, *(command for row in rows for command in row)]] if first else rows
        return jobs

    def _unimodal(self, seed, all_of_them):
        """Commands of the unimodal networks, and the flags that pass them to other scripts."""
        commands, weights = [], []
        given = {words[0] for words in self.flags["search"]}
        for modality, flag in self._modalities().items():
            needed = flag is not None and flag not in given
            if not (needed or all_of_them) or "unimodal" not in self.scripts:
                continue
            words = ["--modality", modality]
            command = self._command(seed, "unimodal", f"unimodal-{modality}", words, makes="backbone.pth")
            commands.append(command)
            weights += [flag, command.run] if needed else []
        return commands, weights

    def _modalities(self) -> Mapping[str, str | None]:
        """An entry of `UNIMODAL`. For own data the modalities are read from the prepared folder, all without a flag:
        their encoders are trained with the fusion.
        """
        if self.task in UNIMODAL:
            return UNIMODAL[self.task]
        if self.task != "own":
            return _modalities_of(self.scripts)
        from datasets.own import read_manifest
        from tasks.own import DEMO

        given = {words[0]: words[-1] for words in self.flags["search"]}
        folder = given.get("--datadir", DEMO["datadir"])
        if "--demo" in given and not Path(folder).exists():
            make = f"python datasets/prepare_own.py --embedded htad --out {quoted(folder)}"
            raise UserError(f"-- --demo: {folder} does not exist yet; make it with `{make}`")
        if not {"--demo", "--datadir"} & set(given):
            raise UserError("--task own: name the prepared folder after --, as in -- --datadir data/films")
        return dict.fromkeys(read_manifest(folder).modalities)

    def _searched(self, seed, strategy, weights):
        """A search, and the training of the architecture that it finds."""
        # Imported here, since it loads torch, which --help should not wait for.
        from search.strategies import SUPERNET_FLAGS, TRAINING_FLAGS, black_box_class

        words = shlex.split(strategy)
        slug = re.sub(r"[^\w.+]+", "-", strategy).strip("-")
        # Flags after -- go to every search. Those for supernets are errors in a search by trainings, and vice versa.
        others = SUPERNET_FLAGS if black_box_class(words[0]) else TRAINING_FLAGS
        without = {f"--{name}" for name in others}
        search = self._command(seed, "search", f"search-{slug}", ["--strategy", *words, *weights], without=without)
        found = [*self._train(), self.family.search_flag, search.run]
        return [search, self._command(seed, "training", f"found-{slug}", found)]

    def _baseline(self, seed, name, weights):
        words = [*self._train(), *BASELINES[name][self.family.name], *weights]
        return self._command(seed, "training", name, words, without=_CELL if "--fusion" in words else ())

    def _train(self):
        return ["--RUN", "train"] if self.family.name == "mmnas" else []

    def _command(self, seed, stage, name, words, makes="", without=()):
        full = f"seed-{seed}/{name}"
        folder = folder_of(self.out, full)
        save = "sweep" if stage == "unimodal" else name.removeprefix("search-").removeprefix("found-")
        own = ["--seed", str(seed), "--out_dir", folder, "--save", save]
        shared = [word for words_of in self.flags[stage] if words_of[0] not in without for word in words_of]
        return Command(full, self.scripts[stage], (*own, *words, *shared), folder, f"{folder}/*-{save}-*", makes)


def _grouped(flags: Sequence[str]) -> list[list[str]]:
    """Flags with their values: ["--a", "1", "2", "--b"] -> [["--a", "1", "2"], ["--b"]]."""
    groups: list[list[str]] = []
    for word in flags:
        if word.startswith("--"):
            groups.append([word])
        elif not groups:
            raise UserError(f"{word!r} after -- is not a flag; pass flags of the scripts, such as -- --demo --epochs 3")
        else:
            groups[-1].append(word)
    return groups


def _scope(flag: str) -> tuple[str | None, str]:
    """("search", "--epochs") for ``--search:epochs``; (None, flag) for a flag that is meant for every script."""
    before, colon, after = flag.partition(":")
    return (before.removeprefix("--"), f"--{after}") if colon and "=" not in before else (None, flag)


def _flags_for(stage: str, script: str, flags: Sequence[str]) -> list[list[str]]:
    """The flags that are meant for a script and that it has; a flag with its prefix overrides the one without."""
    known = {option for action in _parser(script)._actions for option in action.option_strings}
    chosen: dict[str, list[str]] = {}
    for own in (False, True):
        for flag, *values in _grouped(flags):
            scope, name = _scope(flag)
            if (scope == stage if own else scope is None) and name.partition("=")[0] in known:
                chosen[name.partition("=")[0]] = [name, *values]
    for reserved in ("--seed", "--out_dir", "--save", "--resume"):
        if reserved in chosen:
            raise UserError(f"{reserved} after --: the sweep sets it for every run; drop it")
    return list(chosen.values())


def _parser(script):
    return importlib.import_module(Path(script).stem).get_args_parser()


def _modalities_of(scripts: Mapping[str, str]) -> dict[str, str | None]:
    """An entry of `UNIMODAL` for a task that is not listed; its flags are those ``--<modality>_cp`` that it has."""
    if "unimodal" not in scripts:
        return {}
    task = getattr(importlib.import_module(Path(scripts["search"]).stem), "TASK", None)
    options = {option for action in _parser(scripts["search"])._actions for option in action.option_strings}
    found: dict[str, str | None] = {}
    for name, modality in getattr(task, "modalities", {}).items():
        flag = f"--{name}_cp"
        found[name] = flag if flag in options and not modality.head_only else None
    return found


def _check_all_used(flags: Sequence[str], used: Mapping[str, list[list[str]]]) -> None:
    taken = {words[0] for words_of in used.values() for words in words_of}
    for flag, *_ in _grouped(flags):
        scope, name = _scope(flag)
        if name not in taken or (scope is not None and scope not in used):
            raise UserError(f"{flag}: no script of this sweep has such a flag; see their --help")


def plan_file(jobs: Sequence[Sequence[Command]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``sweep.json``: the settings and all commands, so that a job needs no other file.

    Folders are relative to that of the file, so that a sweep can be moved or copied.
    """
    stored = [[dataclasses.asdict(_placed(command, Path())) for command in job] for job in jobs]
    return {"settings": dict(settings), "jobs": stored}


def jobs_of(plan: Mapping[str, Any], out: Path | str) -> list[list[Command]]:
    """The jobs of a ``sweep.json``.

    Args:
        plan: Content of the file. Earlier versions stored folders with the path of the sweep, which may have changed.
        out: The folder that contains the file.

    Raises:
        UserError: The file is damaged.
    """
    try:
        return [[_placed(_command_of(dict(command)), Path(out)) for command in job] for job in plan["jobs"]]
    except (KeyError, TypeError, ValueError):
        raise UserError("sweep.json is damaged; remove it and start the sweep again, finished runs are kept") from None


def _placed(command: Command, out: Path) -> Command:
    """The command with its folders in the sweep ``out``, wherever they were before."""

    def moved(name, pattern):
        return f"{folder_of(out, name)}/{pattern.rpartition('/')[2]}"

    folder = folder_of(out, command.name)
    words = [
        RunOf(word.name, moved(word.name, word.pattern)) if isinstance(word, RunOf) else word for word in command.words
    ]
    for number, word in enumerate(words[:-1]):
        if word == "--out_dir":
            words[number + 1] = folder
    moves = {"words": tuple(words), "out_dir": folder, "pattern": moved(command.name, command.pattern)}
    return dataclasses.replace(command, **moves)


def folder_of(out: Path | str, name: str) -> str:
    """The folder in a sweep ``out`` that contains the run folder of the command ``name``."""
    return (Path(out) / "runs" / name).as_posix()


def _command_of(values):
    words = tuple(word if isinstance(word, str) else RunOf(**word) for word in values.pop("words"))
    runs = [text for word in words if isinstance(word, RunOf) for text in (word.name, word.pattern)]
    if not all(isinstance(text, str) for text in [*values.values(), *runs]):
        raise TypeError("a text was expected")
    return Command(words=words, **values)


def commands_text(jobs: Sequence[Sequence[Command]]) -> str:
    """Content of ``commands.txt``: one command per line, and a comment above each job.

    The commands of a job run one after another; jobs do not depend on each other.
    """
    parts = []
    for number, job in enumerate(jobs):
        parts += [f"# job {number}: {', '.join(command.name for command in job)}", *(c.line() for c in job)]
    return "\n".join(parts) + "\n"
