"""easy-VQA as own data: the inputs are a picture and a question, the label is the answer.

The package's test set is test; dev is drawn from the pictures of its training set, so that no picture is in two splits.
Nothing is downloaded if the package is installed, which requirements.txt requires.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.own.embedded import chosen_views, facts_of, fetch_wheel, open_wheel
from datasets.own.inputs import Input
from datasets.own.tables import SPLIT_COLUMN, Arrays
from util.cli import UserError

NAME = "easy-vqa"
PARTS = ("train", "test")
QUESTIONS = 2
FORMS = {"image": "picture", "question": "text"}
# SHA-256 of the files that are read, in the order of `_files`, of version 1.0.
CONTENT = "f54f02106cf540b92843e8c12a3d4aa917d1ee7c0a81dc95296fe414e062659a"


def read_easy_vqa(
    wheel: Path | str | None,
    cache: Path,
    views: Sequence[str] = (),
    questions: int | None = None,
    pictures: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Read easy-VQA.

    Args:
        wheel: The package's wheel; None for the installed package or, if it is not installed, a wheel that pip
            downloads into ``cache``.
        cache: Folder of downloaded wheels.
        views: ``image``, ``question``, or both; () for both.
        questions: Number of questions per picture, drawn with ``seed``; 0 for all, None for `QUESTIONS`.
        pictures: Number of pictures of the training set, the first ones; None for all.
        seed: Seed of the draw.

    Returns:
        dict of arguments of `datasets.own.prepare.Plan`.

    Raises:
        UserError: the package is missing or has another version, or a view is unknown.
    """
    views = chosen_views(NAME, views)
    questions = QUESTIONS if questions is None else questions
    columns = _columns(_reader(wheel, cache), questions, pictures, random.Random(seed))
    inputs = [Input(view, FORMS[view], (view,), "--views") for view in views]
    return {
        "table": Arrays({name: _objects(values) for name, values in columns.items()}),
        "inputs": inputs,
        "label": "answer",
        "label_kind": "class",
        "id_column": "id",
        "group_column": "picture",
        "split_column": SPLIT_COLUMN,
        "facts": facts_of(NAME),
    }


def _reader(wheel, cache) -> Callable[[str], bytes]:
    """Returns a function from the name of a data file to its content; the content of all files is checked first."""
    installed = importlib.util.find_spec("easy_vqa") if wheel is None else None
    if installed is None or not installed.origin:
        archive = open_wheel(NAME, wheel or fetch_wheel(NAME, cache))
        return lambda name: archive.read(f"easy_vqa/data/{name}")
    folder = Path(installed.origin).parent / "data"
    digest = hashlib.sha256()
    try:
        for name in _files(lambda name: (folder / name).read_bytes()):
            digest.update((folder / name).read_bytes())
    except (OSError, ValueError):
        digest = hashlib.sha256()
    if digest.hexdigest() != CONTENT:
        raise UserError(
            f"the installed package easy-vqa ({folder}) is not the expected version 1.0: `python -m pip install"
            " --force-reinstall easy-vqa==1.0`, or name its wheel with --wheel"
        )
    return lambda name: (folder / name).read_bytes()


def _files(read) -> Iterator[str]:
    for part in PARTS:
        yield f"{part}/questions.json"
        for picture in sorted(_asked(read, part)):
            yield _picture(part, picture)


def _picture(part, number):
    return f"{part}/images/{number}.png"


def _asked(read, part):
    """dict number of a picture -> list of its (question, answer), in order."""
    asked: dict[int, list[tuple[str, str]]] = {}
    for question, answer, number in json.loads(read(f"{part}/questions.json")):
        asked.setdefault(number, []).append((question, answer))
    return asked


def _columns(read, questions, pictures, rng):
    columns: dict[str, list] = {name: [] for name in ("image", "question", "answer", "id", "picture", SPLIT_COLUMN)}
    for part in PARTS:
        for number, pairs in sorted(_asked(read, part).items())[: pictures if part == "train" else None]:
            picture, count = read(_picture(part, number)), len(pairs)
            for place in sorted(rng.sample(range(count), min(questions or count, count))):
                name = f"{part}/{number}"
                row = (picture, *pairs[place], f"{name}/{place}", name, part)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return columns


def _objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
