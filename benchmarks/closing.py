"""The last lines of a result table: where the runs and pictures are, and how to continue with your own data."""

import sys
from pathlib import Path


def print_closing(table, search=None, own_data=()):
    """Print what to look at and what to run next.

    Args:
        table: File of the table.
        search: Run folder of the search, if there was one.
        own_data: Commands without the interpreter, in order: prepare the data, then search on them.
    """
    print("What next?")
    if search is not None:
        search = Path(search)
        print(f"- the search's run folder: {search} (result.json, log.txt)")
        print(f"- what it found, drawn: {search / 'genotype.svg'} (epoch by epoch: {search / 'architectures'})")
        print(f"- how it decided: {search / 'probabilities.svg'}; losses and scores: {search / 'curves.svg'}")
    print(f"- this table: {table}")
    if own_data:
        print("- your own data (docs/ has a page for each task that describes the files):")
        for command in own_data:
            print(f"    {_interpreter()} {command}")


def _interpreter():
    """This process's Python as a user would type it: its path if it is below the current folder, else ``python``."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else "python"
