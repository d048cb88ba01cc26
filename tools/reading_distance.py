"""Count the files that a reader of a recipe enters, and the changes of file, before the first batch and in one step.

  python tools/reading_distance.py main_darts_searchable_mmimdb --demo --epochs 1
  python tools/reading_distance.py --trace calls.txt search_vqa --demo --epochs 1

It runs a search script and counts calls of the project's own functions. Run the script once beforehand, so that data
and stored features exist. --trace FILE writes every call; a star marks a change of file. A step ends with its loss.
"""

import argparse
import importlib
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import UserError, run_cli
from util.files import write_text

ROOT = Path(__file__).resolve().parent.parent
# Functions that begin an epoch, and the one that ends a step.
EPOCH = ("train_one_epoch", "InterleavedSearch.run_epoch")
STOP = "LossMeter.update"
PARTS = ("before the first batch", "in a step")
# Code inside a function that is already counted.
INNER = ("<module>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>")


class Recorder:
    """Collects calls while `sys.setprofile` reports them.

    Attributes:
        calls: For each of `PARTS` a list of (depth, file, function).
    """

    def __init__(self):
        self.calls = {part: [] for part in PARTS}
        self._part, self._depth = PARTS[0], 0

    def __call__(self, frame, event, _):
        if event not in ("call", "return"):
            return
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_qualname
        own = path.is_relative_to(ROOT) and ".venv" not in path.parts and not any(part in name for part in INNER)
        if not own:
            return
        if event == "return":
            self._depth -= 1
            return
        if name in EPOCH:
            self._part = PARTS[1]
        self.calls[self._part].append((self._depth, path.relative_to(ROOT).as_posix(), name))
        self._depth += 1
        if self._part == PARTS[1] and name == STOP:
            sys.setprofile(None)


def describe(part, calls):
    """One line with the numbers of functions, files and changes of file in a list of calls."""
    files = [file for _, file, _ in calls]
    changes = sum(before != after for before, after in itertools.pairwise(files))
    functions = len({(file, name) for _, file, name in calls})
    return f"{part}: {functions} functions, {len(set(files))} files, {changes} changes of file"


def trace_text(calls):
    """Every call on a line, indented by its depth."""
    lines, last = [], None
    for depth, file, name in calls:
        lines.append(f"{'*' if file != last else ' '} {' ' * depth}{file} {name}")
        last = file
    return "\n".join(lines) + "\n"


def get_args_parser():
    """The tool's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write every call to this file")
    parser.add_argument("script", help="name of a search script's module")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="its flags")
    return parser


def main(argv=None):
    """Run the script and print both lines."""
    args = get_args_parser().parse_args(argv)
    if sys.version_info < (3, 11):
        raise UserError("this tool needs Python 3.11 or newer")
    run, recorder = importlib.import_module(args.script).main, Recorder()
    sys.setprofile(recorder)
    try:
        run(args.flags)
    finally:
        sys.setprofile(None)
    for part, calls in recorder.calls.items():
        print(describe(part, calls))
    if args.trace:
        text = "".join(f"{part}\n{trace_text(calls)}" for part, calls in recorder.calls.items())
        write_text(args.trace, text)


if __name__ == "__main__":
    run_cli(main)
