"""CREMA-D in the form used by work on modality imbalance (OGM-GE): actors' faces and voices, six emotions.

The files are train.csv and test.csv with lines CLIP,EMOTION and no header; AudioWAV/CLIP.wav (or CLIP.wav); and
Image-01-FPS/CLIP/*.jpg.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.own.inputs import Input
from datasets.own.tables import SPLIT_COLUMN, BadRow, Table
from util.cli import UserError
from util.files import read_text

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
FRAMES, SOUNDS = "Image-01-FPS", "AudioWAV"


class _Clips(Table):
    def __init__(self, folder: Path) -> None:
        self.root, self.name = folder, str(folder)
        self.columns = ["id", "image", "audio", "label", SPLIT_COLUMN]
        self._sounds = f"{SOUNDS}/" if (folder / SOUNDS).is_dir() else ""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, list | BadRow]]:
        """See `Table.rows`."""
        for split in ("train", "test"):
            lines = csv.reader(read_text(self.root / f"{split}.csv").splitlines())
            for number, cells in enumerate(lines, start=1):
                if not cells:  # an empty line
                    continue
                place = f"line {number} of {split}.csv"
                if len(cells) < 2 or cells[1].strip() not in EMOTIONS:
                    yield place, BadRow(f"is not CLIP,EMOTION with one of {', '.join(EMOTIONS)}")
                    continue
                clip, label = cells[0].strip(), cells[1].strip()
                values = {"id": f"{split}/{clip}", "label": label, SPLIT_COLUMN: split}
                values |= {"image": self._frame(clip), "audio": f"{self._sounds}{clip}.wav"}
                yield place, [values[column] for column in columns]

    def _frame(self, clip):
        """Relative path of the middle frame; None for a clip without frames, whose picture is then missing."""
        frames = sorted((self.root / FRAMES / clip).glob("*.jpg"))
        return str(frames[len(frames) // 2].relative_to(self.root)) if frames else None


def read_cremad(folder: Path) -> dict[str, Any]:
    """Read CREMA-D; dev is drawn from train, since this form has no dev.

    Returns:
        dict of arguments of `datasets.own.prepare.Plan`.

    Raises:
        UserError: a file or folder is missing.
    """
    for part in ("train.csv", "test.csv", FRAMES):
        if not (folder / part).exists():
            raise UserError(f"{folder / part} is missing; expected train.csv, test.csv, {SOUNDS}/ and {FRAMES}/")
    inputs = [Input("image", "picture", ("image",), "--format cremad"), Input("audio", "audio", ("audio",), "--format")]
    return {"table": _Clips(folder), "inputs": inputs, "label": "label", "id_column": "id", "label_kind": "class"}
