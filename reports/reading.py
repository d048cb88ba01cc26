"""Reads run folders into records, and checks that their files are consistent.

A record describes a run and, if it must not be averaged with others, the reasons (`RunRecord.faults`). Facts that an
earlier version of the suite did not record are None and shown as "not recorded".
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.identity import commands_of, identity_of
from engine.report import restored_record, scores_of, with_present_names
from engine.scripts import stage_of
from reports.checking import damaged_entries, faults_of
from util.cli import UserError
from util.files import read_json
from util.hashes import short_hash

NOT_RECORDED = "not recorded"
# Folders inside run folders that contain no runs.
_PLAIN = {"architectures", "tensorboard", "features", "wandb", "__pycache__"}
# Splits that are used to select an epoch; the others are reported.
SELECTING = ("train", "dev", "val", "held_out")


@dataclasses.dataclass
class Epoch:
    """The part of a logged epoch that a report shows.

    Attributes:
        epoch: Its number, from 0.
        scores: Split -> {score: float}.
        entropy: Panel of choices -> mean entropy in nats; {} except in a search.
        stable_epochs: Epochs since the architecture last changed; None except in a search.
        genotype: The architecture's dict; None except in a search.
        best: Whether it was the best so far.
    """

    epoch: int
    scores: dict[str, dict[str, float]]
    entropy: dict[str, float]
    stable_epochs: int | None
    genotype: dict[str, Any] | None
    best: bool


@dataclasses.dataclass
class RunRecord:
    """A run folder.

    Attributes:
        folder: The run folder.
        result: Content of ``result.json``; {} if the run is not finished.
        arguments: Content of ``args.json``.
        identity: Content of ``run.json``; {} for a run of an earlier version.
        epochs: The logged epochs.
        faults: Why the run must not be averaged with others; empty if it may be.
        search: The search that its architecture comes from, if it was found.
    """

    folder: Path
    result: dict[str, Any]
    arguments: dict[str, Any]
    identity: dict[str, Any]
    epochs: list[Epoch]
    faults: list[str] = dataclasses.field(default_factory=list)
    search: RunRecord | None = None

    @cached_property
    def place(self) -> tuple[str, str] | None:
        """(stage, task) according to the name of the script that made the run; None if it is unknown."""
        known = stage_of(self.identity.get("script") or "")
        return known[1:] if known else None

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.result.get("task") or (self.place[1] if self.place else NOT_RECORDED)

    @property
    def kind(self) -> str:
        """``search``, ``training``, or the name of an evaluation: ``test``, ``val``."""
        word = self.folder.name.partition("-")[0]
        return self.result.get("kind") or {"eval": "training", "train": "training", "unimodal": "training"}.get(
            word, word
        )

    @property
    def seed(self) -> int | None:
        """The seed; of an evaluation, that of the training."""
        seed = self.training.get("seed", self.arguments.get("seed"))
        return seed if type(seed) is int else None

    @property
    def training(self) -> dict[str, Any]:
        """What an evaluation knows of its training, see `tasks.tested_training`; {} for other runs."""
        return self.result.get("training") or {}

    @cached_property
    def is_outdated(self) -> bool:
        """Whether the training that was evaluated has another result now; False if that is unknown."""
        tested = self.training.get("checksum")
        for folder in (self.folder.parent, Path(str(self.training.get("folder")))) if tested else ():
            try:
                if identity_of(folder).get("id") == self.training.get("id"):
                    return read_json(folder / "result.json").get("checksum") != tested
            except (UserError, AttributeError):
                continue
        return False

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Split -> {score: float}, of the selected epoch."""
        return self.result.get("metrics") or {}

    @property
    def scored_splits(self) -> list[str]:
        """The splits that are reported: those that do not select epochs, or if there are none, all but ``train``."""
        reported = [split for split in self.metrics if split not in SELECTING]
        return reported or [split for split in self.metrics if split != "train"]

    @property
    def strategy(self) -> str:
        """The strategy of a search, or of the search behind a training, with its options; ``-`` without a search."""
        search = self if self.kind == "search" else self.search
        if search is None:
            return NOT_RECORDED if self.source == "searched" else "-"
        args = search.arguments
        text = args.get("strategy") or "published"  # earlier versions had no such flag, and only this strategy
        if args.get("strategy_option"):
            text += f" ({', '.join(map(str, args['strategy_option']))})"
        text += f" + beta {args['beta_regularization']:g}" if args.get("beta_regularization") else ""
        # A search by trainings does not use --derive.
        derived = "trainings" not in search.result and args.get("derive") not in (None, "argmax")
        return text + (f", derived by {args['derive']}" if derived else "")

    @property
    def source(self) -> str:
        """Where the architecture comes from: ``searched``, ``random``, ``file NAME``, ``mcan``, ``none``."""
        origin = self.result.get("architecture") or {}
        name = str(origin.get("from") or "none")
        if self.kind == "search" or self.search is not None or origin.get("search_id"):
            return "searched"
        if name in ("none", "random", "mcan") or "fusion" in name:
            return name.removesuffix(" fusion") if name == "late fusion" else name
        place = Path(name)
        return f"file {place.name}" if place.suffix in (".json", ".pkl") else "searched"

    @property
    def search_went_on(self) -> bool:
        """Whether the search of a training continued beyond the epoch whose architecture the training uses."""
        if self.kind != "training" or self.search is None:
            return False
        own, found = (_structure(run.result.get("genotype")) for run in (self, self.search))
        begun = (self.identity.get("sessions") or [{}])[0].get("started") or ""
        later = [one for one in self.search.identity.get("sessions") or [] if one.get("command")]
        longer = any((one.get("started") or "") > begun for one in later) if begun else False
        return longer or bool(own and found and own != found)

    @property
    def what(self) -> str:
        """What was trained, in words."""
        result = self.result
        if self.kind == "search":
            return "search"
        if self.kind != "training":
            return f"{self.kind} of a training"
        modality = result.get("modality") or self.arguments.get("modality")
        if modality:
            return f"{modality} alone"
        if result.get("fusion") not in (None, "genotype"):
            return f"{result['fusion']} fusion"
        return {"searched": "searched architecture", "random": "random architecture"}.get(self.source, self.source)

    @property
    def commits(self) -> list[str]:
        """The commits that the run's sessions ran with, without repeats; [] if not recorded.

        Each is shortened. If there were uncommitted changes, ``-dirty`` and a hash of them follow.
        """
        sessions = (self.result.get("run") or self.identity).get("sessions") or [self.result]
        return list(dict.fromkeys(_commit(session) for session in sessions if session.get("git_commit")))

    @property
    def commands(self) -> list[str]:
        """The commands that made the run, see `engine.identity.commands_of`; [] if not recorded."""
        return commands_of(self.identity)

    @property
    def key(self) -> str:
        """Identity of the run: the recorded one, or for a run of an earlier version a hash of its content."""
        return (
            self.identity.get("id")
            or (self.result.get("run") or {}).get("id")
            or short_hash(
                [[epoch.epoch, str(epoch.scores)] for epoch in self.epochs], str(self.result), str(self.arguments)
            )
        )

    @property
    def trace(self) -> str | None:
        """A hash that two runs share only if all their epochs gave the same scores; None if all scores are integers."""
        values = [value for epoch in self.epochs for scores in epoch.scores.values() for value in scores.values()]
        telling = any(math.isfinite(value) and value != int(value) for value in values)
        return short_hash(self.task, self.kind, [str(epoch.scores) for epoch in self.epochs]) if telling else None

    @property
    def content(self) -> str:
        """A hash of the scores and the number of epochs; it differs if copies of a run were continued differently."""
        return short_hash(str(self.metrics), len(self.epochs))


