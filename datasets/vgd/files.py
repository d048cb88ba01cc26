"""The split files of visual grounding, in the original's form: a list with one record per expression.

A record contains ``tokens`` (list of words), ``file_name``, ``image_id``, ``split``, ``bbox`` [x, y, w, h] in pixels,
``name`` (of the category), and ``height`` and ``width`` of the image. ``datasets/prepare_vgd.py`` writes the files.
"""

import contextlib
import itertools
import json
from pathlib import Path

import numpy as np

from datasets.text.vocabulary import Vocabulary
from datasets.vgd.refer import DATASETS
from util.cli import UserError, quoted
from util.files import atomic_path, read_json

META_FILE = "meta.json"
# Folders of .npz files: the published ones, and those of extract_features.py.
FEATURE_FOLDERS = {"vg_woref": ("bua-r101-fix100", "features")}
# More than the side of any image; still exact in float32.
MAX_PIXELS = 1e7
TITLES = {"refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}


def prepare_command(data, dataset):
    """The command that makes the files of a data set in ``data``."""
    return f"python datasets/prepare_vgd.py --dataset {dataset} --refer REFER_DIR --out {quoted(data)}"


def splits_of(dataset):
    """dict name of a split -> tuple of the files that it consists of."""
    return {"train+val": ("train", "val")} | {name: (name,) for name in DATASETS[dataset].counts}


def write_splits(folder, records, meta):
    """Write the files of all splits and ``meta.json``. If one of them cannot be written, none is.

    Args:
        folder: Folder of the data set.
        records: dict split -> list of records.
        meta: JSON values.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = {f"{split}.json": json.dumps(rows) for split, rows in records.items()}
    texts[META_FILE] = json.dumps(meta, indent=2) + "\n"
    # The files are renamed into place only after all of them were written.
    with contextlib.ExitStack() as files:
        for name, text in texts.items():
            files.enter_context(atomic_path(Path(folder) / name)).write_text(text, encoding="utf-8")


class VGDFolder:
    """The split files of one data set.

    Args:
        data: Folder of all data sets and their features.
        dataset: ``refcoco``, ``refcoco+`` or ``refcocog``.

    Attributes:
        splits: dict name of a split -> tuple of its files.
        description: What the data are.
        synthetic: Whether they are synthetic.
        counts: dict name of a file -> number of its expressions when it was made; {} if that was not recorded.

    Raises:
        UserError: the data set is unknown, or has no files here.
    """

    def __init__(self, data, dataset):
        if dataset not in DATASETS:
            raise UserError(f"--DATASET {dataset}: choose one of {', '.join(DATASETS)}")
        self.data, self.dataset, self.splits = Path(data), dataset, splits_of(dataset)
        self.folder = self.data / dataset
        if not any(self._path(part).is_file() for part in DATASETS[dataset].counts):
            raise UserError(
                f"{self.folder} has no {', '.join(f'{part}.json' for part in DATASETS[dataset].counts)}; make them with"
                f" `{prepare_command(data, dataset)}`"
            )
        meta = read_json(self.folder / META_FILE) if (self.folder / META_FILE).is_file() else {}
        meta = meta if isinstance(meta, dict) else {}
        self.description = str(meta.get("description", TITLES[dataset]))
        self.synthetic = bool(meta.get("synthetic", False))
        counts = meta.get("expressions")
        self.counts = counts if isinstance(counts, dict) else {}

    def _path(self, part):
        return self.folder / f"{part}.json"

    def check_split(self, split):
        """Raise UserError if the data set has no such split."""
        if split not in self.splits:
            raise UserError(f"{self.dataset} has no split {split}: choose one of {', '.join(self.splits)}")

    def records(self, split):
        """Read and check the records of a split: list of dicts.

        Raises:
            UserError: there is no such split, or a file is missing or has another form.
        """
        self.check_split(split)
        return [record for part in self.splits[split] for record in self._read(part)]

    def _read(self, part):
        path = self._path(part)
        command = prepare_command(self.data, self.dataset)
        if not path.is_file():
            raise UserError(f"{path} is missing; make it with `{command}`")
        records = read_json(path)
        if not isinstance(records, list) or not records:
            raise UserError(f"{path} contains no list of expressions; make it again with `{command}`")
        for number, record in enumerate(records):
            if not _is_record(record):
                raise UserError(
                    f"{path}: entry {number} has no tokens, image_id, bbox [x, y, w, h] with an area, height and"
                    f" width; make the file again with `{command}`"
                )
        return records

    def vocabulary(self):
        """Make the `Vocabulary` of the unchanged words in all existing files of the data set, in their order."""
        present = [part for part in DATASETS[self.dataset].counts if self._path(part).is_file()]
        records = itertools.chain.from_iterable(map(self._read, present))
        return Vocabulary.of_words(record["tokens"] for record in records)


def _is_record(record):
    if not isinstance(record, dict) or not isinstance(record.get("tokens"), list):
        return False
    box = record.get("bbox")
    numbers = [*(box if isinstance(box, list) else []), record.get("height"), record.get("width")]
    image_id = record.get("image_id")
    # NaN fails this comparison. A box without area is refused too, since it overlaps with nothing.
    sized = all(isinstance(one, (int, float)) and abs(one) < MAX_PIXELS for one in numbers)
    return (
        type(image_id) is int
        and abs(image_id) < 2**63
        and len(numbers) == 6
        and sized
        and min(numbers[2:]) > 0
        and all(isinstance(word, str) for word in record["tokens"])
    )


def corners_of(records):
    """Ground-truth box of each record: float64 (N, 4), x1, y1, x2, y2 = x, y, x + w, y + h."""
    boxes = np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
