"""Region features in the TSV files of bottom-up attention and of LXMERT: one line per image, with arrays in base64.

The columns of bottom-up attention are image_id, image_w, image_h, num_boxes, boxes, features; those of LXMERT are
img_id, img_h, img_w, four columns about the objects, num_boxes, boxes, features. ``boxes`` are float32 (n, 4), x1, y1,
x2, y2 in pixels, and ``features`` float32 (n, D). Files have 20 to 40 GB, so they are read line by line. The published
files contain some images twice.
"""

import base64
import binascii
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.regions.files import BadRegions, checked_regions, image_id_of
from util.cli import UserError
from util.files import NotText, decode_text
from util.progress import progress
from util.trees import list_files

ENDING = ".tsv"
LAYOUTS = (
    ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features"),
    (
        *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
        *("num_boxes", "boxes", "features"),
    ),
)
_NAMES = {"img_id": "image_id", "img_h": "image_h", "img_w": "image_w"}
_EXPECTED = " or ".join(f"{len(names)} ({', '.join(names)})" for names in LAYOUTS)


class Row(NamedTuple):
    """One line of a file, not yet decoded.

    number: Number of the line, from 1.
    image_id: Id of the image; None if the line has none.
    stamp: Text that depends on the content of the line, but not on its file.
    columns: Bytes of each column.
    names: Names of the columns, one of the `LAYOUTS`.
    """

    number: int
    image_id: int | None
    stamp: str
    columns: list
    names: tuple


def tsv_files(place):
    """List of the paths of TSV files: ``place`` itself, or those in the folder ``place`` and the folders inside it."""
    place = Path(place)
    if place.is_file():
        return [place] if place.name.lower().endswith(ENDING) else []
    names = [name for name in list_files(place, depth=1) if name.lower().endswith(ENDING)]
    return [place / name for name in names if not name.rsplit("/", 1)[-1].startswith(".")]


def read_rows(path):
    """Iterate over the lines of a file that are not empty; yields a `Row` for each.

    Raises:
        UserError: the file cannot be read, or its first line does not have one of the `LAYOUTS`.
    """
    names = None
    try:
        with open(path, "rb", buffering=1 << 20) as file:
            for number, line in enumerate(file, start=1):
                line, names = (line, names) if names else _first_line(path, line)
                line = line.rstrip(b"\r\n")
                if not line.strip() or (number == 1 and line.startswith((b"image_id\t", b"img_id\t"))):
                    continue
                columns = line.split(b"\t")
                yield Row(number, _image_id(columns[0]), f"tsv {zlib.crc32(line):08x} {len(line)}", columns, names)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _first_line(path, line):
    """(line without a byte order mark, layout of the file).

    Only the first line shows the layout: two lines of six columns, one of them truncated, may look like one of ten.
    """
    try:
        line = decode_text(line).encode()
    except NotText as reason:
        raise UserError(f"{path}: {reason}") from None
    count = line.count(b"\t") + 1
    names = next((names for names in LAYOUTS if len(names) == count), None)
    if names is None:
        raise UserError(f"{path} has {count} columns separated by tabs in its first line; expected {_EXPECTED}")
    return line, names


def _image_id(text):
    try:
        return image_id_of(text.decode("ascii"))
    except UnicodeDecodeError:
        return None


