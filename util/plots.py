"""Pictures of a run: probabilities of a search and curves of training, one small panel each."""

import math
from pathlib import Path

from util.cli import UserError
from util.files import atomic_path

# Okabe-Ito: eight colours that colour-blind readers can tell apart. Then the dashes change.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8f8400")
DASHES = ("-", "--", ":", "-.")
COLUMNS = 4
SUFFIXES = (".svg", ".png")


def plot_probabilities(history, path, *, title=""):
    """Draw how the choices of a search develop.

    Args:
        history: Panel title -> {"epochs": [...], "series": {name: [value per epoch]}}. A panel runs from 0 to 1
            unless it has its own "ylim", a pair or None (fitted to the values), as an entropy needs.
        path: An .svg or .png file, written atomically.
        title: Heading of the whole picture.

    Raises:
        UserError: another suffix, or a folder that cannot be written.
    """
    _save(history, path, title, default_limits=(0, 1))


def plot_curves(history, path, *, title=""):
    """Draw scalars by epoch, such as the loss of train and dev; as `plot_probabilities`, with fitted axes.

    Args:
        history: Panel title -> {"epochs": [...], "series": {name: [value per epoch]}}, "ylim" optional.
        path: An .svg or .png file, written atomically.
        title: Heading of the whole picture.

    Raises:
        UserError: another suffix, or a folder that cannot be written.
    """
    _save(history, path, title, default_limits=None)


def _save(history, path, title, default_limits):
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} should end in {' or '.join(SUFFIXES)}; change the file name")
    kind = path.suffix.lower()[1:]
    figure = _figure(history, title, default_limits)
    with atomic_path(path) as temporary:
        # Without a date, an SVG of the same run differs in nothing but the names of its parts.
        figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else {})


def _figure(history, title, default_limits):
    # Imported here so that a script which draws nothing does not wait for it; no pyplot, which keeps global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, math.ceil(len(history) / COLUMNS))
    columns = max(1, math.ceil(len(history) / rows))
    figure = Figure(figsize=(3.4 * columns, 2.6 * rows + (0.4 if title else 0)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=12)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, panel) in zip(grid, history.items(), strict=False):
        _draw_panel(axes, name, panel, panel.get("ylim", default_limits))
    for axes in grid[len(history) :]:
        axes.set_axis_off()
    return figure


def _draw_panel(axes, name, panel, limits):
    from matplotlib.ticker import MaxNLocator

    epochs = list(panel["epochs"])
    for i, (label, values) in enumerate(panel["series"].items()):
        style = DASHES[i // len(COLOURS) % len(DASHES)]
        # One epoch makes no line, so it needs a dot.
        marker = "o" if len(epochs) == 1 else None
        axes.plot(epochs, list(values), style, color=COLOURS[i % len(COLOURS)], lw=1.4, marker=marker, ms=4)
        # A label with a leading underscore would be dropped if it were given to plot().
        axes.lines[-1].set_label(label)
    if limits is not None:
        low, high = limits
        # A little air, or lines at 0 and 1 hide behind the frame.
        axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    axes.set_title(name, fontsize=9, parse_math=False)
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _add_legend(axes, list(panel["series"]))


def _add_legend(axes, labels):
    if not labels:
        return
    columns = 1 if len(labels) <= 4 else 2
    legend = axes.legend(axes.lines, labels, fontsize=6.5, ncols=columns, frameon=True, framealpha=0.75, loc="best")
    legend.get_frame().set_linewidth(0)
    for text in legend.get_texts():
        text.set_parse_math(False)
