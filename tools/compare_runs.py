#!/usr/bin/env python
"""Make the same tiny runs with two versions of this project and compare the results.

  python tools/compare_runs.py v1.0 HEAD --equal              # every number must agree to the last bit
  python tools/compare_runs.py HEAD . --tasks vqa itm         # what my uncommitted changes do to two tasks
  python tools/compare_runs.py v1.0 HEAD --mapping names.json

OLD and NEW are git commits, or folders that contain the project. For every task, both versions search, train the
architecture that they found, test it, and continue copies of both runs for another epoch; NEW also continues the runs
of OLD. The tool compares losses, scores, genotypes, probabilities, predictions, weights, and the state of optimisers
and schedules, but not times, paths, versions and wording. Everything is written to a temporary folder.

It prints one row per task and stage. The exit code is 0 if everything agrees, 1 if something differs or fails, and 2
after a usage error. Equality to the last bit can be expected on one machine and device, not between machines.

A mapping file is a JSON list of [regular expression, replacement]. Each pair renames entries of OLD, such as
best.pth/net/head.weight or log.jsonl/0/held out/loss; the replacement null leaves an entry out of the comparison.
"""

import argparse
import contextlib
import io
import math
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import UserError, run_cli

ROOT = Path(__file__).resolve().parent.parent
TASK_NAMES = ("mmimdb", "ntu", "ego", "vqa", "vgd", "itm")
SAME, DIFFERENT, FAILED = "same", "DIFFERENT", "FAILED"


def get_args_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="commit or folder")
    parser.add_argument("new", metavar="NEW", help="commit or folder")
    parser.add_argument("--equal", action="store_true", help="require equality to the last bit")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest relative difference without --equal (default: 1e-4)"
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=TASK_NAMES, default=TASK_NAMES, metavar="TASK", help="default: all"
    )
    parser.add_argument("--mapping", metavar="FILE", help="renamings of the entries of OLD")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="value of the scripts' --device (default: %(default)s)")
    parser.add_argument("--keep", metavar="DIR", help="write to this new folder and keep it: data, run folders, output")
    return parser


def main(argv=None):
    """Compare; returns whether everything agrees."""
    args = get_args_parser().parse_args(argv)
    _check(args)
    from tools.run_differences import IGNORED, SINCE_0_1_0, read_mapping

    args.rules = [*SINCE_0_1_0, *(read_mapping(args.mapping) if args.mapping else [])]
    start, differing, done = time.perf_counter(), 0, 0
    with contextlib.ExitStack() as stack:
        work = _work_folder(args.keep, stack)
        roots = {name: checkout(getattr(args, name), work / name) for name in ("old", "new")}
        print(f"{'task':7} {'stage':27} {'':9} {'values':>6} {'largest':>8}  first difference")
        for rows in Comparer(args, roots, work).rows():
            for row in rows:
                done, differing = done + 1, differing + (row.verdict != SAME)
                print(row, flush=True)
    kind = "to the last bit" if args.equal else f"within {args.tolerance:g}"
    outcome = f"{differing} of {done} rows differ" if differing else f"all {done} rows agree {kind}"
    print(f"{outcome} ({args.old} -> {args.new}, {time.perf_counter() - start:.0f} s)")
    print(f"not compared: {', '.join(IGNORED)}; pictures")
    return not differing


def _check(args):
    if not args.tolerance >= 0:
        raise UserError(f"--tolerance {args.tolerance}: expected 0 or more")
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: expected 1 or more")
    if args.keep and Path(args.keep).exists():
        raise UserError(f"--keep {args.keep} exists already; name a new folder")


def _work_folder(keep, stack):
    if not keep:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare_runs_")))
    folder = Path(keep).resolve()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--keep {keep}: {error.strerror}; name a folder you can write") from None
    return folder


