"""Show what was prepared: printed counts, a page of samples, and a contact sheet of the pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.own.dataset import OwnData, open_own
from datasets.own.manifest import read_manifest
from util.files import write_text

SHEET_FILE, PAGE_FILE = "contact_sheet.png", "samples.html"
# Maximum number of samples per split, characters of a text, classes in the table, and classes of one sample.
SHOWN, MAX_TEXT, MAX_CLASSES, MAX_NAMED = 10, 300, 30, 4
STYLE = "body{font:14px sans-serif}td,th{border:1px solid #ccc;padding:4px 8px;vertical-align:top}img{max-height:120px}"


def print_summary(facts: Mapping[str, Any]) -> None:
    """Print a summary of a prepared folder: modalities, missing inputs, splits, classes.

    Args:
        facts: The content of ``own.json``.
    """
    splits = facts["splits"]
    total = sum(splits.values())
    for name, one in facts["modalities"].items():
        size = "" if one["size"] is None else f", size {_size(one['size'])}"
        missing = sum(one["missing"].values())
        share = f"missing in {missing:,} of {total:,} samples" if missing else "never missing"
        print(f"{name}: {one['kind']}{size}, {share}")
        filled = {column: count for column, count in facts["tables"].get(name, {}).get("filled", {}).items() if count}
        if filled:
            shown = ", ".join(f"{column} {count:,}" for column, count in filled.items())
            print(f"  single empty cells (number: mean of train; category: zeros): {shown}")
    print("splits: " + ", ".join(f"{name} {count:,}" for name, count in splits.items()) + f" ({facts['split_rule']})")
    _print_classes(facts)
    for note in facts["notes"]:
        print(f"note: {note}")
    for name in ("license", "citation"):
        if facts[name]:
            print(f"{name}: {facts[name]}")


def _size(size):
    return " + ".join("x".join(map(str, shape)) for shape in size) if isinstance(size, (list, tuple)) else f"{size:,}"


def _print_classes(facts):
    label, counts = facts["label"], facts["classes"]
    if label["kind"] == "number":
        return
    columns = [split for split in facts["splits"] if counts.get(split)]
    names = label["classes"]
    order = sorted(range(len(names)), key=lambda one: -sum(counts[split][one] for split in columns))
    if label["kind"] == "class":
        order = order if len(names) > MAX_CLASSES else range(len(names))
    width = max([5, *(len(names[one]) for one in list(order)[:MAX_CLASSES])])
    print(f"{'class':<{width}}" + "".join(f"{split:>10}" for split in columns))
    for one in list(order)[:MAX_CLASSES]:
        print(f"{names[one]:<{width}}" + "".join(f"{counts[split][one]:>10,}" for split in columns))
    if len(names) > MAX_CLASSES:
        print(f"... and {len(names) - MAX_CLASSES:,} more classes, with fewer samples")


def write_samples_page(folder: Path | str) -> list[Path]:
    """Write ``samples.html``, a self-contained page of some samples of every split, and a contact sheet of pictures.

    Args:
        folder: A prepared folder.

    Returns:
        List of the paths of the files.
    """
    folder, parts, paths = Path(folder), [], []
    splits = {}
    manifest = read_manifest(folder)
    for split in manifest.splits:
        data = open_own(folder, split)
        rows = np.unique(np.linspace(0, len(data) - 1, min(SHOWN, len(data))).astype(int))
        splits[split] = data, rows
        parts.append(f"<h2>{split}: {len(data):,} samples</h2>" + _table(data, rows))
    head = f"<h1>{html.escape(manifest.name)}</h1><p>{html.escape(manifest.description)}</p>"
    page = f'<!doctype html><meta charset="utf-8"><title>samples</title><style>{STYLE}</style>{head}{"".join(parts)}\n'
    write_text(folder / PAGE_FILE, page)
    paths.append(folder / PAGE_FILE)
    pictures = [name for name, one in manifest.modalities.items() if one.kind == "picture"]
    if pictures:
        paths += _draw_sheet(folder, splits, pictures)
    return paths


def _draw_sheet(folder, splits, names):
    from datasets.regions.drawing import draw_sheet

    images, texts = [], []
    for split, (data, rows) in splits.items():
        for name in names:
            for row in rows:
                encoded = data.encoded(name, int(row))
                if encoded is not None:
                    images.append(io.BytesIO(encoded))
                    texts.append(_plain(f"{split} {name} {_label(data, int(row))}"))
    if not images:
        return []
    draw_sheet(images, texts, folder / SHEET_FILE, _plain(f"{data.manifest.name}: {len(images)} pictures"))
    return [folder / SHEET_FILE]


def _plain(text):
    # The drawing library's built-in font has no other characters.
    return text.encode("ascii", "replace").decode()[:40]


def _label(data, row):
    value = data.read([row], only=())["label"][0]
    kind, classes = data.manifest.label.kind, data.manifest.label.classes
    if kind == "number":
        return f"{float(value):g}"
    if kind == "class":
        return classes[int(value)]
    named = [classes[one] for one in np.flatnonzero(value.numpy())]
    return ", ".join(named[:MAX_NAMED]) + (f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else "")


def _table(data: OwnData, rows) -> str:
    names = list(data.manifest.modalities)
    ids = data.ids_of(rows)
    lines = ["<tr>" + "".join(f"<th>{html.escape(one)}</th>" for one in ("id", data.manifest.label.name, *names))]
    for row, sample_id in zip(map(int, rows), ids, strict=True):
        cells = [html.escape(sample_id), html.escape(_label(data, row)), *(_cell(data, name, row) for name in names)]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells))
    return f"<table>{''.join(lines)}</table>"


def _cell(data, name, row):
    (value,) = data.raw(name, [row])
    kind = data.manifest.modalities[name].kind
    if value is None:
        return "<i>missing</i>"
    if kind == "picture":
        encoded = data.encoded(name, row)
        form = "png" if encoded.startswith(b"\x89PNG") else "jpeg"
        return f'<img src="data:image/{form};base64,{base64.b64encode(encoded).decode()}">'
    if kind == "text":
        return html.escape(value[:MAX_TEXT]) + ("..." if len(value) > MAX_TEXT else "")
    if kind == "audio":
        return f"{len(value[0]) / value[1]:.2f} s at {value[1]:,} Hz"
    if kind == "vector":
        return " ".join(f"{number:.3g}" for number in value[:12]) + (" ..." if len(value) > 12 else "")
    return f"{len(value)} steps" if kind == "sequence" else _size([part.shape for part in value])
