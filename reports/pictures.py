"""Pictures of a report as SVG text: curves, probabilities, entropies, Pareto front, robustness, architectures."""

from __future__ import annotations

import dataclasses
import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.genotypes import FusionGenotype
from models.mmnas.architecture import Architecture
from reports.comparing import Comparison, Row, parameters
from reports.contents import in_percent
from reports.reading import RunRecord, log_lines
from search.pareto import dominates
from search.probabilities import probability_panels
from util.cli import UserError
from util.files import read_json
from util.plots import panels_svg, points_svg

# With more lines, the colours in a panel would be hard to distinguish.
_MAX_SEEDS = 8
# Rows whose curves and architectures are drawn.
_MAX_ROWS = 24
_NODE = re.compile(r'<g class="node" data-name="([^"]*)">(.*?)</g>', re.DOTALL)
_EDGE = re.compile(r'<g class="edge" data-ends="([^"]*)">')


@dataclasses.dataclass
class Picture:
    """A picture with its caption; ``about`` describes it in words, for people who cannot see it."""

    caption: str
    svg: str
    about: list[str] = dataclasses.field(default_factory=list)


def pictures_of(comparison: Comparison) -> Iterator[Picture]:
    """Yield the pictures of a comparison in order; each is drawn when it is requested."""
    rows = comparison.rows[:_MAX_ROWS]
    if rows:
        yield from _curves(rows, comparison)
    if comparison.kind == "search":
        yield from _searches(rows)
        yield from _fronts(rows)
    yield from _pareto(comparison)
    for row in rows:
        for run in row.runs:
            yield from _robustness(run, row.label)
    yield from _architectures(rows, comparison)


def scores_by_epoch(runs: Sequence[RunRecord], split: str, name: str) -> dict[str, Any]:
    """A panel for `util.plots.panels_svg` with one score by epoch, one line per run."""
    epochs = sorted({epoch.epoch for run in runs for epoch in run.epochs})
    series = {}
    for number, run in enumerate(runs):
        values = {epoch.epoch: epoch.scores.get(split, {}).get(name, math.nan) for epoch in run.epochs}
        label = f"seed {run.seed}" if run.seed is not None else run.folder.name
        series[label if label not in series else f"{label} ({number})"] = [values.get(e, math.nan) for e in epochs]
    return {"epochs": epochs, "series": series}


def _curves(rows, comparison):
    for row in rows:
        runs = [run for run in row.runs if run.epochs][:_MAX_SEEDS]
        if not runs:
            continue
        logged = {(split, name): None for e in runs[0].epochs for split, v in e.scores.items() for name in v}
        wanted = {name for _, name in comparison.columns[:1]} | {"loss"}
        panels = {f"{s} {n}": scores_by_epoch(runs, s, n) for s, n in logged if n in wanted}
        if panels:
            yield Picture(f"{row.label}: losses and scores by epoch", panels_svg(panels))


def _searches(rows):
    """For each row the entropies of all its searches, and the probabilities of the first one."""
    for row in rows:
        yield from entropy_picture(row.label, row.runs)
        run = row.runs[0]
        picture = probability_picture(run)
        if picture is not None:
            picture.caption = f"{row.label}, seed {run.seed}: {picture.caption}"
            yield picture


def probability_picture(run: RunRecord) -> Picture | None:
    """Probabilities of a search over its epochs; None if it logged none."""
    lines = [line for line in log_lines(run.folder) if line.get("probabilities")]
    try:
        panels = probability_panels(lines)
    except (KeyError, TypeError, AttributeError):  # a log in another format
        return None
    return Picture("probabilities of the candidates by epoch", panels_svg(panels, limits=(0, 1))) if panels else None


