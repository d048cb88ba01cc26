"""Report on runs in tables or a page: means over seeds, paired differences, published rows, curves, architectures.

  python report.py final_exp/mmimdb                                # Markdown on the terminal
  python report.py final_exp sweeps/x --out report.html            # one file with everything, for any browser
  python report.py sweeps/x --format latex --out tables.tex

Reads all run folders in and below the named folders. Runs that must not be averaged (interrupted runs, edited results,
copies, other data, commits or precision, ...) are kept apart, with the reason. docs/report.md explains the columns.
"""

from pathlib import Path

from engine.arguments import RecipeParser
from reports.comparing import compare
from reports.contents import as_csv, as_latex, as_markdown, sections_of
from reports.page import page
from reports.reading import read_runs
from util.cli import UserError, run_cli
from util.files import refuse_input, write_text

FORMATS = {"md": as_markdown, "html": page, "latex": as_latex, "csv": as_csv}
SUFFIXES = {".md": "md", ".html": "html", ".htm": "html", ".tex": "latex", ".csv": "csv"}


def get_args_parser():
    """Flags of the report."""
    parser = RecipeParser(__doc__)
    parser.add_argument(
        "folders", nargs="*", metavar="DIR", default=["final_exp"], help="run folders, or folders that contain some"
    )
    parser.add_argument("--format", choices=tuple(FORMATS), help="format (default: by the suffix of --out)")
    parser.add_argument("--out", metavar="FILE", help="file to write; replaced if it exists (default: print it)")
    return parser


def main(argv=None):
    """Read the runs and write the report; returns its text."""
    args = get_args_parser().parse_args(argv)
    suffix = Path(args.out or "report.md").suffix.lower()
    form = args.format or SUFFIXES.get(suffix)
    if form is None:
        raise UserError(
            f"--out {args.out}: {suffix or 'no suffix'} is not a known format; pass --format {'|'.join(FORMATS)}"
        )
    if args.out:
        refuse_input(args.out, {"DIR": args.folders})
    text = FORMATS[form](sections_of(compare(read_runs(args.folders))))
    if args.out:
        write_text(args.out, text)
        print(f"wrote {args.out}")
    else:
        print(text, end="")
    return text


if __name__ == "__main__":
    run_cli(main)
