"""Genotypes: the discrete architectures that a search finds.

`FusionGenotype` describes a BM-NAS network (Yin et al., AAAI 2022, section 3). It is stored as JSON. Pickles of the
original code are read by an unpickler that accepts only their two tuple classes.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.published_genotypes import read_published
from util.cli import UserError
from util.files import read_json, write_json

FORMAT = "bm-nas genotype"
# Genotype files in our run folders, and in those of the original's search and final training. The first one that
# exists is read.
FILE_NAMES = ("genotype.json", "best/best_genotype.pkl", "best/best_test_genotype.pkl")
EDGE_OPERATIONS = ("none", "skip")
# Names that appear in comments of the original code; released files may contain them.
OLDER_NAMES = {
    "sum": "Sum",
    "scale_dot_attn": "ScaleDotAttn",
    "cat_conv_glu": "LinearGLU",
    "cat_conv_relu": "ConcatFC",
}


@dataclass(frozen=True)
class StepGenotype:
    """One cell step: the inner network between its inputs x (state 0) and y (state 1).

    Attributes:
        inner_edges: Two (edge operation, state index) pairs per inner step, a flat tuple. The first of the two is
            the first argument of the step's operation.
        inner_steps: Name of the operation of each inner step.
        inner_concat: Indices of the inner states that are concatenated, always the last ones.
    """

    inner_edges: tuple
    inner_steps: tuple
    inner_concat: tuple


@dataclass(frozen=True)
class FusionGenotype:
    """A fusion network: which features every cell step reads, and which operations it applies.

    Attributes:
        edges: Two (edge operation, state index) pairs per cell step, a flat tuple. States 0..I-1 are the input
            features, state I+i is the output of step i.
        steps: A `StepGenotype` per cell step.
        concat: Indices of the states that are concatenated at the end.
        inputs: Names of the input features, for pictures ("Image_1", ...); may be empty.
    """

    edges: tuple
    steps: tuple
    concat: tuple
    inputs: tuple = ()

    @property
    def num_inputs(self) -> int:
        """Number of input features I, derived from the indices in ``concat``."""
        return self.concat[-1] + 1 - len(self.steps)

    def same_network(self, other: FusionGenotype) -> bool:
        """Whether both genotypes describe the same network; names of inputs are not compared."""
        return (self.edges, self.steps, self.concat) == (other.edges, other.steps, other.concat)

    def sizes(self) -> dict[str, int]:
        """Sizes, keyed by their flags: steps, multiplier, node_steps, node_multiplier. Empty if there are no steps."""
        if not self.steps:
            return {}
        node = self.steps[0]
        return {
            "steps": len(self.steps),
            "multiplier": len(self.concat),
            "node_steps": len(node.inner_steps),
            "node_multiplier": len(node.inner_concat),
        }

    def used_inputs(self) -> list[int]:
        """Sorted indices of the input features that some step or the final concatenation reads."""
        return sorted(index for index in {*(index for _, index in self.edges), *self.concat} if index < self.num_inputs)

    def check(self, step_operations: Collection[str], num_inputs: int | None = None) -> None:
        """Check that a network can be built from this genotype.

        Args:
            step_operations: Names of the known step operations.
            num_inputs: Number of input features of the network; None accepts any.

        Raises:
            ValueError: the genotype does not fit; the message is one line.
        """
        if not self.steps or len(self.edges) != 2 * len(self.steps):
            raise ValueError(f"{len(self.edges)} edges for {len(self.steps)} steps; two edges per step are expected")
        if num_inputs is not None and self.num_inputs != num_inputs:
            raise ValueError(f"it was made for {self.num_inputs} input features, the network has {num_inputs}")
        _check_concat("concat", self.concat, self.num_inputs + len(self.steps))
        _check_edges("edges", self.edges, self.num_inputs)
        for i, step in enumerate(self.steps):
            step_name = f"steps[{i}]"
            if not step.inner_steps or len(step.inner_edges) != 2 * len(step.inner_steps):
                raise ValueError(
                    f"{step_name} has {len(step.inner_edges)} inner edges for {len(step.inner_steps)} inner steps"
                )
            for operation in step.inner_steps:
                if operation not in step_operations:
                    known = ", ".join(step_operations)
                    raise ValueError(f"{step_name} names the unknown operation {operation!r}; known: {known}")
            _check_concat(f"{step_name}.inner_concat", step.inner_concat, 2 + len(step.inner_steps))
            _check_edges(f"{step_name}.inner_edges", step.inner_edges, 2)

    def check_form(self) -> None:
        """Check that the fields are consistent, so that the genotype can be drawn. Any operation name is accepted.

        Raises:
            ValueError: the fields are inconsistent; the message is one line.
        """
        self.check({name for step in self.steps for name in step.inner_steps})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict, from which `from_dict` builds an equal genotype."""
        return {
            "format": FORMAT,
            "inputs": list(self.inputs),
            "edges": [list(edge) for edge in self.edges],
            "steps": [
                {
                    "inner_edges": [list(edge) for edge in step.inner_edges],
                    "inner_steps": list(step.inner_steps),
                    "inner_concat": list(step.inner_concat),
                }
                for step in self.steps
            ],
            "concat": list(self.concat),
        }

    @classmethod
    def from_dict(cls, value: Any) -> FusionGenotype:
        """Build a genotype from the dict of `to_dict`.

        Raises:
            ValueError: a field is missing or has the wrong form.
        """
        if not isinstance(value, dict):
            raise ValueError("a JSON object was expected")
        if "enc" in value or any(key.startswith("epoch") for key in value):
            raise ValueError("it holds an architecture of MMNas, which train_*.py --ARCH_PATH takes")
        if value.get("format", FORMAT) != FORMAT:
            raise ValueError(f"its format is {value['format']!r}; {FORMAT!r} was expected")
        steps = tuple(
            StepGenotype(
                _field(step, "inner_edges", _edges, f"steps[{i}]."),
                _field(step, "inner_steps", _names, f"steps[{i}]."),
                _field(step, "inner_concat", _indices, f"steps[{i}]."),
            )
            for i, step in enumerate(_field(value, "steps", list))
        )
        inputs = _field({"inputs": (), **value}, "inputs", _names)
        genotype = cls(_field(value, "edges", _edges), steps, _field(value, "concat", _indices), inputs)
        if not genotype.concat:
            raise ValueError("concat is empty")
        if inputs and len(inputs) != genotype.num_inputs:
            raise ValueError(f"inputs has {len(inputs)} names, but the indices imply {genotype.num_inputs} features")
        return genotype

    def save(self, path: Path | str) -> None:
        """Write the genotype as JSON, atomically."""
        write_json(path, self.to_dict())

    def to_svg(self, title: str = "") -> str:
        """Return the picture of this network as SVG text."""
        from models.bmnas.drawing import fusion_graph_svg

        return fusion_graph_svg(self, self.inputs or None, title=title)

    def keep_epoch(self, folder: Path, epoch: int) -> str:
        """What a search calls its architecture of ``epoch``; there is no file of all epochs, unlike in MMNas."""
        return f"epoch {epoch}"

    def _repr_svg_(self):
        """Show the picture in IPython and Jupyter."""
        return self.to_svg()

    def __str__(self) -> str:
        steps = "; ".join(
            f"step {i}: ({_show(self.edges[2 * i])}, {_show(self.edges[2 * i + 1])}) -> "
            + ", ".join(
                f"{name}({_show(step.inner_edges[2 * k])}, {_show(step.inner_edges[2 * k + 1])})"
                for k, name in enumerate(step.inner_steps)
            )
            for i, step in enumerate(self.steps)
        )
        return f"{steps}; concat {list(self.concat)}"


