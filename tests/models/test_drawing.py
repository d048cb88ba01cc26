"""Pictures of fusion networks: the worked examples in detail, many random ones for overlaps."""

import random
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from models.bmnas.drawing import fusion_graph_svg
from tests.util.test_graph_svg import Picture

OPERATIONS = ("Sum", "ScaleDotAttn", "LinearGLU", "ConcatFC")
IMDB_NAMES = ["Image_1", "Image_2", "Image_3", "Image_4", "Text_1", "Text_2"]


def skips(*indices):
    return [("skip", index) for index in indices]


def step(indices, operations, concat):
    return SimpleNamespace(inner_edges=skips(*indices), inner_steps=operations, inner_concat=concat)


IMDB = SimpleNamespace(
    edges=skips(2, 5, 3, 5),
    steps=[step((0, 1), ["ScaleDotAttn"], [2]), step((1, 0), ["LinearGLU"], [2])],
    concat=[6, 7],
)
NTU = SimpleNamespace(
    edges=skips(2, 7, 2, 3),
    steps=[step((0, 1, 2, 0), ["LinearGLU"] * 2, [2, 3]), step((0, 1, 2, 0), ["ScaleDotAttn"] * 2, [2, 3])],
    concat=[8, 9],
)


def random_genotype(seed):
    """A random genotype with 4-8 inputs, 1-4 steps that may be chained, and 1-4 inner steps."""
    rng = random.Random(seed)
    inputs, steps, inner = rng.randint(4, 8), rng.randint(1, 4), rng.randint(1, 4)
    kept, outputs = rng.randint(1, inner), rng.randint(1, steps)

    def pick(states):
        return [("none" if rng.random() < 0.05 else "skip", i) for i in rng.sample(range(states), 2)]

    edges, cells = [], []
    for i in range(steps):
        edges += pick(inputs + i * (seed % 2))
        inner_edges = [edge for k in range(inner) for edge in pick(2 + k)]
        concat = list(range(2 + inner - kept, 2 + inner))
        operations = [rng.choice(OPERATIONS) for _ in range(inner)]
        cells.append(SimpleNamespace(inner_edges=inner_edges, inner_steps=operations, inner_concat=concat))
    concat = list(range(inputs + steps - outputs, inputs + steps))
    return SimpleNamespace(edges=edges, steps=cells, concat=concat)


def ends(svg):
    """The arrows of a picture as (source, target) names; only the names "input <index>" contain a space."""
    pairs = re.findall(r'data-ends="([^"]*)"', svg)
    return [tuple(re.findall(r"input \d+|\S+", pair)) for pair in pairs]


def fill(svg, name):
    return re.search(rf'data-name="{re.escape(name)}"><rect [^>]*fill="([^"]*)"', svg)[1]


def ports(svg, name):
    """Port labels of a box from top to bottom, with the source of each arrow."""
    node = next(g for g in ElementTree.fromstring(svg).iter() if g.get("data-name") == name)
    texts = [text for text in node if text.get("text-anchor") == "start"]
    return {float(text.get("y")) - 3.5: text.text for text in texts}


def port_sources(svg, name):
    """Port label -> name of the box whose arrow enters there."""
    labels = ports(svg, name)
    found = {}
    for edge in (g for g in ElementTree.fromstring(svg).iter() if g.get("class") == "edge"):
        source, target = edge.get("data-ends").rsplit(" ", 1)
        if target == name:
            level = float(re.match(r"M[-\d.]+ ([-\d.]+)", edge[1].get("d"))[1])
            found[min(labels.items(), key=lambda item: abs(item[0] - level))[1]] = source
    return found


def test_mm_imdb_example():
    svg = fusion_graph_svg(IMDB, IMDB_NAMES, "MM-IMDB")
    picture = Picture(svg)
    picture.check()
    assert {*IMDB_NAMES, "ScaleDotAttn", "LinearGLU", "C1_S1", "C2_S1", "x", "y", "z", "Reduction Output"} <= set(
        picture.texts
    )
    assert set(picture.groups) == {"Image", "Text", "Cell 1", "Cell 2"}
    assert "Concat + FC" not in picture.texts
    assert sorted(ends(svg)) == sorted(
        [("input 2", "1.x"), ("input 5", "1.y"), ("input 3", "2.x"), ("input 5", "2.y")]
        + [(f"{i}.{a}", f"{i}.{b}") for i in (1, 2) for a, b in ("x0", "y0", "0z", "xz")]
        + [("1.z", "output"), ("2.z", "output")]
    )
    assert port_sources(svg, "1.0") == {"q": "1.x", "kv": "1.y"}
    assert port_sources(svg, "2.0") == {"1": "2.y", "2": "2.x"}


