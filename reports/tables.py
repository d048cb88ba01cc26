"""A table of text, and its output as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Sequence

# Characters that LaTeX would interpret.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


@dataclasses.dataclass
class Table:
    """A table.

    Attributes:
        caption: What it shows.
        columns: Names of the columns.
        rows: Cells, as text.
        notes: Sentences below it.
        numbers: Names of columns with numbers, which are aligned to the right.
    """

    caption: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = dataclasses.field(default_factory=list)
    numbers: frozenset[str] = frozenset()


def markdown(table: Table) -> str:
    """The table as Markdown, with its caption as a heading."""
    bars = ["---:" if name in table.numbers else "---" for name in table.columns]
    lines = [_bars(table.columns), _bars(bars, escaped=False), *map(_bars, table.rows)]
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join(part for part in (f"### {table.caption}", "\n".join(lines), notes) if part) + "\n"


def _bars(cells: Sequence[str], escaped: bool = True) -> str:
    shown = [" ".join(cell.replace("|", r"\|").split()) if escaped else cell for cell in cells]
    return f"| {' | '.join(shown)} |"


def latex(table: Table) -> str:
    """The table as LaTeX; it needs the package booktabs."""
    kinds = "".join("r" if name in table.numbers else "l" for name in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.caption)}}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        _ampersands(table.columns),
        r"\midrule",
        *map(_ampersands, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\footnotesize {latex_text(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """The text with the characters that LaTeX would interpret escaped."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], " ".join(text.split()))


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_text, cells)) + r" \\"


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The text of a CSV file with a header (RFC 4180, but lines end with one newline character)."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()