def _structure(genotype):
    """A genotype without the names of its inputs, which a search and a training record differently."""
    return {name: value for name, value in genotype.items() if name != "inputs"} if genotype else None


def _commit(session):
    commit, _, dirty = session["git_commit"].partition("-")
    changes = f" {session['changes'][:6]}" if session.get("changes") else ""
    return commit[:10] + (f"-dirty{changes}" if dirty else "")


def find_run_folders(places: Iterable[Path | str]) -> list[Path]:
    """Run folders in and below folders, sorted, without repeats.

    Raises:
        UserError: A folder does not exist.
    """
    found: dict[str, Path] = {}
    for place in map(Path, places):
        if not place.is_dir():
            raise UserError(f"{place} is not a folder; name run folders, or folders that hold some")
        for folder, inner, files in os.walk(place):
            inner[:] = sorted(name for name in inner if name not in _PLAIN)
            if "args.json" in files:
                found.setdefault(os.path.realpath(folder), Path(folder))
    return sorted(found.values())


def read_runs(places: Iterable[Path | str]) -> list[RunRecord]:
    """Records of all runs in and below folders; trainings are linked to their searches, and copies are marked.

    Raises:
        UserError: A folder does not exist, or there is no run in any of them.
    """
    places = list(places)
    records = [read_run(folder) for folder in find_run_folders(places)]
    if not records:
        names = ", ".join(map(str, places))
        raise UserError(f"no run folder (with an args.json) in {names}; name a run folder, or a folder that holds some")
    _link_searches(records)
    _mark_copies(records)
    return records


