"""A run: its folder, log, random state and checkpoints. It can be interrupted at any time and resumed."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from engine import identity
from engine.report import checksum, environment, line_of, peak_memory_mb, restored_record, scores_of
from engine.resuming import check_inputs, read_state
from engine.run_log import close_log, open_log, writing
from engine.tracking import Tracker, check_tool
from util.checkpoint import load_checkpoint, save_checkpoint
from util.cli import UserError, is_out_of_memory, quoted
from util.distributed import barrier, from_rank_0, gather, init_distributed, leave, rank, world_size
from util.files import decode_text, json_text, read_json, remove_folder, write_json, write_text
from util.plots import plot_curves
from util.random_state import random_state, seed_everything, set_random_state

logger = logging.getLogger("mdarts")

# Files that every run folder has from the start, and the suffix of pictures, which can be drawn again.
_BEGINNING = ("args.json", "log.txt", identity.FILE, identity.README)
_PICTURE = ".svg"


class Run:
    """The folder that a run writes to, and the state that it needs to be resumed. `start_run` creates it.

    Args:
        folder, args, device, processes: See the attributes.
        number: Which of the processes this is, from 0.

    Attributes:
        folder: `Path` of the run folder.
        args: The arguments.
        device: `torch.device` of this process.
        processes: Number of processes.
        is_main: Whether this process writes files (rank 0).
        epoch: The next epoch to run, from 0.
        stopped: Whether the run ended before its last epoch.
        longer: Whether it had ended early and now continues, because more epochs were requested.
        seconds: Wall time so far, without work that an interruption lost.
        unit: The flag that sets how long the run lasts, and how many epochs one unit of it has.
        identity: Content of ``run.json``, see `engine.identity`; empty on ranks other than 0.
    """

    def __init__(
        self, folder: Path | str, args: Namespace, device: torch.device, number: int = 0, processes: int = 1
    ) -> None:
        self.folder, self.args, self.device = Path(folder), args, device
        self._rank, self.processes = number, processes
        self.is_main = self._rank == 0
        self.epoch, self.stopped, self.longer, self.seconds = 0, False, False, 0.0
        self._tracked: dict[str, Any] = {}
        self._arguments = ""
        self.unit = ("--epochs", 1)
        self._inputs: dict[str, str] = {}
        self._flags: dict[str, str] = {}
        self._faults: list[str] = []
        self.identity: dict[str, Any] = {}
        self._has_best = False
        self._tracker: Tracker | None = None  # opened for the first scores
        self._warned: set[str] = set()
        self._scored = False
        self._clock = time.perf_counter()

    def depends_on(self, name: str, identity: str, flag: str) -> None:
        """Record an input of the run. A resumed run must read the same content, wherever it is stored then.

        Call it before `track`.

        Args:
            name: Description of the input, for messages.
            identity: A short string that changes only with the content.
            flag: The flag that sets its path.
        """
        self._inputs[name], self._flags[name] = identity, flag

    def track(self, **objects: Any) -> None:
        """Register the objects that checkpoints contain, and restore them if the run is resumed.

        Call it when everything is built. If the folder has a ``last.pth``, the objects and the random state are
        restored from it.

        Args:
            objects: Name -> object with ``state_dict`` and ``load_state_dict``.

        Raises:
            UserError: the checkpoint does not fit, belongs to other inputs, has more epochs than requested, or is
                missing from a finished run.
        """
        self._tracked, self._arguments = objects, json_text(vars(self.args))
        path = self.folder / "last.pth"
        if not path.exists():
            self._refuse_finished(path)
            if self.is_main:
                self._go_on()
                self._drop_log_after(0)
            # Ranks start from equal weights, but must draw different dropout masks.
            torch.manual_seed(self.args.seed + 1_000_003 * self._rank)
            return
        state = read_state(path)
        self._check(path, state)
        for name, value in objects.items():
            with self._restoring(path):
                value.load_state_dict(state["objects"][name])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.longer = state["stopped"] and self._epochs() > state.get("epochs", self._earlier_epochs())
        self.stopped = state["stopped"] and not self.longer
        self._has_best = state.get("has_best", (self.folder / "best.pth").exists())
        if self._has_best:  # it is read after the last epoch, so damage is reported before training goes on
            load_checkpoint(self.folder / "best.pth")
        with self._restoring(path):
            set_random_state(state["random"][self._rank])
        barrier()  # every rank has read the old arguments
        if self.is_main:
            self._drop_log_after(self.epoch)
            self._go_on()
        logger.info("resumed %s at epoch %d", self.folder, self.epoch)

    def _refuse_finished(self, path):
        # Starting again would replace the log and the result of a finished run.
        if self.args.resume and from_rank_0((self.folder / "result.json").exists()):
            raise UserError(f"{path} is missing, but the run is finished; restore the file, or start a new run")

    def _check(self, path, state):
        """Raise a `UserError` if this run cannot continue from a checkpoint."""
        if set(state["objects"]) != set(self._tracked):
            raise UserError(f"{path} was written by another script: it holds {', '.join(sorted(state['objects']))}")
        if (count := len(state["random"])) != self.processes:
            again = identity.resume_command(self.folder, identity.identity_of(self.folder), count)
            raise UserError(f"{path} was written by {count} processes; resume with as many: `{again}`")
        flag, size = self.unit
        done = math.ceil(state["epoch"] / size)
        if self._epochs() < state["epoch"]:
            what = "epochs" if size == 1 else f"epochs, {size} for each training"
            raise UserError(
                f"{flag} {self._epochs() // size}: {self.folder} has already done {state['epoch']} {what}; pass "
                f"{flag} {done} to end it there, or more to continue it"
            )
        check_inputs(self.folder, state.get("inputs"), self._inputs, self._flags)
        if state["device"] != self.device.type:
            logger.warning("%s ran on %s; the result will differ on %s", self.folder, state["device"], self.device.type)

    def _epochs(self):
        return getattr(self.args, "epochs", math.inf)

    def _earlier_epochs(self):
        """Number of epochs that was requested when the run was last started or resumed."""
        return read_json(self.folder / "args.json").get("epochs", math.inf)

    def _keep_arguments(self):
        """Save the changed arguments of a resumed run, once all checks have passed."""
        if self.args.resume:
            write_json(self.folder / "args.json", vars(self.args))

    def _go_on(self):
        """Note the session and the arguments of a resumed run; a resumption that is refused leaves no trace."""
        if self.args.resume:
            self.identity = identity.begin_session(self.folder, self.args, self.device)
        self._keep_arguments()

    @contextlib.contextmanager
    def _restoring(self, path):
        """Turn errors that occur when an object is restored from a damaged or foreign file into a `UserError`."""
        try:
            yield
        except (LookupError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{path} does not fit {self.folder / 'args.json'}: {reason}; restore both files") from None

    def finish_epoch(self, record: dict[str, Any], best: dict[str, Any] | None = None) -> None:
        """Log an epoch, save ``best.pth`` if ``best`` is a dict, and then save ``last.pth``.

        The epoch is complete once ``last.pth`` is written. A run that is killed earlier repeats it, with the same
        result.
        """
        self.epoch = record["epoch"] + 1
        self._count_time()
        random_states = gather(random_state())
        if self.is_main:
            if best is not None:
                save_checkpoint(self.folder / "best.pth", best)
                self._has_best = True
                if best.get("genotype"):
                    write_json(self.folder / "genotype.json", best["genotype"])
            with writing(self.folder / "log.jsonl"), open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json_text(record) + "\n")
            if self._tracker is None:
                tool = getattr(self.args, "track", None)
                self._tracker = Tracker(self.folder, tool, self.identity.get("id"), vars(self.args))
            self._tracker.log(record)
            save_checkpoint(
                self.folder / "last.pth",
                {
                    "epoch": self.epoch,
                    "stopped": self.stopped,
                    "epochs": self._epochs(),
                    "has_best": self._has_best,
                    "inputs": self._inputs,
                    "arguments": self._arguments,
                    "device": self.device.type,
                    "seconds": self.seconds,
                    "objects": {name: value.state_dict() for name, value in self._tracked.items()},
                    "random": random_states,
                },
            )
        logger.info("%s", line_of(record))
        for warning in record.get("warnings", ()):
            if warning not in self._warned:  # log it only once; the record of every epoch contains it
                logger.warning("epoch %d: %s", record["epoch"], warning)
        self._warned.update(record.get("warnings", ()))

    def records(self) -> list[dict[str, Any]]:
        """Read the records of the epochs so far; raises a `UserError` if the log is damaged."""
        path = self.folder / "log.jsonl"
        data = path.read_bytes() if path.exists() else b""
        try:
            # Ignore an incomplete last line, which was being written when the run was killed.
            lines = decode_text(data[: data.rfind(b"\n") + 1]).splitlines()
            records = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}); remove the line or restore the file") from None
        for number, record in enumerate(records, start=1):
            if not isinstance(record, dict) or type(record.get("epoch")) is not int:
                raise UserError(f"{path} line {number} is not an epoch record; remove the line or restore the file")
        return [restored_record(record) for record in records]

    def record_of(self, epoch: int) -> dict[str, Any]:
        """Read the logged record of one epoch; raises a `UserError` if there is none."""
        for record in self.records():
            if record["epoch"] == epoch:
                return record
        raise UserError(f"{self.folder / 'log.jsonl'} lacks epoch {epoch}; restore the file")

    def write(self, name: str, text: str) -> None:
        """Write a text file in the run folder, atomically, on rank 0."""
        if self.is_main:
            write_text(self.folder / name, text)

    def save(self, name: str, state: Any) -> None:
        """Save tensors and plain data as ``name`` in the run folder, atomically, on rank 0."""
        if self.is_main:
            save_checkpoint(self.folder / name, state)

    def load_best(self) -> dict[str, Any]:
        """Read ``best.pth``, on every rank."""
        barrier()
        return load_checkpoint(self.folder / "best.pth")

    def plot(self) -> None:
        """Plot all scores of the logged epochs as ``curves.svg``, with a panel per score and a line per split."""
        records = self.records() if self.is_main else []
        panels: dict[str, dict[str, Any]] = {}
        for row, record in enumerate(records):
            for split, values in scores_of(record).items():
                for name, value in values.items():
                    panel = panels.setdefault(name, {"epochs": [r["epoch"] for r in records], "series": {}})
                    # An epoch may lack some passes.
                    panel["series"].setdefault(split, [math.nan] * len(records))[row] = value
        if panels:
            plot_curves(panels, self.folder / "curves.svg")

    def log_scores(self, split: str, scores: Mapping[str, float]) -> None:
        """Log the final scores of a split."""
        self._scored = True
        logger.info("%s: %s", split, ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))

    def write_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write ``result.json``: ``result`` plus time, memory, versions, commit and arguments. Returns all of it."""
        self._count_time()
        result = {
            **result,
            "folder": str(self.folder),
            "seconds": round(self.seconds, 1),
            "peak_memory_mb": max(gather(peak_memory_mb(self.device)), key=lambda peak: peak or 0.0),
            **environment(self.device),
            "run": self.identity,
            "arguments": vars(self.args),
        }
        result["checksum"] = checksum(result)
        if self.is_main:
            self._keep_arguments()
            write_json(self.folder / "result.json", result)
            write_text(self.folder / identity.README, identity.readme_text(self.folder, self.identity, result))
        self.plot()
        if self.is_main:
            logger.info("result: %s", self.folder / "result.json")
        barrier()
        return result

    def _count_time(self):
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def _drop_log_after(self, epoch):
        kept = [json_text(record) for record in self.records() if record["epoch"] < epoch]
        write_text(self.folder / "log.jsonl", "".join(line + "\n" for line in kept))

    def fail_later(self, message: str) -> None:
        """Record an error that does not affect the rest of the run. It is raised at the end, when all is written."""
        self._faults.append(message)

    def raise_faults(self) -> None:
        """Raise the errors recorded by `fail_later`, if there are any, as one `UserError`."""
        if self._faults:
            raise UserError("; ".join(self._faults))

    def drop_if_empty(self) -> None:
        """Remove the folder of a run that failed before it produced anything, and its parent if that is empty."""
        if not self.is_main or self.args.resume or self._scored:
            return
        with contextlib.suppress(OSError):
            if all(path.name in _BEGINNING or path.suffix == _PICTURE for path in self.folder.iterdir()):
                remove_folder(self.folder)

    def close(self) -> None:
        """Close the tracking tools."""
        if self._tracker is not None:
            self._tracker.close()


