"""Plots of a run: written whole, in the right format, with the right panels."""

from xml.etree import ElementTree

import pytest

from util.cli import UserError
from util.plots import _figure, plot_curves, plot_probabilities

pytest.importorskip("matplotlib")

HISTORY = {
    "C1_S1": {"epochs": [0, 1, 2], "series": {"Sum": [0.5, 0.6, 1.0], "_hidden $x": [0.5, 0.4, 0.0]}},
    "cell 1": {"epochs": [0, 1, 2], "series": {f"Input_{i}": [i / 10] * 3 for i in range(10)}},
    "entropy": {"epochs": [0, 1, 2], "series": {"edges": [2.0, 1.5, 1.2]}, "ylim": None},
}


@pytest.mark.parametrize("plot", [plot_probabilities, plot_curves])
def test_files_are_written_whole_by_suffix(plot, tmp_path):
    plot(HISTORY, tmp_path / "new" / "a.svg", title="<title> & $more")
    plot(HISTORY, tmp_path / "new" / "a.PNG")
    assert ElementTree.parse(tmp_path / "new" / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "new" / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.PNG", "a.svg"]


def test_panels_share_the_scale_of_probabilities_but_for_the_entropy():
    figure = _figure(HISTORY, "", default_limits=(0, 1))
    first, second, entropy = figure.axes
    assert first.get_ylim() == second.get_ylim() == (-0.03, 1.03)
    assert entropy.get_ylim()[1] > 1.9
    assert [axes.get_title() for axes in figure.axes] == list(HISTORY)
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["Sum", "_hidden $x"]


def test_lines_stay_distinct():
    lines = _figure(HISTORY, "", default_limits=(0, 1)).axes[1].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 10


@pytest.mark.parametrize(("panels", "places"), [(0, 1), (1, 1), (4, 4), (5, 6), (7, 8), (9, 9)])
def test_grid_is_tidy(panels, places):
    history = {f"panel {i}": {"epochs": [0], "series": {"a": [0.5]}} for i in range(panels)}
    axes = _figure(history, "", default_limits=(0, 1)).axes
    assert len(axes) == places
    assert [each.axison for each in axes] == [True] * panels + [False] * (places - panels)


def test_pyplot_is_left_alone(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from util.plots import plot_curves; assert 'matplotlib' not in sys.modules;"
        f"plot_curves({{'loss': {{'epochs': [0], 'series': {{}}}}}}, {str(tmp_path / 'a.svg')!r});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_suffix_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"\.svg or \.png"):
        plot_curves(HISTORY, tmp_path / "a.jpeg")