def read_run(folder: Path | str) -> RunRecord:
    """Record of one run folder; damaged files are listed in its faults and raise no error."""
    folder, faults = Path(folder), []

    def read(function, path, kind):
        try:
            value = function(path)
        except UserError as error:
            faults.append(str(error))
            return kind()
        if not isinstance(value, kind):
            faults.append(f"{path} is damaged")
            return kind()
        return value

    arguments = read(read_json, folder / "args.json", dict)
    result = read(read_json, folder / "result.json", dict) if (folder / "result.json").exists() else {}
    identity = read(identity_of, folder, dict)
    # Probabilities make up most of a log; they are read again when they are drawn.
    lines = read(lambda path: _log_lines(path, without="probabilities"), folder / "log.jsonl", list)
    if damaged := damaged_entries(result, arguments):
        faults.append(f"{folder / 'result.json'} is damaged: {', '.join(damaged)}")
        result, arguments = {}, {}
    if not faults:
        faults = faults_of(folder, result, arguments, lines, identity)
    epochs = [_epoch(line) for line in lines]
    return RunRecord(folder, with_present_names(result), arguments, identity, epochs, faults)


def log_lines(folder: Path | str) -> list[dict[str, Any]]:
    """The complete records of a run's ``log.jsonl``, with probabilities; [] if there are none or they are damaged."""
    try:
        return _log_lines(Path(folder) / "log.jsonl")
    except UserError:
        return []


def _log_lines(path, without=""):
    if not path.exists():
        return []
    data = path.read_bytes()
    try:
        # An incomplete last line is still being written, or was being written when the run was killed.
        lines = [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
        for line in lines:
            line.pop(without, None)
        return [restored_record(line) for line in lines if isinstance(line["epoch"], int)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged") from None


def _epoch(line: Mapping[str, Any]) -> Epoch:
    entropy = line.get("entropy") or {}
    return Epoch(
        line["epoch"],
        scores_of(line),
        {name: value for name, value in entropy.items() if isinstance(value, float) and math.isfinite(value)},
        line.get("stable_epochs"),
        line.get("genotype"),
        bool(line.get("best")),
    )


def _link_searches(records: Sequence[RunRecord]) -> None:
    """Find the search of every training: by its identity, by its path, or as the folder that contains the training."""
    searches = [record for record in records if record.kind == "search"]
    # Among copies the first sound one wins; it comes last here, and so overwrites the others in `by_id`.
    last_sound = sorted(reversed(searches), key=lambda record: not record.faults)
    by_id = {record.identity.get("id"): record for record in last_sound}
    by_path: dict[str, RunRecord | None] = {os.path.realpath(record.folder): record for record in searches}
    for record in records:
        origin = record.result.get("architecture") or {}
        if record.kind == "search" or origin.get("from") in (None, "random", "mcan", "late fusion"):
            continue
        known = by_id.get(origin["search_id"]) if origin.get("search_id") else None
        place, inside = Path(str(origin["from"])), record.folder.parent
        around = [os.path.realpath(path) for path in (place, place.parent, inside, inside.parent)]
        record.search = known or next(filter(None, (_search_in(path, by_path) for path in around)), None)


def _search_in(folder: str, known: dict[str, RunRecord | None]) -> RunRecord | None:
    """The search in a folder, even if it is not among the runs of the report; ``known`` caches the answers."""
    if folder not in known:
        record = read_run(folder) if os.path.isfile(os.path.join(folder, "args.json")) else None
        known[folder] = record if record is not None and record.kind == "search" else None
    return known[folder]


def _mark_copies(records: Sequence[RunRecord]) -> None:
    """Mark run folders with the same identity: copies count once, or not at all if they were continued differently."""
    first: dict[str, RunRecord] = {}
    # Sound folders first, so that a faulty one never counts as the original of a sound one.
    for record in sorted((record for record in records if record.result), key=lambda record: bool(record.faults)):
        original = first.setdefault(record.key, record)
        if original is record:
            continue
        if record.faults or original.content == record.content:
            record.faults.append(f"copy of {original.folder}")
        else:
            text = "same identity as {}, but other scores: one of them was copied and continued"
            record.faults.append(text.format(original.folder))
            original.faults.append(text.format(record.folder))
    _mark_equal_logs(records)


def _mark_equal_logs(records: Sequence[RunRecord]) -> None:
    """Mark runs that have another seed than an earlier run, but exactly its scores in every epoch."""
    first: dict[str, RunRecord] = {}
    sound = [record for record in records if record.result and not record.faults and record.trace]
    for record in sorted(sound, key=lambda record: not record.identity):  # runs with a recorded identity come first
        original = first.setdefault(record.trace or "", record)
        if original.seed != record.seed:
            text = "the same scores in every epoch as {}, which has seed {}: a copy, or the seed had no effect"
            record.faults.append(text.format(original.folder, original.seed))
