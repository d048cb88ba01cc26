"""Plots of a run: they are complete, with the right panels, and valid whatever the values and names are."""

import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from util.cli import UserError
from util.plots import HEIGHT, LEFT, TOP, WIDTH, _columns, _limits, _ticks, panels_svg, plot_curves, plot_probabilities

ROOT = Path(__file__).resolve().parent.parent.parent
SVG = "{http://www.w3.org/2000/svg}"
HISTORY = {
    "C1_S1": {"epochs": [0, 1, 2], "series": {"Sum": [0.5, 0.6, 1.0], "_hidden $x": [0.5, 0.4, 0.0]}},
    "cell 1": {"epochs": [0, 1, 2], "series": {f"Input_{i}": [i / 10] * 3 for i in range(10)}},
    "entropy": {"epochs": [0, 1, 2], "series": {"edges": [2.0, 1.5, 1.2]}, "ylim": None},
}


def drawn(plot, history, folder, **options):
    """The panels of a picture, a list of elements."""
    plot(history, folder / "a.svg", **options)
    root = ElementTree.parse(folder / "a.svg").getroot()
    assert root.tag == f"{SVG}svg"
    return [group for group in root.iter(f"{SVG}g") if group.get("class") == "panel"]


def texts(panel):
    return [text.text for text in panel.iter(f"{SVG}text")]


def curves(panel):
    """For every series, the points of its lines and dots, one list per piece."""
    found = []
    for series in (group for group in panel.iter(f"{SVG}g") if group.get("class") == "series"):
        pieces = [path.get("d")[1:].split("L") for path in series.iter(f"{SVG}path") if "h" not in path.get("d")]
        pieces = [[tuple(map(float, point.split())) for point in piece] for piece in pieces]
        found.append(pieces + [[(float(c.get("cx")), float(c.get("cy")))] for c in series.iter(f"{SVG}circle")])
    return found


@pytest.mark.parametrize("plot", [plot_probabilities, plot_curves])
def test_a_file_is_written_whole(plot, tmp_path):
    panels = drawn(plot, HISTORY, tmp_path / "new", title="<title> & $more \x01")
    assert [texts(panel)[0] for panel in panels] == list(HISTORY)
    assert {"Sum", "_hidden $x"} <= set(texts(panels[0]))
    assert "<title>&lt;title&gt; &amp; $more </title>" in (tmp_path / "new" / "a.svg").read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.svg"]


def test_equal_runs_give_equal_files(tmp_path):
    for name in ("a.svg", "b.svg"):
        plot_curves(HISTORY, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_panels_share_the_scale_of_probabilities_but_for_the_entropy(tmp_path):
    first, second, entropy = drawn(plot_probabilities, HISTORY, tmp_path)
    for panel in (first, second):
        assert {"0", "0.2", "0.4", "0.6", "0.8", "1"} <= set(texts(panel))
    assert "1.4" in texts(entropy) and "0.4" not in texts(entropy)
    (rising,), (falling,) = curves(first)
    middle = TOP + HEIGHT / 2
    assert rising[0] == falling[0] == (rising[0][0], middle)
    assert TOP < rising[2][1] < rising[1][1] < middle < falling[1][1] < falling[2][1] < TOP + HEIGHT
    assert LEFT < rising[0][0] < rising[1][0] < rising[2][0] < LEFT + WIDTH


def test_lines_stay_distinct(tmp_path):
    panel = drawn(plot_probabilities, HISTORY, tmp_path)[1]
    groups = [group for group in panel.iter(f"{SVG}g") if group.get("class") == "series"]
    styles = {(path.get("stroke"), path.get("stroke-dasharray")) for group in groups for path in group}
    styles.discard((None, None))
    assert len(styles) == 10


def test_a_gap_breaks_a_line_and_a_lone_value_is_a_dot(tmp_path):
    values = [1.0, math.nan, 2.0, 3.0, math.inf, math.nan]
    (panel,) = drawn(plot_curves, {"loss": {"epochs": list(range(6)), "series": {"dev": values}}}, tmp_path)
    assert sorted(map(len, curves(panel)[0])) == [1, 2]
    (panel,) = drawn(plot_curves, {"loss": {"epochs": [0], "series": {"dev": [0.5]}}}, tmp_path)
    assert [len(piece) for piece in curves(panel)[0]] == [1]


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 0.0], [1e308, -1e308], [5e-324, 0.0], [7.0], [1e9, 1e9 + 1]])
def test_any_values_give_a_scale(values, tmp_path):
    history = {"loss": {"epochs": list(range(len(values))), "series": {"train": values}}}
    (panel,) = drawn(plot_curves, history, tmp_path)
    points = [point for piece in curves(panel)[0] for point in piece]
    assert len(points) == sum(map(math.isfinite, values))
    assert all(TOP <= y <= TOP + HEIGHT and LEFT <= x <= LEFT + WIDTH for x, y in points)


@pytest.mark.parametrize(
    ("low", "high", "whole", "ticks"),
    [
        (-0.03, 1.03, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.2, 0.29, False, [0.2, 0.22, 0.24, 0.26, 0.28]),
        (0, 2, True, [0, 1, 2]),
        (0, 29, True, [0, 5, 10, 15, 20, 25]),
        (3, 3, True, [3]),
    ],
)
def test_ticks_are_round(low, high, whole, ticks):
    assert _ticks(low, high, whole) == pytest.approx(ticks)


def test_limits_leave_air():
    assert _limits([[1.0, 2.0], [math.nan]], None) == pytest.approx((0.97, 2.03))
    assert _limits([[5.0]], (0, 1)) == pytest.approx((-0.03, 1.03))


@pytest.mark.parametrize(("panels", "columns"), [(0, 1), (1, 1), (4, 4), (5, 3), (7, 4), (9, 3)])
def test_grid_is_tidy(panels, columns):
    assert _columns(panels) == columns


def test_panels_do_not_overlap(tmp_path):
    history = {f"panel {i}": {"epochs": [0], "series": {f"line {j}": [0.5] for j in range(3 * i)}} for i in range(9)}
    panels = drawn(plot_probabilities, history, tmp_path)
    corners = [tuple(map(int, panel.get("transform")[10:-1].split())) for panel in panels]
    for (x, y), panel in zip(corners, panels, strict=True):
        lowest = max(float(text.get("y")) for text in panel.iter(f"{SVG}text"))
        assert all(below >= y + lowest for left, below in corners if left == x and below > y)


def test_no_plotting_library_is_imported(tmp_path):
    code = (
        "import sys; from util.plots import plot_curves;"
        f"plot_curves({{'loss': {{'epochs': [0], 'series': {{}}}}}}, {str(tmp_path / 'a.svg')!r});"
        "assert not {'matplotlib', 'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_other_suffix_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"should end in \.svg"):
        plot_curves(HISTORY, tmp_path / "a.jpeg")


def test_an_axis_that_is_no_epoch_has_numbers_between_whole_ones():
    panel = {"score": {"epochs": [0, 0.5, 1], "series": {"f1": [3, 2, 1]}}}
    text, epochs = panels_svg(panel, x_label="level"), panels_svg(panel)
    assert ">level<" in text and ">0.2<" in text and ">epoch<" not in text
    assert ">epoch<" in epochs and ">0.2<" not in epochs
