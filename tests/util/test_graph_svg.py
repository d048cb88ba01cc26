"""Pictures of graphs: everything is drawn, nothing overlaps, and any text is allowed."""

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from util.graph_svg import HEADING, LABEL, NOTE, Edge, Node, draw, text_width

SVG = "{http://www.w3.org/2000/svg}"
PALETTE = {"plain": ("#ffffff", "#000000"), "loud": ("#ffeecc", "#aa5500")}
NODES = [
    Node("a", "A", "plain"),
    Node("b", "B\nfirst note\nsecond note", "plain", "left"),
    Node("c", "C", "loud", "left"),
    Node("d", "D", "loud", "right"),
    Node("e", "E", "plain"),
    Node("alone", "Alone", "plain"),
]
EDGES = [
    Edge("a", "b"),
    Edge("a", "c", "port"),
    Edge("b", "c", "other"),
    Edge("b", "d", style="dashed"),
    Edge("c", "d", style="dotted", kind="plain"),
    Edge("a", "e"),
    Edge("d", "e"),
]


class Picture:
    """The geometry of an SVG, read back: boxes as (left, top, right, bottom), edges as lists of points."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.view = tuple(map(float, self.root.get("viewBox").split()))
        graph = self.root.find(f"{SVG}g")
        self.shift = tuple(map(float, re.findall(r"[-\d.]+", graph.get("transform"))))
        parts = {kind: [g for g in graph if g.get("class") == kind] for kind in ("group", "node", "edge")}
        self.nodes = {g.get("data-name"): self._box(g) for g in parts["node"]}
        self.groups = {g.find(f"{SVG}text").text: self._box(g) for g in parts["group"]}
        self.edges = [self._points(g.find(f"{SVG}path").get("d")) for g in parts["edge"]]
        self.lines = [g.find(f"{SVG}path") for g in parts["edge"]]
        self.node_texts = {g.get("data-name"): g.findall(f"{SVG}text") for g in parts["node"]}
        self.texts = [element.text for element in self.root.iter(f"{SVG}text")]

    def _box(self, group):
        x, y, width, height = (float(group.find(f"{SVG}rect").get(key)) for key in ("x", "y", "width", "height"))
        x, y = x + self.shift[0], y + self.shift[1]
        return x, y, x + width, y + height

    def _points(self, path):
        """Points along a path of M, H and C commands."""
        points = []
        for command, text in re.findall(r"([MHC])([^MHC]*)", path):
            numbers = [float(number) for number in text.split()]
            if command == "M":
                points.append(tuple(numbers))
                continue
            x, y = points[-1]
            x1, y1, x2, y2, x3, y3 = numbers if command == "C" else (x, y, numbers[0], y, numbers[0], y)
            for t in (i / 12 for i in range(1, 13)):
                a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
                points.append((a * x + b * x1 + c * x2 + d * x3, a * y + b * y1 + c * y2 + d * y3))
        return [(x + self.shift[0], y + self.shift[1]) for x, y in points]

    def check(self):
        """Nothing overlaps or leaves the picture, and no edge runs through a box."""
        for boxes in (self.nodes, self.groups):
            for (one, a), (two, b) in combinations(boxes.items(), 2):
                assert not _overlap(a, b), (one, two)
        for name, box in self.nodes.items():
            for label, group in self.groups.items():
                assert _inside(box, (group[0], group[1] + 25, *group[2:])) or not _overlap(box, group), (name, label)
        for box in [*self.nodes.values(), *self.groups.values()]:
            assert _inside(box, (0, 0, *self.view[2:]))
        for points in self.edges:
            for x, y in points:
                assert _inside((x, y, x, y), (0, 0, *self.view[2:]))
                for name, (left, top, right, bottom) in self.nodes.items():
                    assert not (left + 1 < x < right - 1 and top + 1 < y < bottom - 1), name
        self._check_texts()

    def _check_texts(self):
        """The texts of a box are inside it and do not overlap."""
        for name, texts in self.node_texts.items():
            places = [self._text_box(text) for text in texts]
            assert all(_inside(place, self.nodes[name]) for place in places), name
            assert not any(_overlap(a, b) for a, b in combinations(places, 2)), name

    def _text_box(self, text):
        size = float(text.get("font-size"))
        width = text_width(text.text, size)
        left = float(text.get("x")) + self.shift[0] - (width / 2 if text.get("text-anchor") == "middle" else 0)
        base = float(text.get("y")) + self.shift[1]
        return left, base - 0.75 * size, left + width, base + 0.2 * size


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _inside(box, frame, slack=0.11):
    # Coordinates are rounded to a tenth.
    low = box[0] >= frame[0] - slack and box[1] >= frame[1] - slack
    return low and box[2] <= frame[2] + slack and box[3] <= frame[3] + slack


def test_everything_is_drawn_and_nothing_overlaps():
    svg = draw(NODES, EDGES, PALETTE, groups={"left": "Left cell"}, title="A title", legend=[("loud", "Loud")])
    picture = Picture(svg)
    picture.check()
    assert set(picture.nodes) == {node.name for node in NODES}
    assert set(picture.groups) == {"Left cell", "right"}
    assert len(picture.edges) == len(EDGES)
    shown = {line for node in NODES for line in node.label.split("\n")} | {"port", "other", "A title", "Loud"}
    assert shown <= set(picture.texts)
    assert picture.root.find(f"{SVG}title").text == "A title"


def test_edges_go_from_left_to_right_between_their_boxes():
    picture = Picture(draw(NODES, EDGES, PALETTE))
    found = set()
    for points in picture.edges:
        (x, y), (end, level) = points[0], points[-1]
        source = [n for n, b in picture.nodes.items() if abs(b[2] - x) < 0.2 and b[1] <= y <= b[3]]
        # The line ends inside the arrow head.
        target = [n for n, b in picture.nodes.items() if abs(b[0] - end - 6) < 0.2 and b[1] <= level <= b[3]]
        assert len(source) == len(target) == 1
        assert picture.nodes[source[0]][2] < picture.nodes[target[0]][0]
        found.add((source[0], target[0]))
    assert found == {(edge.source, edge.target) for edge in EDGES}


def test_edge_styles_and_colours():
    lines = Picture(draw(NODES, EDGES, PALETTE)).lines
    assert sorted(line.get("stroke-dasharray") for line in lines) == sorted(["1.5 4", "6 4", *["none"] * 5])
    dotted = next(line for line in lines if line.get("stroke-dasharray") == "1.5 4")
    assert dotted.get("stroke") == "#000000"  # the edge's own kind, not that of its source


def test_equal_graphs_give_equal_text():
    assert draw(NODES, EDGES, PALETTE, title="t") == draw(list(NODES), list(EDGES), dict(PALETTE), title="t")


def test_crossings_are_removed():
    nodes = [Node(name, name, "plain") for name in "abcxyz"]
    picture = Picture(draw(nodes, [Edge("a", "z"), Edge("b", "y"), Edge("c", "x")], PALETTE))
    left = sorted("abc", key=lambda name: picture.nodes[name][1])
    right = sorted("xyz", key=lambda name: picture.nodes[name][1])
    assert [{"a": "z", "b": "y", "c": "x"}[name] for name in left] == right


def test_any_text_is_escaped():
    rude = "<&\">' \x00 日本 "
    node = Node(rude, rude, "plain", rude)
    picture = Picture(draw([node, Node("b", "b", "plain")], [Edge(rude, "b", rude)], PALETTE, title=rude))
    # XML cannot represent a NUL, so it is left out.
    assert picture.texts.count(rude.replace("\x00", "")) == 4
    picture.check()


def test_long_labels_make_wide_boxes():
    long = "W" * 60
    nodes = [Node("a", long, "plain", "g"), Node("b", "b\n" + long, "plain", "g"), Node("c", "c", "plain", "h")]
    svg = draw(nodes, [Edge("a", "b", long), Edge("b", "c")], PALETTE, groups={"h": long}, title=long * 3)
    picture = Picture(svg)
    picture.check()
    assert picture.groups[long][2] - picture.groups[long][0] > text_width(long, 12)
    assert picture.view[2] > text_width(long * 3, HEADING)


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [
        ("ab", ["ab", "ba"]),
        ("a", ["aa"]),
        ("aa", []),
        ("a", ["ab"]),
    ],
)
def test_what_is_no_acyclic_graph_is_refused(nodes, edges):
    with pytest.raises(ValueError):
        draw([Node(name, name, "plain") for name in nodes], [Edge(*edge) for edge in edges], PALETTE)


def test_groups_in_a_cycle_are_refused():
    nodes = [Node("a", "a", "plain", "g"), Node("b", "b", "plain"), Node("c", "c", "plain", "g")]
    with pytest.raises(ValueError, match="groups"):
        draw(nodes, [Edge("a", "b"), Edge("b", "c")], PALETTE)


# Advance width of each character from space to tilde in DejaVu Sans, one of the widest fonts, in thousandths of an em.
ADVANCES = [
    *(318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337),
    *(636, 636, 636, 636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531),
    *(1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863, 748, 787),
    *(603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500),
    *(500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612),
    *(635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838),
]


def test_no_common_font_is_wider_than_the_estimate():
    words = ["ScaleDotAttn", "LinearGLU", "ConcatFC", "Reduction Output", "Skeleton_4", "C12_S34", "mmmWWW", "fill"]
    words += ["QOGD", "concat, LayerNorm, ReLU", "Image_1", "abcdefghijklmnopqrstuvwxyz", "0123456789", "a+b=c <&>"]
    for word in words:
        for size in (LABEL, NOTE):
            drawn = size * sum(ADVANCES[ord(letter) - ord(" ")] for letter in word) / 1000
            assert drawn <= text_width(word, size), word
