"""Flags that all scripts that pack region features have, and the arguments that they give `pack_regions`."""

from util.cli import UserError


def add_packing_flags(parser, invalid="feature files"):
    """Add an argument group ``work`` to a parser; returns the group.

    Args:
        parser: The script's parser.
        invalid: What ``--skip_invalid`` leaves out, for its help text.
    """
    work = parser.add_argument_group("work")
    work.add_argument("--float32", action="store_true", help="keep features as float32: twice the size, no rounding")
    work.add_argument("--workers", type=int, help="processes (default: one per processor)")
    work.add_argument("--skip_invalid", action="store_true", help=f"leave out faulty {invalid} instead of stopping")
    return work


def packing_options(args):
    """dict of the arguments dtype, workers and skip_invalid of `datasets.regions.packing.pack_regions`.

    Raises:
        UserError: the number of processes is below one.
    """
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: must be 1 or more")
    dtype = "float32" if args.float32 else "float16"
    return {"dtype": dtype, "workers": args.workers, "skip_invalid": args.skip_invalid}
