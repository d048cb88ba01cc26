"""Draws a directed acyclic graph as a standalone SVG, in layers from left to right.

Boxes may be collected in groups. Each group is laid out separately and then treated as one big box in the layout of the
full graph, so nothing can overlap. Long edges run in their own lanes between the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any
from xml.sax.saxutils import escape, quoteattr

DASHES = {"solid": "none", "dashed": "6 4", "dotted": "1.5 4"}
INK, MUTED = "#1f2328", "#5c636b"
FONT = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
LABEL, NOTE, HEADING = 13, 10, 16  # text sizes
MARGIN, PADDING, HEADER = 20, 14, 30  # around the picture, inside a group, height of a group's label
SPACE, LANE, PORT = 16, 12, 15  # between two boxes of a layer, next to a lane, between edges into one box


@dataclass(frozen=True)
class Node:
    """A box in the colours of ``kind``, inside the container ``group``. Only the first line of ``label`` is large."""

    name: str
    label: str
    kind: str
    group: str | None = None


@dataclass(frozen=True)
class Edge:
    """An arrow. Its label is inside the target box, where the arrow enters. By default it has its source's colour."""

    source: str
    target: str
    label: str = ""
    style: str = "solid"  # a key of DASHES
    kind: str | None = None


def text_width(text: str, size: float) -> float:
    """An upper bound for the width of ``text`` in any common sans-serif font."""
    wide = sum(letter in "mwMW@%+=<>~^&#" or ord(letter) > 126 for letter in text)
    narrow = sum(letter in " .,:;'|!()[]/\\-`fijltrI" for letter in text)
    capital = sum(letter in "ABCDEFGHJKLNOPQRSTUVXYZ" for letter in text)
    return size * (wide + 0.43 * narrow + 0.79 * capital + 0.64 * (len(text) - wide - narrow - capital))