def entropy_picture(label: str, runs: Sequence[RunRecord]) -> Iterator[Picture]:
    """Yield a picture with the mean entropy of every group of choices by epoch, one line per run, if it was logged."""
    runs = [run for run in runs if any(epoch.entropy for epoch in run.epochs)][:_MAX_SEEDS]
    panels: dict[str, dict[str, Any]] = {}
    epochs = sorted({epoch.epoch for run in runs for epoch in run.epochs})
    for run in runs:
        for name in dict.fromkeys(name for epoch in run.epochs for name in epoch.entropy):
            values = {epoch.epoch: epoch.entropy.get(name, math.nan) for epoch in run.epochs}
            panel = panels.setdefault(name, {"epochs": epochs, "series": {}})
            panel["series"][f"seed {run.seed}"] = [values.get(epoch, math.nan) for epoch in epochs]
    if panels:
        yield Picture(f"{label}: entropy of the choices by epoch, in nats", panels_svg(panels))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that no other point dominates, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _pareto(comparison):
    """Parameters and first score of the rows with the same conditions as the first row, with their Pareto front."""
    if not comparison.columns:
        return
    split, name = comparison.columns[0]
    factor = 100 if in_percent(comparison, split, name) else 1
    points = {}
    for row in comparison.rows:
        size, score = row.fact(parameters), row.score(split, name)
        if size and score and row.conditions == comparison.rows[0].conditions:
            points[row.label] = (size.mean, factor * score.mean)
    if len({size for size, _ in points.values()}) < 2:
        return
    front = pareto_front(list(points.values()))
    sizes = sorted({size for size, _ in points.values()})
    # Every size is listed twice, with a gap after each value of a row: a value between two gaps is drawn as a dot.
    panel: dict[str, Any] = {"epochs": [size for size in sizes for _ in range(2)], "series": {}}
    if len(front) > 1:
        best = [max((score for cost, score in front if cost <= size), default=math.nan) for size in sizes]
        panel["series"]["Pareto front"] = [score for score in best for _ in range(2)]
    for label, (size, score) in points.items():
        values = [score if value == size else math.nan for value in sizes]
        panel["series"][label] = [part for value in values for part in (value, math.nan)]
    title = f"{split} {name}{', %' if factor == 100 else ''}"
    words = [f"on the front: {label}" for label, point in points.items() if point in front]
    yield Picture(f"{title} against parameters", panels_svg({title: panel}, x_label="parameters"), words)


def _fronts(rows):
    """Pareto fronts of searches with several objectives; runs with equal conditions share one picture."""
    alike: dict[Any, list[tuple[str, list[dict[str, Any]]]]] = {}
    for row in rows:
        for run in row.runs:
            front, costs = _front(run)
            if front:
                alike.setdefault((row.conditions, costs), []).append((f"{row.label}, seed {run.seed}", front))
    for (_, costs), fronts in alike.items():
        shown = fronts[:_MAX_SEEDS]
        panels = {
            cost: {label: [(float(c[cost]), _number(c["score"])) for c in front] for label, front in shown}
            for cost in costs
        }
        words = [_on_common_front(label, front, fronts, costs) for label, front in shown]
        words += [f"{len(fronts) - len(shown)} further runs are not drawn"] if len(fronts) > len(shown) else []
        caption = f"Pareto fronts of {len(shown)} searches: score against {' and '.join(costs)}"
        yield Picture(caption, points_svg(panels, y_label="score"), words)


def _front(run):
    """Candidates on the Pareto front of a search, and the names of its costs; ([], ()) if it has none."""
    trainings = run.result.get("trainings")
    front = trainings.get("front") if isinstance(trainings, dict) else None
    try:
        costs = tuple(name for name in trainings["objectives"] if name != "score") if front else ()
        [(float(c[cost]), _number(c["score"])) for c in front or () for cost in costs]
    except (KeyError, TypeError, ValueError, AttributeError):  # a result in another format
        return [], ()
    return front or [], costs


def _on_common_front(label, front, fronts, costs):
    """A sentence about how many candidates of one front are on the common front of all runs."""

    def values(candidate):
        score = _number(candidate["score"])
        return (-math.inf if math.isnan(score) else score, *(-float(candidate[cost]) for cost in costs))

    others = [values(candidate) for _, one in fronts for candidate in one]
    kept = [c for c in front if not any(dominates(other, values(c)) for other in others)]
    return f"{label}: {len(front)} candidates on its front, {len(kept)} of them on the front of all runs"


