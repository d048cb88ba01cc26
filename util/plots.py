"""Plots of a run as standalone SVG: probabilities of a search and training curves, in small panels.

The SVG is written directly, since a plotting library takes seconds for the forty panels of a search, and this takes
milliseconds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from util.cli import UserError
from util.files import write_text
from util.graph_svg import FONT, INK, MUTED, text_width

# Okabe-Ito: eight colours that colour-blind readers can distinguish. Further curves repeat them with other dashes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8f8400")
DASHES = ("none", "7 3", "1.5 3", "7 3 1.5 3")
COLUMNS = 4
WIDTH, HEIGHT = 250, 150  # size of the area in which curves are drawn
LEFT, TOP, BELOW, RIGHT = 48, 26, 38, 18  # space around it: numbers, title of the panel, epochs, margin
KEY, SMALL, HEADING = 14, 10, 16  # height of a legend's line, and text sizes
MARGIN = 12
TICKS = 6


def plot_probabilities(history: Mapping[str, dict], path: str | Path, *, title: str = "") -> None:
    """Plot how the probabilities of a search develop.

    Args:
        history: Title of a panel -> {"epochs": [...], "series": {name: [value per epoch]}}. Values are shown from 0 to
            1, unless the panel has its own "ylim": a pair, or None (fitted to the values), as an entropy needs.
        path: An .svg file, written atomically.
        title: Heading of the whole picture.

    Raises:
        UserError: the file has another suffix, or its folder cannot be written to.
    """
    _save(history, path, title, default_limits=(0, 1))


def plot_curves(history: Mapping[str, dict], path: str | Path, *, title: str = "") -> None:
    """Plot scalars by epoch, such as the loss on train and dev. Axes are fitted to the values.

    Args:
        history: Title of a panel -> {"epochs": [...], "series": {name: [value per epoch]}}. Optional entries are
            "ylim" (see `plot_probabilities`) and "x_label", the name of the horizontal axis if it does not show epochs.
        path: An .svg file, written atomically.
        title: Heading of the whole picture.

    Raises:
        UserError: the file has another suffix, or its folder cannot be written to.
    """
    _save(history, path, title, default_limits=None)


def plot_points(
    groups: Mapping[str, Sequence[tuple[float, float]]], path: str | Path, *, axes: tuple[str, str], title: str = ""
) -> None:
    """Plot points (x, y), such as scores by size. Points that are not finite are left out.

    Args:
        groups: Label -> points of one colour. Later groups are drawn over earlier ones.
        path: An .svg file, written atomically.
        axes: Names of x and y.
        title: Heading of the whole picture.

    Raises:
        UserError: the file has another suffix, or its folder cannot be written to.
    """
    _write([_points(groups, axes)], path, title)


def points_svg(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, y_label: str) -> str:
    """SVG text of a picture like those of `plot_points`, with several panels.

    Args:
        panels: Name of a panel's x -> its groups, see `plot_points`.
        y_label: Name of y in all panels.
    """
    return _document([_points(groups, (name, y_label)) for name, groups in panels.items()], "")


def panels_svg(
    history: Mapping[str, dict], *, title: str = "", limits: tuple[float, float] | None = None, x_label: str = "epoch"
) -> str:
    """SVG text of a picture like those of `plot_probabilities` and `plot_curves`.

    Args:
        history: See there. The horizontal values of a panel are its "epochs", whatever ``x_label`` says.
        title: Heading of the whole picture.
        limits: Lowest and highest value of panels without "ylim"; None: fitted to the values.
        x_label: Name of the horizontal axis. If it is "epoch", all ticks are integers.
    """
    return _document(_panels(history, limits, x_label), title)


def _save(history, path, title, default_limits):
    _write(_panels(history, default_limits), path, title)


def _write(panels, path, title):
    path = Path(path)
    if path.suffix.lower() != ".svg":
        raise UserError(f"{path} should end in .svg; change the file name")
    write_text(path, _document(panels, title))


def _panels(history, default_limits, x_label="epoch"):
    return [
        _Panel(
            name,
            list(panel["epochs"]),
            panel["series"],
            panel.get("ylim", default_limits),
            panel.get("x_label", x_label),
        )
        for name, panel in history.items()
    ]


def _points(groups, axes):
    finite = {label: [p for p in points if all(map(math.isfinite, p))] for label, points in groups.items()}
    return _Points(axes[1], [x for one in finite.values() for x, _ in one], finite, None, axes[0])


def _document(panels, title):
    """The SVG document: a heading and rows of panels on a white background, since the surrounding page may be dark."""
    columns = _columns(len(panels))
    body, y = [], MARGIN + (HEADING + 10 if title else 0)
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        for column, panel in enumerate(row):
            x = MARGIN + column * (LEFT + WIDTH + RIGHT)
            body.append(f'<g class="panel" transform="translate({x} {y})">{panel.svg()}</g>')
        y += max(panel.height for panel in row)
    width = 2 * MARGIN + columns * (LEFT + WIDTH + RIGHT)
    height = y + MARGIN
    shape = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {shape} font-family="{FONT}" role="img">',
        f"<title>{escape(title)}</title>" if title else "",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(width / 2, MARGIN + HEADING - 2, title, "middle", HEADING) if title else "",
        *body,
        "</svg>",
    ]
    # XML 1.0 cannot represent most control characters.
    return "\n".join("".join(c for c in line if c >= " ") for line in lines if line) + "\n"


def _columns(panels):
    """Number of panels per row, chosen so that rows are about equally full."""
    rows = max(1, math.ceil(panels / COLUMNS))
    return max(1, math.ceil(panels / rows))


@dataclass
class _Panel:
    """A pair of axes with the curves of ``series``, and their legend below.

    ``limits`` are the lowest and highest value; None: fitted to the values.
    """

    name: str
    epochs: list
    series: dict
    limits: tuple | None
    x_label: str = "epoch"

    def __post_init__(self):
        self.low, self.high = _limits(self._heights(), self.limits)
        self.first: float = min(self.epochs, default=0)
        self.last: float = max(self.epochs, default=0)
        self.keys = self._place_keys()
        self.height = TOP + HEIGHT + BELOW + KEY * (1 + max((row for _, row in self.keys), default=-1))

    def _heights(self):
        """The values of each series."""
        return self.series.values()

    def svg(self):
        """SVG text of the panel, with its upper left corner at the origin."""
        parts = [_text(LEFT + WIDTH / 2, TOP - 9, self.name, "middle", 12), *self._axes()]
        for number, ((label, values), (x, row)) in enumerate(zip(self.series.items(), self.keys, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            dashes = DASHES[number // len(COLOURS) % len(DASHES)]
            style = f'fill="none" stroke="{colour}" stroke-width="1.7" stroke-dasharray="{dashes}"'
            y = TOP + HEIGHT + BELOW + KEY * row
            curve = self._curve(list(values), style, colour)
            key = f'<path d="M{x:.1f} {y - 3.5:.1f}h20" {style}/>{_text(x + 24, y, label, "start")}'
            parts.append(f'<g class="series">{curve}{key}</g>')
        return "".join(parts)

    def _axes(self):
        """The grid, its numbers, and the axes on the left and at the bottom."""
        bottom, right = TOP + HEIGHT, LEFT + WIDTH
        for value in _ticks(self.low, self.high):
            y = self._y(value)
            yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{MUTED}" stroke-opacity="0.2"/>'
            yield _text(LEFT - 5, y + 3.5, f"{value:.6g}", "end")
        for value in _ticks(self.first, self.last, whole=self.x_label == "epoch"):
            x = self._x(value)
            yield f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="{MUTED}" stroke-opacity="0.2"/>'
            yield _text(x, bottom + 12, f"{value:.10g}", "middle")
        yield _text(right, bottom + 23, self.x_label, "end", colour=MUTED)
        yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="{INK}"/>'

    def _curve(self, values, style, colour):
        """A line through the finite values, broken where one is missing. A value between two gaps is a dot."""
        parts, run = [], []
        for epoch, value in [*zip(self.epochs, values, strict=True), (None, math.nan)]:
            if math.isfinite(value):
                run.append(f"{self._x(epoch):.1f} {self._y(value):.1f}")
                continue
            if len(run) == 1:
                x, y = run[0].split()
                parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>')
            elif run:
                parts.append(f'<path d="M{"L".join(run)}" {style}/>')
            run = []
        return "".join(parts)

    def _place_keys(self):
        """Position (x, row) of each entry of the legend. A row has as many entries as fit."""
        places: list[tuple[float, int]] = []
        x, row = float(LEFT), 0
        for label in self.series:
            width = 24 + text_width(label, SMALL) + 8
            if x > LEFT and x + width > LEFT + WIDTH:
                x, row = LEFT, row + 1
            places.append((x, row))
            x += width
        return places

    def _x(self, epoch):
        share = (epoch - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return LEFT + WIDTH * (0.03 + 0.94 * share)

    def _y(self, value):
        return TOP + HEIGHT * (self.high - _clipped(value)) / (self.high - self.low)


class _Points(_Panel):
    """A `_Panel` whose series are points (x, y). ``epochs`` contains the x of all points."""

    def _heights(self):
        return [[y for _, y in points] for points in self.series.values()]

    def _curve(self, values, style, colour):
        return "".join(
            f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3" fill="{colour}"/>' for x, y in values
        )


def _limits(series, limits):
    """Lowest and highest value of a panel, with a small margin, without which the frame would hide extreme values."""
    if limits is None:
        values = [_clipped(value) for one in series for value in one if math.isfinite(value)] or [0, 1]
        limits = min(values), max(values)
    low, high = map(float, limits)
    if high - low <= max(1e-300, 1e-12 * abs(high)):  # equal but for rounding
        air = 0.05 * abs(high) if abs(high) > 1e-300 else 0.5
    else:
        air = 0.03 * (high - low)
    return low - air, high + air


def _clipped(value):
    """Clip a value to +-1e300, so that sums of two values do not overflow."""
    return max(-1e300, min(1e300, value))


def _ticks(low, high, whole=False):
    """About `TICKS` round numbers between ``low`` and ``high``, spaced by 1, 2 or 5 times a power of ten."""
    if low == high:
        return [low]
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _text(x, y, text, anchor, size=SMALL, colour=INK):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{escape(str(text))}</text>'
