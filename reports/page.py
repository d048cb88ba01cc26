"""The report as one HTML file without scripts or other files: tables, pictures, and the commands of every row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from reports.contents import ABOUT, Section, commands_of
from reports.pictures import Picture, pictures_of
from reports.tables import Table
from util.graph_svg import INK, MUTED

STYLE = Path(__file__).with_name("page.css")
# Pictures beyond this total size are left out, so that the page stays below 5 MB and opens quickly on a phone.
MAX_BYTES = 4_000_000
# Columns of a table that contain sentences, by the beginning of their names.
_WORDS = ("not comparable", "reason", "data", "selection", "what")


def page(sections: Sequence[Section], head: str = "", live: str = "") -> str:
    """The page as HTML.

    Args:
        sections: From `reports.contents.sections_of`.
        head: HTML to put above the sections.
        live: HTML to put at the end of the page; a served page reloads itself with it.
    """
    room = [MAX_BYTES]
    links = "".join(f'<li><a href="#s{n}">{escape(s.title)}</a></li>' for n, s in enumerate(sections))
    body = "".join(_section(number, section, room) for number, section in enumerate(sections))
    left_out = "" if room[0] >= 0 else "<p class=warn>Some pictures are left out, to keep this page small.</p>"
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Report of runs</title>'
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        '<body><a class="skip" href="#main">Skip to the tables</a><h1>Report of runs</h1>'
        f'<p>{escape(ABOUT)}</p>{left_out}<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'<main id="main">{head}{body}</main>{live}</body></html>\n'
    )


def _section(number, section, room):
    parts = [f'<section aria-labelledby="s{number}"><h2 id="s{number}">{escape(section.title)}</h2>']
    parts += [table_html(table) for table in section.tables]
    parts += list(_figures(pictures_of(section.comparison), room))
    parts += [_commands(section)]
    return "\n".join([*parts, "</section>\n"])


def _figures(pictures: Iterator[Picture], room: list[int]) -> Iterator[str]:
    """Pictures as HTML, as long as there is room; ``room[0]`` is the number of bytes left."""
    for picture in pictures:
        text = figure_html(picture)
        room[0] -= len(text.encode())
        if room[0] < 0:
            return
        yield text


def figure_html(picture: Picture) -> str:
    """HTML of a picture with its caption; the picture scrolls sideways if the screen is narrow."""
    about = "".join(f"<li>{escape(line)}</li>" for line in picture.about)
    about = f"<ul class=notes>{about}</ul>" if about else ""
    caption = f"<figcaption>{escape(picture.caption)}{about}</figcaption>"
    if not picture.svg:
        return f"<figure>{caption}</figure>"
    drawing = 'class="node' in picture.svg
    svg = picture.svg if drawing else _themed(picture.svg)
    svg = re.sub(r"^<svg ", f'<svg aria-label="{escape(picture.caption)}" ', svg, count=1)
    kind = "scroll drawing" if drawing else "scroll"
    return f"<figure>{_scrolling(svg, picture.caption, kind)}{caption}</figure>\n"


def _scrolling(inner, label, kind="scroll"):
    """HTML of a region that can be focused and scrolled with the keyboard."""
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(label)}">{inner}</div>'


def _themed(svg):
    """The SVG text of a plot with the colours of the page's theme, light or dark."""
    for colour, name in (("#ffffff", "sheet"), (INK, "ink"), (MUTED, "muted"), ("#000000", "ink")):
        svg = svg.replace(f'"{colour}"', f'"var(--{name})"')
    return svg


def table_html(table: Table) -> str:
    """HTML of a table with its caption and notes."""
    head = "".join(f"<th scope=col{_kind(table, name)}>{escape(name)}</th>" for name in table.columns)
    rows = []
    for cells in table.rows:
        first, *others = zip(table.columns, cells, strict=True)
        shown = "".join(f"<td{_kind(table, name)}>{escape(cell)}</td>" for name, cell in others)
        rows.append(f"<tr><th scope=row{_kind(table, first[0])}>{escape(first[1])}</th>{shown}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    caption = f"<caption>{escape(table.caption)}</caption>"
    warned = [' class="warn"' if note.startswith("Not comparable") else "" for note in table.notes]
    notes = "".join(f"<li{kind}>{escape(note)}</li>" for kind, note in zip(warned, table.notes, strict=True))
    notes = f"<ul class=notes>{notes}</ul>" if notes else ""
    return _scrolling(f"<table>{caption}{body}</table>", table.caption) + notes


def _kind(table, name):
    if name in table.numbers:
        return " class=number"
    if not name.startswith(_WORDS):
        return ""
    return ' class="words warn"' if name.startswith(("not comparable", "reason")) else " class=words"


def _commands(section: Section) -> str:
    rows = section.comparison.rows
    if not rows:
        return ""
    parts = []
    for row in rows:
        lines = escape("\n".join(commands_of(row)))
        folders = "".join(f"<li>seed {run.seed}: <code>{escape(str(run.folder))}</code></li>" for run in row.runs)
        parts.append(
            f"<details><summary>{escape(row.label)}</summary><pre>{lines}</pre><ul class=notes>{folders}</ul></details>"
        )
    return f"<h3>Commands that reproduce the rows</h3>{''.join(parts)}"
