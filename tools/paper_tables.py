"""Write docs/papers.md, the papers' result tables, from docs/paper_results.json.

  python tools/paper_tables.py            # after a change of the JSON file
  python tools/paper_tables.py --check    # only check whether docs/papers.md is up to date

The JSON file is the only place for the figures; it records the source of each, and how it was read there.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser  # noqa: E402
from util.cli import UserError, run_cli  # noqa: E402
from util.files import read_json, write_text  # noqa: E402

RESULTS = ROOT / "docs" / "paper_results.json"
PAGE = ROOT / "docs" / "papers.md"


def get_args_parser():
    """Flags of the tool."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 2 if the page is out of date")
    return parser


def main(argv=None):
    """Write the page, or check it."""
    args = get_args_parser().parse_args(argv)
    text = page(read_json(RESULTS))
    if not args.check:
        write_text(PAGE, text)
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        raise UserError(f"{PAGE} does not match {RESULTS}; run python tools/paper_tables.py")


def page(results):
    """The whole page as Markdown.

    Args:
        results: Content of the JSON file.
    """
    parts = [
        "# What the papers report",
        "The result tables of both papers, each row with its source and how it was read there. No figure comes from\n"
        'memory: figures that nobody read at a source are left out and listed under "Not verified". Scores above 1\n'
        "are percentages. `python tools/paper_tables.py` makes this page; edit the figures in\n"
        "[paper_results.json](paper_results.json).",
    ]
    section = None
    for table in results["tables"]:
        if table["section"] != section:
            section = table["section"]
            parts.append(f"## {section}")
        parts += [f"### {table['title']}", *table_text(table, results["statuses"]), *table["notes"]]
    parts += ["## Numbers of samples", *counts_text(results["counts"])]
    for remark in results["remarks"]:
        parts += [f"## {remark['title']}", "\n".join(f"- {point}" for point in remark["points"])]
    parts += ["## Not verified", "\n".join(f"- {line}" for line in unverified(results["tables"]))]
    parts += ["## Sources", sources_text(results["sources"])]
    return "\n\n".join(parts) + "\n"


def table_text(table, statuses):
    """A table; its source is above it if all rows share one, else in two further columns."""
    origins = {(row["source"], row["status"]) for row in table["rows"]}
    columns = table["columns"] if len(origins) == 1 else [*table["columns"], "source", "status"]
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for row in table["rows"]:
        cells = [
            cell(value, table["digits"].get(name)) for name, value in zip(table["columns"], row["values"], strict=True)
        ]
        lines.append(_line(cells if len(origins) == 1 else [*cells, row["source"], statuses[row["status"]]]))
    if len(origins) == 1:
        source, status = origins.pop()
        yield f"Source: {source}, {statuses[status]}."
    yield "\n".join(lines)


def cell(value, digits=None):
    """A figure as it is printed: ``digits`` after the point if given; a pair is mean and standard deviation."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " ± ".join(cell(part, digits) for part in value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}f}"
    return value


def counts_text(counts):
    """A table and remarks: the papers' numbers of samples, and those that the preparation scripts check."""
    lines = [_line(["data", "splits", "paper", "checked by our preparation"]), "|---" * 4 + "|"]
    for count in counts:
        shown = (" / ".join(f"{number:,}" for number in count[name]) for name in ("paper", "checked"))
        lines.append(_line([count["data"], count["splits"], *shown]))
    yield "\n".join(lines)
    yield "\n".join(f"- {count['data']}: {count['verdict']}" for count in counts)


def unverified(tables):
    """A line for each cell or row that has no figure although the paper must contain one."""
    for table in tables:
        for row in table["rows"]:
            if row["status"] == "unverified":
                yield f"{table['title']}: {', '.join(v for v in row['values'] if isinstance(v, str))}"
        yield from (f"{table['title']}: {gap}" for gap in table["gaps"])


def sources_text(sources):
    """The list of the sources by their short names."""
    lines = []
    for name, source in sources.items():
        link = f" <{source['url']}>" if source["url"] else ""
        lines.append(f"- {name}: {source['title']}.{link}")
    return "\n".join(lines)


def _line(cells):
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    run_cli(main)