def about_rows(path):
    """Estimate the number of lines of a file from the length of the first, for a progress bar."""
    with open(path, "rb") as file:
        return max(1, os.fstat(file.fileno()).st_size // max(1, len(file.readline())))


def regions_of(row):
    """Decode the `Regions` of a `Row`.

    Raises:
        BadRegions: a column is missing, truncated or not a number.
    """
    if len(row.columns) != len(row.names):
        raise BadRegions(f"has {len(row.columns)} columns; the file has {len(row.names)}")
    if row.image_id is None:
        raise BadRegions(f"has no image id but {row.columns[0][:40].decode(errors='backslashreplace')!r}")
    columns = {_NAMES.get(name, name): value for name, value in zip(row.names, row.columns, strict=True)}
    count = _number(columns, "num_boxes")
    boxes, features = (_array(columns, name, count) for name in ("boxes", "features"))
    if boxes.shape[1] != 4:
        raise BadRegions(f"has {boxes.size} numbers in the column boxes; expected {count} x 4")
    return checked_regions(features, boxes, _number(columns, "image_h"), _number(columns, "image_w"))


def _number(columns, name):
    text = columns[name]
    if not text.isdigit() or len(text) > 9 or not int(text):
        raise BadRegions(f"has {name} {text[:40].decode(errors='backslashreplace')!r}; expected a number above 0")
    return int(text)


def _array(columns, name, count):
    """Decode a column: float32 (count, any width)."""
    try:
        data = base64.b64decode(columns[name])
    except binascii.Error:
        raise BadRegions(f"is cut short or damaged: the column {name} is not base64") from None
    if not data or len(data) % (4 * count):
        raise BadRegions(f"is cut short or damaged: {len(data):,} bytes of {name} are not {count} rows of float32")
    return np.frombuffer(data, dtype="<f4").reshape(count, -1)


def fill_from_tsv(writer, files, invalid):
    """Add the images of TSV files that are not stored yet.

    An image may occur several times. Lines with the same content are used once, and a damaged line is ignored if
    another line of its image is intact; the numbers of both are printed.

    Args:
        writer: `RegionStoreWriter`, or another object with ``stamps()``, ``add_regions()`` and ``folder``.
        files: Paths of the files.
        invalid: dict place -> reason, to which lines that cannot be used are added.

    Returns:
        list of the ids of all images of these files that are stored.

    Raises:
        UserError: a file cannot be read, has another form, or has changed since it was packed.
    """
    filling = _Filling(writer)
    for path in files:
        rows = progress(read_rows(path), f"packing {path.name}", total=about_rows(path), unit="image")
        for row in rows:
            filling.take(path, row)
    harmless = [one for one in filling.damaged if one[0] in filling.seen]
    lost = {place: reason for number, place, reason in filling.damaged if number not in filling.seen}
    invalid |= filling.twice | lost
    if filling.repeated:
        print(f"note: {filling.repeated:,} lines repeat an image and are left out")
    if harmless:
        _, place, reason = harmless[0]
        print(
            f"note: {len(harmless):,} damaged lines are left out, since other lines have the same images, first"
            f" {place}: {reason}"
        )
    return list(filling.seen)


class _Filling:
    """The state of a pass over the files.

    seen: dict image id -> stamp of its line in this pass.
    damaged: list of (image id or None, place, reason).
    twice: dict place -> reason, of lines whose features differ from those of an earlier line of the same image.
    repeated: Number of lines with the same content as an earlier one.
    """

    def __init__(self, writer):
        self._writer, self._before = writer, writer.stamps()
        self.seen, self.damaged, self.twice, self.repeated = {}, [], {}, 0

    def take(self, path, row):
        """Add the image of a `Row` of the file ``path``, unless it is already stored."""
        known, before = self.seen.get(row.image_id), self._before.get(row.image_id)
        if known == row.stamp:
            self.repeated += 1
            return
        if known is None and before == row.stamp:
            self.seen[row.image_id] = row.stamp
            return
        place = f"{path} line {row.number}" + ("" if row.image_id is None else f" (image {row.image_id})")
        try:
            regions = regions_of(row)
            if known is not None:
                self.twice[place] = "has other features than an earlier line of the same image"
                return
            if before is not None:
                raise UserError(f"{place} has changed since it was packed; delete {self._writer.folder} and pack again")
            self._writer.add_regions(row.image_id, row.stamp, regions)
        except BadRegions as reason:
            self.damaged.append((row.image_id, place, str(reason)))
        else:
            self.seen[row.image_id] = row.stamp
