"""The documents of the repository: their text, their code blocks, and the commands in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")))


class Block(NamedTuple):
    """A code block: its language (may be empty), its text, the text between the block before it and this one, heading.

    ``heading`` is that of the section, ``## ...``.
    """

    language: str
    text: str
    before: str
    heading: str


def read(page):
    """The text of a page, named from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page):
    """The `Block`s of a page, in order."""
    found, before, inside, language, heading = [], [], None, "", ""
    for line in read(page).splitlines():
        if inside is None and line.startswith("```"):
            language, inside = line[3:].strip(), []
        elif inside is None:
            before.append(line)
            heading = line[3:] if line.startswith("## ") else heading
        elif line == "```":
            found.append(Block(language, "\n".join(inside) + "\n", "\n".join(before), heading))
            before, inside = [], None
        else:
            inside.append(line)
    assert inside is None, f"a code block of {page} does not end"
    return found


def commands(page):
    """The ``python ...`` lines of a page (in code blocks without a language, in backticks), placeholders filled in."""
    lines = [line for block in blocks(page) if not block.language for line in block.text.splitlines()]
    lines += re.findall(r"`((?:\.venv/bin/)?python [^`]+\.py[^`]*)`", read(page))
    filled = [re.sub(r"<[^>]+>", "some/folder", line) for line in lines]
    return [line for line in filled if re.match(r"(\.venv/bin/)?python \S+\.py", line)]