@contextlib.contextmanager
def start_run(args: Namespace, kind: str, parent: Path | str) -> Iterator[Run]:
    """Context manager for a run: seed, choose the device, create or reopen the run folder, and open its log.

    Args:
        args: Arguments with ``seed``, ``device``, ``save`` and ``resume``.
        kind: First word of the folder's name: ``search``, ``eval``, ``test``, ...
        parent: Folder in which the run folder ``<kind>-<save>-<time>`` is created.

    Yields:
        The `Run`.
    """
    if getattr(args, "track", None):
        check_tool(args.track)
    device = init_distributed(args.device)
    folder: Any = from_rank_0(_run_folder(args, kind, parent) if rank() == 0 else None)
    run = Run(folder, args, device, rank(), world_size())
    seed_everything(args.seed)
    handlers, finished, failed = [], False, False
    try:
        handlers = open_log(run.folder / "log.txt" if run.is_main else None)
        logger.info("run folder: %s", run.folder)
        if run.is_main and not args.resume:
            run.identity = identity.begin_session(run.folder, args, device)
        yield run
        finished = True
        run.raise_faults()
    except KeyboardInterrupt:
        # This goes to the file only, since `util.cli.run_cli` prints it.
        logger.debug("interrupted; continue with --resume %s", quoted(run.folder))
        raise KeyboardInterrupt(f"continue with --resume {quoted(run.folder)}") from None
    except Exception as error:
        failed = True
        logger.debug("error: %s", error)
        raise
    finally:
        run.close()
        close_log(handlers)
        if failed:
            run.drop_if_empty()
        leave(together=finished)


def _run_folder(args, kind, parent):
    if args.resume:
        return Path(args.resume)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    base = Path(parent) / f"{kind}-{args.save}-{stamp}"
    for number in range(1, 1000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot create the run folder {folder}: {error.strerror}; choose another --out_dir"
            ) from None
        try:
            write_json(folder / "args.json", vars(args))
        except UserError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        return folder
    raise UserError(f"{base} and 998 numbered ones exist already; choose another --save")