def load_genotype(path: Path | str) -> FusionGenotype:
    """Read a genotype from our JSON or from a pickle of the original code.

    Args:
        path: The file, or a run folder that contains one of `FILE_NAMES`.

    Raises:
        UserError: the file is missing, is not a genotype, or is a pickle that would run code.
    """
    file = _file(path)
    try:
        if file.suffix == ".json":
            return FusionGenotype.from_dict(read_json(file))
        return FusionGenotype.from_dict(read_published(file.read_bytes()))
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"{file} does not exist; expected a genotype file (ours: .json, the original's: .pkl) or the word random"
        ) from None
    except Exception as error:  # a damaged pickle fails in almost any way
        raise UserError(f"{file} is not a genotype: {' '.join(str(error).split())}") from None


def has_genotype(path: Path | str) -> bool:
    """Whether ``path`` is a file (of any content) or a run folder that contains a genotype."""
    return Path(path).is_file() or any((Path(path) / name).is_file() for name in FILE_NAMES)


def _file(path):
    path = Path(path)
    if not path.is_dir():
        return path
    if files := [path / name for name in FILE_NAMES if (path / name).is_file()]:
        return files[0]
    raise UserError(f"{path} has no {' or '.join(FILE_NAMES)}; name the folder of a finished run, or a genotype file")


def check_genotype(genotype: FusionGenotype, step_operations: Collection[str], num_inputs: int, source: object) -> None:
    """Like `FusionGenotype.check`, but the error names the file or flag ``source``.

    Raises:
        UserError: the genotype does not fit.
    """
    try:
        genotype.check(step_operations, num_inputs)
    except ValueError as error:
        raise UserError(f"the genotype of {source} does not fit this network: {error}") from None


