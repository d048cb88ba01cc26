"""Shared by the prediction scripts of BM-NAS: their flags, printing, and predictions for the rows of a table."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.own.tables import BadRow, Table
from engine import arguments
from util.cli import UserError
from util.files import atomic_path
from util.progress import progress

if TYPE_CHECKING:
    from tasks.found_models import FusionModel, OwnModel

# Columns of the predictions before those of the probabilities.
HEAD = ("row", "prediction")


def prediction_parser(description: str) -> arguments.RecipeParser:
    """Parser with the flags that every prediction script of BM-NAS has."""
    parser = arguments.RecipeParser(description)
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder of a found or unimodal training")
    text = "classes to print; if several can be predicted, further ones that are predicted are printed too"
    parser.add_argument("--top", type=arguments.positive_int, default=5, help=text)
    parser.add_argument("--device", type=arguments.device_name, metavar="NAME", default="auto", help="auto, cpu, cuda")
    return parser


def show(model: FusionModel, prediction: Mapping[str, Any], top: int) -> list[tuple[str, float]]:
    """Print a prediction.

    Args:
        model: The network that made it.
        prediction: See `FusionModel.predict`.
        top: Classes to print. If the label has several classes, all that are predicted are printed in any case.

    Returns:
        Pairs of the printed classes and their probabilities, best first, or a pair of the label's name and the number.
    """
    if model.label == "number":
        print(f"{model.label_name}: {prediction['prediction']:.6g}")
        return [(model.label_name, prediction["prediction"])]
    predicted = set(prediction["prediction"]) if model.label == "classes" else set()
    ordered = sorted(prediction["probabilities"].items(), key=lambda pair: -pair[1])
    shown = [pair for place, pair in enumerate(ordered) if place < top or pair[0] in predicted]
    for name, probability in shown:
        print(f"{100 * probability:5.1f} %  {name}{'  <-' if name in predicted else ''}")
    return shown


def predict_one(model: FusionModel, sample: Mapping[str, Any], top: int) -> list[tuple[str, float]]:
    """Predict one sample, and print the result; see `show`."""
    for name in sample:
        if sample[name] is not None and name in model.inputs and not model.is_read(name):
            print(f"note: the network does not read {name}")
    return show(model, model.predict(sample), top)


def predict_table(
    model: OwnModel,
    table: Table,
    columns: Mapping[str, Sequence[str]],
    out: Path | str,
    *,
    batch: int,
    id_column: str | None = None,
) -> int:
    """Predict every row of a table and stream the predictions to a CSV file; ``out`` appears when it is complete.

    Args:
        model: The network.
        table: The rows.
        columns: Input that the network reads -> columns of the table.
        out: The file.
        batch: Rows per batch.
        id_column: Column that is copied into the first column, instead of the row's position in the table.

    Returns:
        Number of rows.

    Raises:
        UserError: A column is missing, or a row cannot be used.
    """
    flags = {column: f"--columns {name}" for name, some in columns.items() for column in some}
    table.check_columns({**flags, **({id_column: "--id_column"} if id_column else {})})
    wanted = [*flags, *([id_column] if id_column and id_column not in flags else [])]
    classes = [] if model.label == "number" else model.classes
    count = 0
    with atomic_path(out) as path, open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*HEAD, *classes])
        for rows in _batches(progress(table.rows(wanted), "rows", unit="row"), batch):
            names, values = [], {name: [] for name in columns}  # type: tuple[list, dict[str, list]]
            for place, cells in rows:
                named = _named(table, place, wanted, cells)
                names.append(named[id_column] if id_column else place)
                for name, some in columns.items():
                    values[name].append(_value(model, table, place, name, [named[column] for column in some]))
            for name, prediction in zip(names, _predictions(model, table, rows, values), strict=True):
                writer.writerow([name, *_cells(prediction, classes)])
            count += len(rows)
    if not count:
        raise UserError(f"{table.name} has no rows; expected one row per sample")
    return count


def _batches(rows: Iterable[Any], size: int) -> Iterator[list]:
    rows = iter(rows)  # a progress bar would start again with each islice
    while batch := list(itertools.islice(rows, size)):
        yield batch


def _named(table, place, wanted, cells):
    if isinstance(cells, BadRow):
        raise UserError(f"{table.name} {place} {cells}; correct it")
    return dict(zip(wanted, cells, strict=True))


def _value(model, table, place, name, cells):
    try:
        return model.raw.cells(name, cells)
    except BadRow as reason:
        raise UserError(f"{table.name} {place} {reason}; correct it") from None


def _predictions(model, table, rows, values):
    try:
        return model.predict_values(values)
    except UserError as error:
        raise UserError(f"{table.name}, {rows[0][0]} to {rows[-1][0]}: {error}") from None


def _cells(prediction, classes):
    """Cells of a row: several classes are joined by |, and numbers keep all their digits."""
    value = prediction["prediction"]
    shown = "|".join(value) if isinstance(value, list) else value
    return [shown, *(f"{prediction['probabilities'][name]:.6g}" for name in classes)]
