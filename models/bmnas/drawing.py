"""Draws a found fusion network in the style of the figures of BM-NAS (Yin et al., AAAI 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from util.graph_svg import Edge, Node, draw

if TYPE_CHECKING:
    from models.genotypes import FusionGenotype

# Fill and outline, after the Okabe-Ito palette, which colour-blind readers can distinguish.
PALETTE = {
    "modality 0": ("#d6e8f5", "#0072b2"),
    "modality 1": ("#fdebc8", "#b87a00"),
    "modality 2": ("#f4dfea", "#a8527f"),
    "modality 3": ("#fbdfd0", "#c04f00"),
    "modality 4": ("#e0f2fc", "#2f8fc4"),
    "port": ("#ffffff", "#4a5058"),
    "operation": ("#d5efe6", "#00805d"),
    "merge": ("#fbf8d0", "#8f8400"),
    "unused": ("#f1f1f1", "#b0b4b9"),
}
MODALITIES = 5
# Labels of the first and second argument of an operation, if not 1 and 2. Symmetric operations need none.
PORTS = {"ScaleDotAttn": ("q", "kv"), "FiLM": ("x", "condition")}
PORTS |= dict.fromkeys(("Sum", "Product", "Max", "Average"), ("", ""))
OUTPUT = "output"


def fusion_graph_svg(genotype: FusionGenotype, input_names: Sequence[str] | None = None, title: str = "") -> str:
    """Draw a genotype. Boxes without influence on the output are grey.

    Args:
        genotype: The genotype to draw.
        input_names: Labels of the input features, "<modality>_<number>". By default the genotype's ``inputs``, or
            Input_1, Input_2, ... if it has none.
        title: Heading of the picture.

    Returns:
        The SVG text.

    Raises:
        ValueError: the number of names is not the genotype's number of inputs.
    """
    steps = len(genotype.steps)
    inputs = genotype.concat[-1] + 1 - steps
    names = input_names or getattr(genotype, "inputs", ()) or [f"Input_{i + 1}" for i in range(inputs)]
    if len(names) != inputs:
        raise ValueError(f"the genotype has {inputs} input features, but {len(names)} names are given")
    nodes, groups = _input_nodes(names)
    edges = []
    states = [node.name for node in nodes]
    for i, step in enumerate(genotype.steps, start=1):
        for port, (op, index) in zip("xy", genotype.edges[2 * i - 2 : 2 * i], strict=True):
            edges.append(_edge(op, states[index], f"{i}.{port}"))
        inner_nodes, inner_edges = _cell(i, step)
        nodes, edges = nodes + inner_nodes, edges + inner_edges
        groups[f"cell {i}"] = f"Cell {i}"
        states.append(f"{i}.z")
    # Only the length of ``concat`` matters, since the cell concatenates its last states.
    nodes.append(Node(OUTPUT, "Reduction Output\nconcat, LayerNorm, ReLU", "merge"))
    edges += [Edge(state, OUTPUT) for state in states[-len(genotype.concat) :]]
    nodes, edges = _grey_unused(nodes, edges)
    return draw(nodes, edges, PALETTE, groups=groups, title=title, legend=_legend(nodes, edges))


def _input_nodes(names):
    """One box per feature, with one container and colour per modality."""
    modalities = list(dict.fromkeys(_modality(name) for name in names))
    nodes = []
    for i, name in enumerate(names):
        colour = modalities.index(_modality(name)) % MODALITIES
        nodes.append(Node(f"input {i}", name, f"modality {colour}", f"modality {_modality(name)}"))
    return nodes, {f"modality {modality}": modality for modality in modalities}


def _modality(name):
    return name.rpartition("_")[0] or name


def _cell(number, step):
    """The boxes and arrows of one step of the cell, from its ports x and y to its output z."""
    group = f"cell {number}"
    states = [f"{number}.x", f"{number}.y"]
    nodes = [Node(name, port, "port", group) for name, port in zip(states, "xy", strict=True)]
    edges = []
    for k, operation in enumerate(step.inner_steps):
        name = f"{number}.{k}"
        nodes.append(Node(name, f"{operation}\nC{number}_S{k + 1}", "operation", group))
        pair = step.inner_edges[2 * k : 2 * k + 2]
        for port, (op, index) in zip(PORTS.get(operation, ("1", "2")), pair, strict=True):
            edges.append(_edge(op, states[index], name, port))
        states.append(name)
    outputs = states[-len(step.inner_concat) :]
    if len(outputs) > 1:
        merge = f"{number}.merge"
        nodes.append(Node(merge, "Concat + FC", "merge", group))
        edges += [Edge(state, merge) for state in outputs]
        outputs = [merge]
    nodes.append(Node(f"{number}.z", "z\nadd, LayerNorm", "port", group))
    edges += [Edge(outputs[0], f"{number}.z"), Edge(f"{number}.x", f"{number}.z", style="dashed")]
    return nodes, edges


def _edge(op, source, target, label=""):
    # The operation "none" multiplies by zero; it is drawn as a dotted arrow.
    return Edge(source, target, label, "dotted" if op == "none" else "solid")


def _grey_unused(nodes, edges):
    """Grey out boxes and arrows from which no path leads to the output."""
    used = {OUTPUT}
    sources: dict[str, list[str]] = {}
    for edge in edges:
        if edge.style != "dotted":
            sources.setdefault(edge.target, []).append(edge.source)
    pending = [OUTPUT]
    while pending:
        new = set(sources.get(pending.pop(), ())) - used
        used |= new
        pending += new
    nodes = [node if node.name in used else replace(node, kind="unused") for node in nodes]
    edges = [edge if edge.target in used and edge.style != "dotted" else replace(edge, kind="unused") for edge in edges]
    return nodes, edges


def _legend(nodes, edges):
    """Legend entries of the kinds that occur in the picture."""
    kinds = {node.kind for node in nodes} | {edge.style for edge in edges}
    entries = [("operation", "operation"), ("dashed", "residual"), ("dotted", "none (zero)"), ("unused", "unused")]
    return [entry for entry in entries if entry[0] in kinds]
