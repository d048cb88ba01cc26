"""Files that a preparation cannot use: they are listed in ``invalid.txt``, and refused or left out."""

from collections.abc import Mapping
from pathlib import Path

from util.cli import UserError
from util.files import write_text

INVALID_FILE = "invalid.txt"
LISTED = 20


def report_invalid(
    folder: Path | str,
    invalid: Mapping[str, str],
    skip_invalid: bool,
    *,
    kinds: tuple[str, str] = ("file", "files"),
    done: str = "packed",
    root: Path | None = None,
) -> None:
    """Write the list ``invalid.txt`` into ``folder``, and print its beginning. Without faults, an old list is removed.

    Args:
        folder: The folder that is prepared.
        invalid: Name -> reason of everything that cannot be used.
        skip_invalid: Leave these out.
        kinds: Word for one of them, and for several.
        done: Participle of what is done with the others.
        root: Folder that the names are relative to, for messages; None if they are complete.

    Raises:
        UserError: something is invalid, and ``skip_invalid`` is not set.
    """
    path = Path(folder) / INVALID_FILE
    path.unlink(missing_ok=True)
    if not invalid:
        return
    rows = sorted(invalid.items())
    write_text(path, "".join(f"{name}\t{reason}\n" for name, reason in rows))
    shown = [f"{root / name if root else name}: {reason}" for name, reason in rows[:LISTED]]
    count = f"{len(rows):,} {kinds[1]} are" if len(rows) > 1 else f"1 {kinds[0]} is"
    if not skip_invalid:
        raise UserError(
            f"{count} invalid, first {shown[0]} (all are listed in {path}); everything else is {done} and kept; fix"
            " these, or add --skip_invalid to leave them out, and run the same command again"
        )
    print(f"note: {count} invalid and left out (all are listed in {path}):")
    for line in shown:
        print(f"  {line}")