def random_genotype(
    rng: random.Random,
    step_operations: Sequence[str],
    *,
    num_inputs: int,
    steps: int,
    multiplier: int,
    node_steps: int,
    node_multiplier: int,
    inputs: Iterable[str] = (),
    chain: bool = False,
) -> FusionGenotype:
    """Draw a genotype that a search could derive: the random baseline.

    Pairs of inputs, pairs of inner states and operations are each drawn uniformly.

    Args:
        rng: Source of randomness.
        step_operations: Names of the operations to draw from.
        num_inputs: Number of input features I.
        steps, multiplier: Number of cell steps S and of concatenated states M.
        node_steps, node_multiplier: Number of inner steps s and of concatenated inner states m.
        inputs: Names of the features.
        chain: Whether a step may read the outputs of earlier steps.
    """
    selected: set[int] = set()
    edges: list[tuple[str, int]] = []
    for step in range(steps):
        pair = rng.choice(eligible_pairs(num_inputs, selected, step if chain else 0))
        selected.update(pair)
        edges += [("skip", index) for index in pair]
    nodes = []
    for _ in range(steps):
        inner_edges = []
        for k in range(node_steps):
            inner_edges += [("skip", index) for index in rng.sample(range(2 + k), 2)]
        names = tuple(rng.choice(step_operations) for _ in range(node_steps))
        nodes.append(StepGenotype(tuple(inner_edges), names, tail_indices(2 + node_steps, node_multiplier)))
    return FusionGenotype(tuple(edges), tuple(nodes), tail_indices(num_inputs + steps, multiplier), tuple(inputs))


def eligible_pairs(num_inputs: int, selected: set[int], earlier_steps: int = 0) -> list[tuple[int, int]]:
    """Pairs (j, k), j < k, of states that a step may read.

    A pair is not eligible if both of its states are in ``selected``.

    NOTE: the original fails with an IndexError once every pair is taken (for example 4 inputs and 3 steps). Here all
    pairs become eligible again.

    Args:
        num_inputs: Number of input features I.
        selected: States that earlier steps read.
        earlier_steps: Number of earlier steps whose outputs (states I, I + 1, ...) may be read too. It is 0 in the
            released code.
    """
    states = num_inputs + earlier_steps
    pairs = [(j, k) for j in range(states) for k in range(j + 1, states)]
    return [pair for pair in pairs if not selected.issuperset(pair)] or pairs


def ordered_eligible_pairs(
    num_inputs: int, step: int, earlier: Sequence[tuple[int, int]], chain: bool = False
) -> list[tuple[int, int]]:
    """Ordered pairs of states that a step may read, given the pairs that earlier steps read.

    Args:
        num_inputs: Number of input features I.
        step: Index of the step, from 0.
        earlier: The pair of each earlier step.
        chain: Whether the step may read the outputs of earlier steps.

    Returns:
        Every eligible pair (j, k) with j < k, followed by the same pairs as (k, j).
    """
    pairs = eligible_pairs(num_inputs, {state for pair in earlier for state in pair}, step if chain else 0)
    return pairs + [pair[::-1] for pair in pairs]


def tail_indices(num_states: int, count: int) -> tuple[int, ...]:
    """Indices of the last ``count`` of ``num_states`` states."""
    return tuple(range(num_states - count, num_states))


def _field(value, name, convert, prefix=""):
    if not isinstance(value, dict):
        raise ValueError(f"{prefix or 'it'} is {value!r}; an object with named fields was expected")
    if name not in value:
        raise ValueError(f"the field {prefix}{name} is missing")
    if isinstance(value[name], (str, dict)):
        raise ValueError(f"the field {prefix}{name} is {value[name]!r}; a list was expected")
    try:
        return convert(value[name])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the field {prefix}{name} has the wrong form ({error})") from None


def _edges(value):
    return tuple((_name(name), _index(index)) for name, index in value)


def _indices(value):
    return tuple(_index(index) for index in value)


def _names(value):
    return tuple(OLDER_NAMES.get(name, name) for name in map(_name, value))


def _name(value):
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a name")
    return value


def _index(value):
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not an index")
    return value


def _show(edge):
    return str(edge[1]) if edge[0] == "skip" else f"{edge[0]} {edge[1]}"


def _check_concat(name, concat, num_states):
    if not concat or tuple(concat) != tail_indices(num_states, len(concat)) or concat[0] < 0:
        raise ValueError(f"{name} is {list(concat)}; expected the last of the states 0..{num_states - 1}, in order")


def _check_edges(name, edges, num_first):
    for position, (operation, index) in enumerate(edges):
        if operation not in EDGE_OPERATIONS:
            known = ", ".join(EDGE_OPERATIONS)
            raise ValueError(f"{name}[{position}] names the unknown edge operation {operation!r}; known: {known}")
        limit = num_first + position // 2
        if not 0 <= index < limit:
            raise ValueError(f"{name}[{position}] reads state {index}; states 0..{limit - 1} exist there")
