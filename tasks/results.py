"""The result of a run, shown as a table in notebooks and at prompts."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from engine.report import with_present_names
from models.genotypes import FusionGenotype
from models.mmnas.architecture import Architecture
from util.cli import UserError, quoted
from util.files import read_json

FILE_NAME = "result.json"


def load_result(run: Path | str) -> Result:
    """Read the result of a run.

    Args:
        run: The run folder, or its ``result.json``.

    Raises:
        UserError: There is no result, or the file is damaged.
    """
    path = Path(run)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.exists():
        raise UserError(
            f"{path} does not exist: name the folder of a finished run, or finish this one with --resume {quoted(run)}"
        )
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("metrics"), dict):
        raise UserError(f"{path} is not the result of a run: it has no scores (metrics)")
    values = with_present_names(values)
    try:
        result = Result(path.parent, values, _architecture(values.get("genotype")))
    except ValueError as error:
        raise UserError(f"{path}: its genotype is damaged ({error}); restore the file") from None
    try:
        repr(result)  # reports a damaged file here instead of where the result is shown
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}); restore the file") from None
    return result


def _architecture(value):
    if value is None:
        return None
    if isinstance(value, dict) and "enc" in value:
        return Architecture.from_dict(value)
    genotype = FusionGenotype.from_dict(value)
    genotype.check_form()
    return genotype


class Result:
    """A run's result; IPython and Jupyter show its scores, their provenance, and the architecture.

    Attributes:
        folder: `Path` of the run folder.
        values: Content of ``result.json``, a dict.
        architecture: The `FusionGenotype` or `Architecture`, which draws itself; None if there is none.
    """

    def __init__(
        self, folder: Path, values: dict[str, Any], architecture: Architecture | FusionGenotype | None
    ) -> None:
        self.folder, self.values, self.architecture = folder, values, architecture

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Split -> {score: float}."""
        return self.values["metrics"]

    def table(self) -> list[list[str]]:
        """Rows of str: a header, then one row per split with its number of samples and its scores."""
        names = list(dict.fromkeys(name for scores in self.scores.values() for name in scores))
        samples = self.values.get("data", {}).get("samples", {})
        rows = [["split", "samples", *names]]
        for split, scores in self.scores.items():
            size = f"{samples[split]:,}" if split in samples else ""
            rows.append([split, size, *(_shown(scores[name]) if name in scores else "" for name in names)])
        return rows

    def facts(self) -> dict[str, str]:
        """The provenance of the scores: name -> text."""
        values, data = self.values, self.values.get("data", {})
        synthetic = " (synthetic)" if data.get("synthetic") else ""
        shown = {
            "run": f"{values.get('kind', '?')}, {self.folder}",
            "recipe": values.get("arguments", {}).get("recipe"),
            "data": data.get("description") and data["description"] + synthetic,
            "epoch": "selected_epoch" in values and f"{values['selected_epoch']}: {values.get('protocol')}",
            "weights": ", ".join(f"{part} {count:,}" for part, count in values.get("parameters", {}).items()),
            "time": "seconds" in values and f"{values['seconds']:,.0f} s on {values.get('device')}",
            "commit": values.get("git_commit"),
        }
        return {name: text for name, text in shown.items() if text}

    def __repr__(self) -> str:
        rows = self.table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"{name}: {text}" for name, text in self.facts().items())])

    def _repr_html_(self):
        """Show the scores, the facts and the architecture's picture in IPython and Jupyter."""
        head, *rows = ([escape(cell) for cell in row] for row in self.table())
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        facts = "<br>".join(f"{name}: {escape(text)}" for name, text in self.facts().items())
        picture = self.architecture.to_svg() if self.architecture else ""
        return f"<table><tr><th>{'</th><th>'.join(head)}</th></tr>{body}</table><p>{facts}</p>{picture}"


def _shown(score):
    if score is None:  # NaN in JSON files
        return "nan"
    return f"{score:.4f}" if isinstance(score, int | float) else str(score)