def draw(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    palette: Mapping[str, tuple[str, str]],
    *,
    groups: Mapping[str, str] | None = None,
    title: str = "",
    legend: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the SVG text of a graph. Equal arguments give equal text.

    Args:
        nodes: The boxes. Their order is kept within a layer, unless another order has fewer crossings.
        edges: The arrows, without cycles between boxes or between groups.
        palette: Kind -> (fill, outline).
        groups: Name of a group -> label of its container (by default the name).
        title: Heading and accessible title.
        legend: Pairs (kind or edge style, text), drawn below the graph.

    Raises:
        ValueError: names are not distinct, an edge is invalid, or there is a cycle.
    """
    kinds = {node.name: node.kind for node in nodes}
    if len(kinds) != len(nodes) or not all({e.source, e.target} <= {*kinds} and e.source != e.target for e in edges):
        raise ValueError("nodes need distinct names, and an edge must connect two different nodes")
    labels = {node.group: (groups or {}).get(node.group, node.group) for node in nodes if node.group is not None}
    frames, boxes, routes, size = _place(nodes, edges, labels)
    body = []
    for group, (x, y, width, height) in frames.items():
        name = _text(x + PADDING, y + 19, labels[group], 12, MUTED, "start")
        body.append(f'<g class="group">{_rect(x, y, width, height, "#f7f8fa", "#c9ced6", 10)}{name}</g>')
    # Dotted arrows are drawn first, so that they do not interrupt more important lines at crossings.
    for i in sorted(routes, key=lambda i: edges[i].style != "dotted"):
        body.append(_edge_svg(edges[i], routes[i], palette[edges[i].kind or kinds[edges[i].source]][1]))
    for node in nodes:
        ports = [(routes[i][-1][1], edge.label) for i, edge in enumerate(edges) if edge.target == node.name]
        body.append(_node_svg(node, boxes[node.name], ports, palette[node.kind]))
    return _document(body, size, title, legend, palette)


class _Layers:
    """Layered layout: a ``box()`` for every name, ``routes`` (link -> points) and the total ``size``."""

    def __init__(self, sizes, links, gap):
        """Compute the layout.

        Args:
            sizes: Box -> (width, height).
            links: Link -> (source, target, leaves at, enters at). A source or target of None is outside. The last two
                are fractions of a box's height; None: evenly spread.
            gap: Distance between layers.
        """
        self.sizes, self.links, self.gap = dict(sizes), links, gap
        self.layers, self.chains = self._rank(list(sizes))
        self._sort()
        self._spread()
        self.y = self._level()
        self.fit(0)

    def box(self, name: Any, x: float = 0.0, y: float = 0.0) -> tuple[float, float, float, float]:
        """(x, y, width, height) of a box, moved by x and y. All boxes of a layer are as wide as the layer."""
        left, width = self.column[name]
        return x + left, y + self.y[name], width, self.sizes[name][1]

    def _rank(self, boxes):
        """Layers by longest path, and each link's chain of [box, fraction of its height], with empty boxes as lanes."""
        rank = dict.fromkeys(boxes, 0)
        for _ in range(len(boxes) + 1):
            late = [(a, b) for a, b, *_ in self.links.values() if None not in (a, b) and rank[b] <= rank[a]]
            rank.update((b, rank[a] + 1) for a, b in late)
        if late:
            raise ValueError("the graph, or the graph of its groups, has a cycle")
        layers, chains = [[box for box in boxes if rank[box] == i] for i in range(max(rank.values()) + 1)], {}
        for key, (source, target, leave, enter) in self.links.items():
            lanes = [("lane", key, i) for i in range(rank.get(source, -1) + 1, rank.get(target, len(layers)))]
            for lane in lanes:
                layers[lane[2]].append(lane)
                self.sizes[lane] = (0, 0)
            stops = ([source, leave], *([lane, 0.5] for lane in lanes), [target, enter])
            chains[key] = [stop for stop in stops if stop[0] is not None]
        return layers, chains

    def _hops(self):
        return [(a, s, b, t or 0.5) for chain in self.chains.values() for (a, s), (b, t) in pairwise(chain)]

    def _order(self):
        return {box: i for layer in self.layers for i, box in enumerate(layer)}

    def _sort(self):
        """Order the layers by barycentres in alternating sweeps, and keep the order with the fewest crossings."""
        best, fewest, hops = [list(layer) for layer in self.layers], self._crossings(), self._hops()
        for sweep in range(8):
            for layer in self.layers[:: -1 if sweep % 2 else 1]:
                at = self._order()
                ends: dict[Any, list[float]] = {box: [] for box in layer}
                for a, s, b, t in hops:
                    box, end = (a, at[b] + t) if sweep % 2 else (b, at[a] + s)
                    ends.get(box, []).append(end)
                means = {box: sum(end) / len(end) if end else at[box] for box, end in ends.items()}
                layer.sort(key=means.get)
            if (crossings := self._crossings()) < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def _crossings(self):
        at, layer = self._order(), {box: i for i, layer in enumerate(self.layers) for box in layer}
        lines = [(layer[a], at[a] + s, at[b] + t) for a, s, b, t in self._hops()]
        return sum(i == j and (a - c) * (b - d) < 0 for (i, a, b), (j, c, d) in combinations(lines, 2))

    def _spread(self):
        """Let the links into a box enter one below another, in the order of their sources."""
        at = self._order()
        for target in at:
            chains = [chain for chain in self.chains.values() if chain[-1] == [target, None]]
            chains.sort(key=lambda chain: at[chain[-2][0]] + chain[-2][1] if len(chain) > 1 else -1)
            for i, chain in enumerate(chains):
                chain[-1][1] = (i + 1) / (len(chains) + 1)

    def _level(self):
        """Vertical positions. Every box is as close to the ends of its links as its neighbours in the layer allow."""
        y: dict[Any, float] = dict.fromkeys(self.sizes, 0.0)
        pulls: tuple[dict[Any, list[Any]], dict[Any, list[Any]]] = ({}, {})
        for a, s, b, t in self._hops():
            # A hop between two lanes weighs more, so that long edges run straight.
            weight = 1 if self.sizes[a][1] or self.sizes[b][1] else 16
            offset = s * self.sizes[a][1] - t * self.sizes[b][1]
            pulls[0].setdefault(b, []).append((a, offset, weight))
            pulls[1].setdefault(a, []).append((b, -offset, weight))
        for sides in (pulls[:1], pulls[1:]) * 4 + (pulls,) * 40:
            for layer in self.layers[:: -1 if sides == pulls[1:] else 1]:
                wanted = {box: (y[box], 0.01) for box in layer}
                for box in layer:
                    ends = [(y[end] + offset, weight) for side in sides for end, offset, weight in side.get(box, ())]
                    if ends:
                        total = sum(weight for _, weight in ends)
                        wanted[box] = (sum(height * weight for height, weight in ends) / total, total)
                y.update(self._settle(layer, wanted))
        return {box: height - min(y.values()) for box, height in y.items()}

    def _settle(self, layer, wanted):
        """The heights closest to the ``wanted`` (height, weight) that keep order and distance (isotonic regression)."""
        blocks, offsets, below = [], {}, 0.0
        for box, after in zip(layer, [*layer[1:], None], strict=True):
            height, weight = wanted[box]
            blocks.append(([box], (height - below) * weight, weight))
            while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] > blocks[-1][1] / blocks[-1][2]:
                last, before = blocks.pop(), blocks.pop()
                blocks.append(tuple(a + b for a, b in zip(before, last, strict=True)))
            offsets[box] = below
            below += self.sizes[box][1] + (SPACE if self.sizes[box][1] and after and self.sizes[after][1] else LANE)
        return {box: total / weight + offsets[box] for boxes, total, weight in blocks for box in boxes}

    def fit(self, room):
        """Set columns and routes; the gaps (or the only column) grow until the layout is ``room`` wide."""
        height = max(self.y[box] + self.sizes[box][1] for box in self.sizes)
        widths = [max(self.sizes[box][0] for box in layer) for layer in self.layers]
        # The higher the picture, the steeper the links, so they need more room to bend.
        gaps = [self.gap + min(self.gap, 0.1 * height)] * (len(widths) - 1)
        grow = gaps or widths
        grow[:] = [width + max(0, room - sum(widths) - sum(gaps)) / len(grow) for width in grow]
        self.column: dict[Any, tuple[float, float]] = {}
        self.routes: dict[Any, list[tuple[float, float]]] = {}
        self.size = (sum(widths) + sum(gaps), height)
        for i, layer in enumerate(self.layers):
            self.column.update((box, (sum(widths[:i]) + sum(gaps[:i]), widths[i])) for box in layer)
        for key, chain in self.chains.items():
            source, target, *_ = self.links[key]
            stops = [(*self.column[box], self.y[box] + share * self.sizes[box][1]) for box, share in chain]
            points = [(x, y) for left, width, y in stops for x in (left, left + width)]
            # A link runs from the right side of its source to the left side of its target.
            self.routes[key] = points[source is not None : len(points) - (target is not None)]