def test_ntu_example():
    svg = fusion_graph_svg(NTU)
    picture = Picture(svg)
    picture.check()
    assert {"Input_1", "Input_8", "C1_S2", "C2_S2"} <= set(picture.texts)
    assert picture.texts.count("Concat + FC") == 2
    assert picture.texts.count("residual") == 1 and "none (zero)" not in picture.texts
    assert {("1.0", "1.merge"), ("1.1", "1.merge"), ("1.merge", "1.z"), ("1.x", "1.z")} <= set(ends(svg))
    assert port_sources(svg, "2.1") == {"q": "2.0", "kv": "2.x"}
    assert [line.get("stroke-dasharray") for line in picture.lines].count("6 4") == 2


def test_colours_tell_modalities_and_unused_inputs():
    svg = fusion_graph_svg(IMDB, IMDB_NAMES)
    grey, image, text = fill(svg, "input 0"), fill(svg, "input 2"), fill(svg, "input 5")
    assert len({grey, image, text}) == 3
    assert fill(svg, "input 3") == image and fill(svg, "input 1") == fill(svg, "input 4") == grey


def test_steps_whose_output_is_not_concatenated_are_grey_unless_a_later_step_reads_them():
    cell = step((0, 1), ["Sum"], [2])
    chained = fusion_graph_svg(SimpleNamespace(edges=skips(0, 1, 2, 4), steps=[cell, cell], concat=[5]))
    loose = fusion_graph_svg(SimpleNamespace(edges=skips(0, 1, 2, 3), steps=[cell, cell], concat=[5]))
    assert ("1.z", "2.y") in ends(chained)
    assert fill(chained, "1.z") != fill(loose, "1.z") == fill(loose, "input 0")


def test_none_is_dotted_and_does_not_count_as_use():
    genotype = SimpleNamespace(edges=[("none", 0), ("skip", 1)], steps=[step((0, 1), ["Sum"], [2])], concat=[2])
    svg = fusion_graph_svg(genotype)
    picture = Picture(svg)
    assert [line.get("stroke-dasharray") for line in picture.lines].count("1.5 4") == 1
    assert "none (zero)" in picture.texts
    assert fill(svg, "input 0") != fill(svg, "input 1")


def test_concatenation_may_reach_back_to_inputs():
    genotype = SimpleNamespace(edges=skips(0, 1), steps=[step((0, 1), ["Sum"], [2])], concat=[2, 3])
    assert {("input 2", "output"), ("1.z", "output")} <= set(ends(fusion_graph_svg(genotype)))


def test_names_can_come_with_the_genotype_and_must_fit_it():
    named = SimpleNamespace(**vars(IMDB), inputs=tuple(IMDB_NAMES))
    assert fusion_graph_svg(named) == fusion_graph_svg(IMDB, IMDB_NAMES)
    with pytest.raises(ValueError, match="6 input features"):
        fusion_graph_svg(IMDB, ["Image_1"])


def test_equal_genotypes_give_equal_pictures():
    assert fusion_graph_svg(NTU, title="NTU") == fusion_graph_svg(NTU, title="NTU")


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_random_genotypes_never_overlap(start):
    for seed in range(start, start + 20):
        genotype = random_genotype(seed)
        svg = fusion_graph_svg(genotype, title=f"genotype {seed}")
        picture = Picture(svg)
        picture.check()
        inner = sum(2 * len(cell.inner_steps) for cell in genotype.steps)
        tails = sum(len(c.inner_concat) + 1 if len(c.inner_concat) > 1 else 1 for c in genotype.steps)
        steps = len(genotype.steps)
        assert len(picture.edges) == 2 * steps + inner + tails + steps + len(genotype.concat), seed