def checkout(name, place):
    """Folder of a version: ``name`` itself if it is a folder of the project, else an export of the commit to ``place``.

    Raises:
        UserError: ``name`` is neither.
    """
    folder = Path(name)
    if (folder / "datasets" / "make_demo.py").is_file():
        return folder.resolve()
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        archive = subprocess.run([*git, "archive", "--format=tar", commit], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise UserError(f"{name} is neither a commit of {ROOT} nor a folder that contains the project") from None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(place, filter="data")
    return place


class Row:
    """One line of the table.

    Args:
        task, stage: What is compared.
        comparison: A `run_differences.Comparison`, or None if a run failed.
        error: Why it failed.
    """

    def __init__(self, task, stage, comparison=None, error=None):
        self.task, self.stage, self.comparison, self.error = task, stage, comparison, error
        self.verdict = FAILED if comparison is None else SAME if comparison.same else DIFFERENT

    def __str__(self):
        head = f"{self.task:7} {self.stage:27} {self.verdict:9}"
        if self.comparison is None:
            return f"{head} {'-':>6} {'-':>8}  {self.error}"
        found = self.comparison
        largest = "0" if found.largest == 0 else "-" if math.isinf(found.largest) else f"{found.largest:.1e}"
        words = found.first or ""
        if found.differing > 1:
            words += f" and {found.differing - 1} more"
        lines = [f"{head} {found.values:6} {largest:>8}  {words}".rstrip()]
        notes = found.notes[:3] + [f"... {len(found.notes) - 3} more notes"] * (len(found.notes) > 3)
        return "\n".join([*lines, *(f"{'':7} note: {note}" for note in notes)])


class Comparer:
    """Runs both versions on one task after another, and compares the runs.

    Args:
        args: The arguments, with ``rules`` from `run_differences.read_mapping`.
        roots: ``old`` and ``new``: folders of the versions.
        work: Folder to write to.
    """

    def __init__(self, args, roots, work):
        self.args, self.roots, self.work = args, roots, work

    def rows(self):
        """Yield lists of `Row`, one per task, in the order of ``args.tasks``."""
        from tools.script_server import ScriptServer

        jobs = min(self.args.jobs, len(self.args.tasks))
        with contextlib.ExitStack() as stack:
            servers = queue.Queue()
            for _ in range(jobs):
                servers.put(stack.enter_context(ScriptServer(self.work / "compiled")))
            data = {name: self._make_data(name, servers.queue[0]) for name in self.args.tasks}

            def compare(name):
                if isinstance(data[name], Row):
                    return [data[name]]
                server = servers.get()
                try:
                    return list(self._rows_of(name, data[name], server))
                finally:
                    servers.put(server)

            with ThreadPoolExecutor(jobs) as pool:
                yield from pool.map(compare, self.args.tasks)

    def _make_data(self, name, server):
        """Make a task's data with the old version; returns their folder, or a `Row` with the error."""
        from tools.script_server import ScriptError
        from tools.tiny_runs import TASKS, make_data

        data = self.work / "data" / TASKS[name].make_demo.split()[0]
        data.parent.mkdir(exist_ok=True)
        try:
            make_data(server, self.roots["old"], TASKS[name], data, self.work / "data.txt")
        except ScriptError as error:
            return Row(name, "data", error=str(error))
        return data

    def _rows_of(self, name, data, server):
        from tools.tiny_runs import RESUMED, TASKS, Side

        task, place = TASKS[name], self.work / name
        old, new = (Side(server, self.roots[s], task, data, place / s, self.args.device) for s in ("old", "new"))
        for stage in task.commands:
            was, now = old.run(stage), new.run(stage)
            yield self._compare(name, stage, was, now)
            if stage in RESUMED:
                resumed = old.resume(stage, was)
                for label, earlier in (("", now), (" from OLD", was)):
                    continued = new.resume(stage, earlier, label.replace(" ", "-"))
                    yield self._compare(name, RESUMED[stage] + label, resumed, continued)
                    self._forget(continued)
                self._forget(resumed)
        if not self.args.keep:
            shutil.rmtree(place)

    def _forget(self, outcome):
        if not self.args.keep:
            outcome.forget()

    def _compare(self, task, stage, old, new):
        from tools.run_differences import compare, read_run, rename

        print(f"{task}: {stage}: {old.seconds:.1f} s, {new.seconds:.1f} s", file=sys.stderr)
        errors = [f"{side}: {outcome.error}" for side, outcome in (("OLD", old), ("NEW", new)) if outcome.error]
        if errors:
            return Row(task, stage, error="; ".join(errors))
        try:
            values = [read_run(outcome.folder) for outcome in (old, new)]
        except UserError as error:
            return Row(task, stage, error=str(error))
        values[0] = rename(values[0], self.args.rules)
        return Row(task, stage, compare(*values, exact=self.args.equal, tolerance=self.args.tolerance))


if __name__ == "__main__":
    # Exits normally when it is killed, so that its temporary folder is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_cli(lambda: sys.exit(0 if main() else 1))