def _place(nodes, edges, labels):
    """Frames of the groups, boxes of the nodes (x, y, width, height), points of the edges, and total size."""
    home = {node.name: node.group for node in nodes}
    ends = {i: (edge.source, edge.target) for i, edge in enumerate(edges)}
    sizes = {node.name: _node_size(node, [edge.label for edge in edges if edge.target == node.name]) for node in nodes}
    outer_sizes = {(None, name): size for name, size in sizes.items() if home[name] is None}
    inner: dict[str, _Layers] = {}
    leave: dict[int, float] = {}
    enter: dict[int, float] = {}
    for group, label in labels.items():
        cut = {i: [box if home[box] == group else None for box in pair] for i, pair in ends.items()}
        links = {i: (*pair, 0.5, None) for i, pair in cut.items() if pair != [None, None]}
        inner[group] = part = _Layers({name: size for name, size in sizes.items() if home[name] == group}, links, 30)
        height = part.size[1] + HEADER + PADDING
        outer_sizes[group, None] = max(part.size[0], text_width(label, LABEL)) + 2 * PADDING, height
        leave.update((i, (part.routes[i][-1][1] + HEADER) / height) for i in links if cut[i][1] is None)
        enter.update((i, (part.routes[i][0][1] + HEADER) / height) for i in links if cut[i][0] is None)
    tops = {name: (group, name if group is None else None) for name, group in home.items()}
    links = {i: (tops[a], tops[b], leave.get(i, 0.5), enter.get(i)) for i, (a, b) in ends.items() if tops[a] != tops[b]}
    outer = _Layers(outer_sizes, links, 60)
    frames = {group: outer.box((group, None)) for group in labels}
    boxes = {name: outer.box((None, name)) for name in sizes if home[name] is None}
    routes = {i: outer.routes.get(i, []) for i in ends}
    for group, part in inner.items():
        x, y = frames[group][0] + PADDING, frames[group][1] + HEADER
        part.fit(frames[group][2] - 2 * PADDING)
        boxes.update((name, part.box(name, x, y)) for name in sizes if home[name] == group)
        for i, points in part.routes.items():
            moved = [(left + x, top + y) for left, top in points]
            routes[i] = moved + routes[i] if home[ends[i][0]] == group else routes[i] + moved
    return frames, boxes, routes, outer.size


