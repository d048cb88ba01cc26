"""Draws an encoder-decoder: two chains of blocks, and dashed arrows to the decoder blocks that attend to the words."""

from models.mmnas.architecture import Architecture
from models.mmnas.operations import operation_class
from util.graph_svg import Edge, Node, draw

# Fill and outline, after the Okabe-Ito colours, which colour-blind readers can distinguish.
PALETTE = {
    "side": ("#ffffff", "#4a5058"),
    "self attention": ("#d6e8f5", "#0072b2"),
    "relation attention": ("#f4dfea", "#a8527f"),
    "guided attention": ("#fdebc8", "#b87a00"),
    "other operation": ("#d5efe6", "#00805d"),
}
ENCODED = "encoded"


def architecture_svg(architecture: Architecture, title: str = "") -> str:
    """Draw an architecture, with the encoder's chain above the decoder's.

    Args:
        architecture: The `Architecture`. All of its operations must be known.
        title: Heading of the picture.

    Returns:
        The SVG text.
    """
    nodes, edges = _chain("enc", "words", architecture.enc, "encoded words")
    decoder, links = _chain("dec", "regions", architecture.dec, "decoded regions")
    readers = [node.name for node in decoder if _reads_words(node.name, architecture.dec)]
    if readers:
        decoder.append(Node(ENCODED, "encoded words", "side", "dec"))
        links += [Edge(ENCODED, name, style="dashed") for name in readers]
    nodes, edges = nodes + decoder, edges + links
    groups = {"enc": "Encoder", "dec": "Decoder"}
    kinds = {node.kind for node in nodes}
    legend = [(kind, kind) for kind in PALETTE if kind in kinds and kind != "side"]
    return draw(nodes, edges, PALETTE, groups=groups, title=title, legend=legend)


def _chain(side: str, source: str, blocks: tuple, sink: str) -> tuple[list[Node], list[Edge]]:
    """Boxes and arrows of one side. A block with several operations has several boxes."""
    nodes, edges = [Node(f"{side}.in", source, "side", side)], []
    before = [f"{side}.in"]
    for i, block in enumerate(blocks):
        names = [f"{side}.{i}.{k}" for k in range(len(block))]
        nodes += [
            Node(name, f"{i + 1}\n{operation}", _kind(operation), side)
            for name, operation in zip(names, block, strict=True)
        ]
        edges += [Edge(a, b) for b in names for a in before]
        before = names
    nodes.append(Node(f"{side}.out", sink, "side", side))
    return nodes, edges + [Edge(name, f"{side}.out") for name in before]


def _kind(operation: str) -> str:
    kind = operation_class(operation)
    if kind.needs_relation:
        return "relation attention"
    if kind.reads_other:
        return "guided attention"
    return "self attention" if operation.startswith("self_att") else "other operation"


def _reads_words(name: str, blocks: tuple) -> bool:
    block, _, member = name.removeprefix("dec.").partition(".")
    return block.isdigit() and operation_class(blocks[int(block)][int(member)]).reads_other