def _robustness(run, label):
    """Curves of ``robustness.json``; if the file is malformed, a picture whose caption reports that."""
    path = run.folder / "robustness.json"
    if not path.exists():
        return
    try:
        curves = read_json(path)["curves"]
        panels: dict[str, dict[str, dict[str, Any]]] = {}
        for curve in curves:
            x, series = [float(v) for v in curve["x"]], {k: [_number(v) for v in y] for k, y in curve["series"].items()}
            if any(len(values) != len(x) for values in series.values()):
                raise ValueError("lengths differ")
            panels.setdefault(str(curve.get("x_label", "level")), {})[str(curve["title"])] = {
                "epochs": x,
                "series": series,
            }
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        yield Picture(f"{path} does not have the format described in docs/report.md ({error})", "")
        return
    for x_label, group in panels.items():
        yield Picture(f"{label}, seed {run.seed}: robustness", panels_svg(group, x_label=x_label))


def _number(value):
    return math.nan if value is None else float(value)


def architecture_of(genotype: Mapping[str, Any] | None) -> FusionGenotype | Architecture | None:
    """The architecture of a result or a log line; None if there is none or it is damaged."""
    if not genotype:
        return None
    try:
        if "enc" in genotype:
            return Architecture.from_dict(genotype)
        found = FusionGenotype.from_dict(genotype)
        found.check_form()
        return found
    except (ValueError, TypeError, KeyError):
        return None


def architecture_svg(run: RunRecord) -> str | None:
    """The picture of a run's architecture, from its folder or drawn here; None if it has no architecture."""
    for name in ("genotype.svg", "architecture.svg"):
        if (run.folder / name).exists():
            return (run.folder / name).read_text(encoding="utf-8", errors="replace")
    architecture = architecture_of(run.result.get("genotype"))
    return architecture.to_svg() if architecture else None


def _architectures(rows, comparison):
    """The architecture of every row's best run; differences from the first one are marked in the others."""
    reference: tuple[Row, str] | None = None
    for row in rows:
        drawn = [run for run in row.runs if run.result.get("genotype")]
        if not drawn:
            continue
        run = max(drawn, key=lambda run: _deciding(run, comparison))
        svg = architecture_svg(run)
        if svg is None:
            continue
        same = sum(other.result["genotype"] == run.result["genotype"] for other in drawn)
        caption = f"{row.label}: architecture of seed {run.seed}; {same} of {len(drawn)} runs of this row have it"
        if reference is None:
            reference = (row, svg)
            yield Picture(caption, svg)
        else:
            marked, words = highlighted(svg, reference[1])
            found = "; what differs is marked" if words else "; the same"
            yield Picture(f"{caption}. Compared with {reference[0].label}{found}", marked, words)


def _deciding(run, comparison):
    split, name = comparison.columns[0] if comparison.columns else ("", "")
    return run.metrics.get(split, {}).get(name) or -math.inf


def highlighted(svg: str, other: str) -> tuple[str, list[str]]:
    """Mark what differs between two pictures of architectures.

    Args:
        svg, other: Pictures by `util.graph_svg.draw`.

    Returns:
        ``svg`` with the class ``differs`` on nodes and edges that ``other`` lacks, and the differences as texts.
    """
    ours, theirs = _nodes(svg), _nodes(other)
    lines, lines_there = _EDGE.findall(svg), set(_EDGE.findall(other))
    words = []
    for name, label in ours.items():
        if theirs.get(name) != label:
            svg = svg.replace(f'<g class="node" data-name="{name}">', f'<g class="node differs" data-name="{name}">', 1)
            words.append(f"{label} ({name})" + (f" instead of {theirs[name]}" if name in theirs else ""))
    for ends in dict.fromkeys(lines):
        if ends not in lines_there:
            svg = svg.replace(f'<g class="edge" data-ends="{ends}">', f'<g class="edge differs" data-ends="{ends}">')
            words.append(f"connection {_connection(ends, ours)}")
    return svg, [html.unescape(word) for word in words]


def _connection(ends, nodes):
    """Text about an edge, from its ``data-ends``: two names of nodes, which may contain spaces."""
    for source, label in nodes.items():
        target = ends.removeprefix(f"{source} ")
        if target != ends and target in nodes:
            return f"{label} ({source}) to {nodes[target]} ({target})"
    return ends


def _nodes(svg):
    """Name of a box -> its text."""
    return {name: " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", body)) for name, body in _NODE.findall(svg)}