def _node_size(node, ports):
    name, *notes = node.label.split("\n")
    text = max([text_width(name, LABEL), *(text_width(note, NOTE) for note in notes)])
    port = max([text_width(label, NOTE) for label in ports], default=0)
    return text + port + 24, max(16 + 14 * (1 + len(notes)), PORT * (len(ports) + 1))


def _text(x, y, text, size=LABEL, colour=INK, anchor="middle"):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, fill: str, outline: str, radius: float = 6) -> str:
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}"'
    return f'<rect {shape} fill="{fill}" stroke="{outline}"/>'


def _node_svg(node, box, ports, colours):
    x, y, width, height = box
    name, *notes = node.label.split("\n")
    port = max([text_width(label, NOTE) for _, label in ports], default=0)
    middle, line = x + (width + port) / 2, y + height / 2 - 7 * len(notes) + 4.5
    parts = [_rect(*box, *colours), _text(middle, line, name)]
    parts += [_text(middle, line + 14 * (i + 1), note, NOTE, MUTED) for i, note in enumerate(notes)]
    parts += [_text(x + 6, level + 3.5, label, NOTE, MUTED, "start") for level, label in ports if label]
    return f'<g class="node" data-name={quoteattr(node.name)}>{"".join(parts)}</g>'


def _edge_svg(edge, points, colour):
    """A line that bends only between layers, and an arrow head, drawn as a shape since markers render differently."""
    (x, y), (end, level) = points[0], points[-1]
    path = f"M{x:.1f} {y:.1f}"
    for right, to in [*points[1:-1], (end - 6, level)]:
        middle = (x + right) / 2
        bend = f" C{middle:.1f} {y:.1f} {middle:.1f} {to:.1f} {right:.1f} {to:.1f}"
        path += f" H{right:.1f}" if abs(to - y) < 0.05 else bend
        x, y = right, to
    line = (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{DASHES[edge.style]}"/>'
    )
    head = f'<path d="M{end:.1f} {level:.1f} l-8 -4 v8 z" fill="{colour}"/>'
    return f'<g class="edge" data-ends={quoteattr(f"{edge.source} {edge.target}")}>{line}{head}</g>'


def _document(body, size, title, legend, palette):
    """The SVG document: heading, graph and legend on a white background, since the surrounding page may be dark."""
    needs = [54 + text_width(text, 12) for _, text in legend]
    width = 2 * MARGIN + max(size[0], sum(needs), text_width(title, HEADING))
    top = MARGIN + (HEADING + 14 if title else 0)
    bottom, x, keys = top + size[1] + MARGIN, (width - sum(needs)) / 2, []
    for (kind, text), need in zip(legend, needs, strict=True):
        line = f'<path d="M{x:.1f} {bottom + 8:.1f} h26" stroke="{INK}" stroke-dasharray="{DASHES.get(kind)}"/>'
        keys.append(line if kind in DASHES else _rect(x, bottom + 1, 26, 14, palette[kind][0], palette[kind][1], 4))
        keys.append(_text(x + 32, bottom + 12.5, text, 12, INK, "start"))
        x += need
    height = bottom + (16 + MARGIN if legend else 0)
    shape = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.1f} {height:.1f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {shape} font-family="{FONT}" role="img">',
        f"<title>{escape(title)}</title>",
        _rect(0.5, 0.5, width - 1, height - 1, "#ffffff", "#e3e6ea", 12),
        _text(width / 2, MARGIN + HEADING - 2, title, HEADING) if title else "",
        f'<g transform="translate({(width - size[0]) / 2:.1f} {top})">',
        *body,
        *("</g>", *keys, "</svg>"),
    ]
    # XML 1.0 cannot represent most control characters.
    return "\n".join("".join(c for c in line if c >= " ") for line in lines if line) + "\n"
