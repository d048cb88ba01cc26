"""The fusion cell and its step nodes (BM-NAS, section 3); the same classes serve the search and found networks.

Names are the original code's, one level off the paper's words: the paper's Cell is a `StepNode`, one of ``--steps``,
its Step is an inner step, one of ``--node_steps``, and `FusionCell` is the whole network of Cells. Its alpha, beta and
gamma are ``alphas_edges`` (edges between features and Cells), ``betas`` (edges inside a Cell) and ``gammas``
(operations). The search mixes all candidates by the softmax of these logits; a found network has only what a genotype
names.

N is the batch size, C the number of channels, L the length, I the number of input features, S the number of cell steps
and M the number of states that are concatenated at the end. A step node has s inner steps and concatenates m states.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.bmnas.drawn_edges import sum_of_taken, taken_states
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS, STEP_OPERATIONS
from models.genotypes import (
    EDGE_OPERATIONS,
    FusionGenotype,
    StepGenotype,
    eligible_pairs,
    ordered_eligible_pairs,
    tail_indices,
)
from search.choice import ArgumentPairs, Choice
from search.relaxation import SoftmaxMixture

# Architecture logits are initialised with 1e-3 * N(0, 1).
ALPHA_SCALE = 1e-3
SKIP = EDGE_OPERATIONS.index("skip")
# The relaxation in use until a strategy is attached. It has no state, so all choices share it.
_MIXTURE = SoftmaxMixture()


class MixedEdges(nn.Module):
    """All edges into the steps of a cell or node, in the search. Step k reads the first ``num_sources + k`` states.

    Args:
        num_sources: Number of states before the first step.
        steps: Number of steps.
        key: Key of the choice between the edges' operations.
        eligible: Ordered pairs of states that a step may read, see `search.choice.ArgumentPairs`; None: all pairs.

    Attributes:
        logits: Parameter (edges, 2), the logits of ``none`` and ``skip``. Rows are ordered by step, then by state.
    """

    def __init__(
        self,
        num_sources: int,
        steps: int,
        key: str = "edges",
        eligible: Callable[[int, list[tuple[int, int]]], list[tuple[int, int]]] | None = None,
    ) -> None:
        super().__init__()
        self.counts = [num_sources + k for k in range(steps)]
        self.logits = nn.Parameter(ALPHA_SCALE * torch.randn(sum(self.counts), len(EDGE_OPERATIONS)))
        pairs = ArgumentPairs(tuple(self.counts), SKIP, eligible or self._all_pairs)
        self.choice = Choice(key, EDGE_OPERATIONS, self, "logits", pairs=pairs, relaxation=_MIXTURE)

    def probabilities(self) -> tuple[torch.Tensor, ...]:
        """Probabilities of each edge's operations, by default their softmax: one tensor (edges, 2) per step."""
        return self.choice.probabilities().split(self.counts)

    def _all_pairs(self, step, _):
        return list(itertools.permutations(range(self.counts[step]), 2))

    def forward(self, states: Sequence[torch.Tensor], step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both arguments of a step, (N, C, L) each: in the published search twice the mixture of all states."""
        if self.choice.drawn is not None:
            return self._drawn(self.choice.drawn, states, step)
        mixed = self._mixture(states, step)
        return mixed, mixed

    def _mixture(self, states, step):
        """Sum of the states, each times its weight of ``skip``; ``none`` gives x * 0, which adds nothing."""
        weights = self.choice.relaxation.weights(self.choice, self.logits).split(self.counts)[step]
        skip = weights[:, SKIP].to(states[0].dtype)
        return sum(weight * state for weight, state in zip(skip, states, strict=True))

    def _drawn(self, drawn, states, step):
        """The arguments if the strategy draws: a pair of states, or twice the sum of the drawn ones."""
        if drawn.pairs:
            return self.choice.relaxation.arguments(self.choice, states, step, self.logits)
        taken = taken_states(self.choice)
        mixed = self._mixture(states, step) if taken is None else sum_of_taken(self.choice, states, taken, step)
        return mixed, mixed


class FixedEdges(nn.Module):
    """The edges of a found network, two into each step.

    Args:
        edges: (edge operation, state index) pairs, two per step.
    """

    def __init__(self, edges: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.pairs = list(zip(edges[::2], edges[1::2], strict=True))

    def forward(self, states: Sequence[torch.Tensor], step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both arguments of a step, (N, C, L) each; ``none`` gives zeros."""
        x, y = (states[index] if name == "skip" else states[index] * 0.0 for name, index in self.pairs[step])
        return x, y

    def live_states(self, num_sources: int, tail: int, reads: Sequence[Iterable[int]] | None = None) -> set[int]:
        """Indices of the states that affect the output: the last ``tail`` states and all that they depend on.

        Args:
            num_sources: Number of states before the first step.
            tail: Number of concatenated states.
            reads: For each step, the positions (0, 1) of the arguments that it uses; None: both.
        """
        count = num_sources + len(self.pairs)
        live = set(range(count - tail, count))
        for step in reversed(range(len(self.pairs))):
            if num_sources + step in live:
                live |= {self.pairs[step][i][1] for i in (reads[step] if reads else (0, 1))}
        return live


class StepNode(nn.Module):
    """One cell step: inner steps on x and y are merged, the residual x is added, and the sum is layer-normalised.

    Args:
        operations: For each inner step, the classes of its operations, see `util.registry.Registry.classes`: in the
            search the same for every step, in a found network a single one.
        channels, length: C and L of every state (N, C, L).
        dropout: Dropout rate of the operations and of the merge.
        multiplier: Number m of inner states that are concatenated.
        edges: Inner edges of a found network; None: mixed edges and operations, for the search.
        names: Names of the operations in the search.
        key: Prefix of the keys of the node's choices.

    Attributes:
        edges: `MixedEdges`, with the betas, or `FixedEdges`.
        gammas: Parameter (inner steps, operations), the logits of the operations; None in a found network.
    """

    def __init__(
        self,
        operations: Sequence[Mapping[str, Callable[..., nn.Module]]],
        channels: int,
        length: int,
        dropout: float,
        multiplier: int,
        edges: Sequence[tuple[str, int]] | None = None,
        names: tuple[str, ...] = (),
        key: str = "step",
    ) -> None:
        super().__init__()
        self.multiplier = multiplier
        self.ops: Any = nn.ModuleList(
            nn.ModuleDict({key: kind(channels, length, dropout) for key, kind in kinds.items()}) for kinds in operations
        )
        self.merge = Merge(channels, multiplier, dropout) if multiplier != 1 else None
        self.norm = nn.LayerNorm((channels, length))
        # Any: mixed in the search, fixed in a found network.
        self.edges: Any = MixedEdges(2, len(operations), f"{key}.betas") if edges is None else FixedEdges(edges)
        self.gammas: Any = None
        self.choice: Any = None
        if edges is None:
            self.gammas = nn.Parameter(ALPHA_SCALE * torch.randn(len(operations), len(names)))
            self.choice = Choice(f"{key}.gammas", names, self, "gammas", relaxation=_MIXTURE)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Fuse x and y, both (N, C, L), into one (N, C, L)."""
        states = [x, y]
        for step, operations in enumerate(self.ops):
            first, second = self.edges(states, step)
            candidates = [functools.partial(operation, first, second) for operation in operations.values()]
            if self.choice is None:
                states.append(candidates[0]())
            else:
                states.append(self.choice.relaxation.combine(self.choice, candidates, self.gammas, row=step))
        merged = states[-1] if self.merge is None else self.merge(states[-self.multiplier :])
        # NOTE: not in place. The original adds in place, which breaks its backward pass when dropout is inactive.
        return self.norm(merged + x)

    def choices(self) -> list[Choice]:
        """The choices of the inner edges and of the operations; none in a found network."""
        return [] if self.choice is None else [self.edges.choice, self.choice]

    def discretise(self, scores: dict[str, torch.Tensor]) -> StepGenotype:
        """Keep the two best edges and the best operation of each inner step.

        Args:
            scores: Key of a choice -> scores of its candidates, see `search.choice.SearchSpace`.
        """
        inner_edges = []
        for row in scores[self.edges.choice.key].split(self.edges.counts):
            # Sorted by weight, not by index: the stronger edge becomes the operation's first argument.
            strongest = sorted(range(len(row)), key=lambda state, row=row: -row[state, SKIP].item())[:2]  # type: ignore[misc]
            inner_edges += [("skip", state) for state in strongest]
        rows = scores[self.choice.key].tolist()
        inner_steps = tuple(self.choice.candidates[row.index(max(row))] for row in rows)
        return StepGenotype(tuple(inner_edges), inner_steps, tail_indices(2 + len(self.ops), self.multiplier))


class Merge(nn.Module):
    """Merges m inner states (N, C, L) into one: concatenation, Conv1d(m*C -> C, 1), BatchNorm, ReLU, Dropout."""

    def __init__(self, channels: int, multiplier: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(multiplier * channels, channels, 1)
        self.bn = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        return self.dropout(F.relu(self.bn(self.conv(torch.cat(states, dim=1)))))


class FusionCell(nn.Module):
    """The fusion cell: S steps on the input features; the last M states are concatenated, normalised and flattened.

    Build it with `mixed` (search) or `fixed` (found network). Its attribute ``width`` is the output size M * C * L.

    Attributes:
        edge_choice: The `Choice` of the cell's edges; None in a found network.
    """

    def __init__(
        self,
        nodes: Iterable[StepNode],
        edges: MixedEdges | FixedEdges,
        num_inputs: int,
        channels: int,
        length: int,
        multiplier: int,
        chain: bool = False,
    ) -> None:
        super().__init__()
        self.num_inputs, self.chain = num_inputs, chain
        self.multiplier = multiplier
        self.width = multiplier * channels * length
        self.nodes: Any = nn.ModuleList(nodes)
        self.norm = nn.LayerNorm((multiplier * channels, length))
        self.edges: Any = edges
        self.edge_choice = edges.choice if isinstance(edges, MixedEdges) else None

    @classmethod
    def mixed(
        cls,
        num_inputs: int,
        channels: int,
        length: int,
        dropout: float,
        *,
        steps: int,
        multiplier: int,
        node_steps: int,
        node_multiplier: int,
        step_ops: Iterable[str] = PUBLISHED_STEP_OPERATIONS,
        chain: bool = False,
    ) -> FusionCell:
        """Build the supernet: all edges and operations, weighted by architecture parameters.

        Args:
            num_inputs: Number I of input features.
            channels, length: C and L of every state.
            dropout: Dropout rate.
            steps, multiplier: Number of cell steps S and of concatenated states M.
            node_steps, node_multiplier: Number of inner steps s and of concatenated inner states m.
            step_ops: Names of the candidate operations.
            chain: Whether a derived step may read earlier steps in addition to input features (paper section 3.2).
        """
        names = tuple(step_ops)
        parts = ([STEP_OPERATIONS.classes(names)] * node_steps, channels, length, dropout, node_multiplier)
        nodes = [StepNode(*parts, names=names, key=f"step{i}") for i in range(steps)]
        eligible = functools.partial(ordered_eligible_pairs, num_inputs, chain=chain)
        edges = MixedEdges(num_inputs, steps, "alphas_edges", eligible)
        return cls(nodes, edges, num_inputs, channels, length, multiplier, chain)

    @classmethod
    def fixed(cls, genotype: FusionGenotype, num_inputs: int, channels: int, length: int, dropout: float) -> FusionCell:
        """Build the cell that a genotype describes, with its edges, operations and sizes S, M, s and m.

        Raises:
            ValueError: the genotype is inconsistent, has another number of inputs, or names an unknown operation.
        """
        genotype.check(STEP_OPERATIONS, num_inputs)
        nodes = [
            StepNode(
                [STEP_OPERATIONS.classes([name]) for name in step.inner_steps],
                channels,
                length,
                dropout,
                len(step.inner_concat),
                edges=step.inner_edges,
            )
            for step in genotype.steps
        ]
        return cls(nodes, FixedEdges(genotype.edges), num_inputs, channels, length, len(genotype.concat))

    def forward(self, features: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Fuse I features (N, C, L), with None in place of those that no step reads, into (N, M*C*L)."""
        states: list[Any] = list(features)
        for step, node in enumerate(self.nodes):
            states.append(node(*self.edges(states, step)))
        output = self.norm(torch.cat(states[-self.multiplier :], dim=1))
        return F.relu(output).flatten(1)

    def choices(self) -> list[Choice]:
        """The choices of edges and operations, in the original's order and with its names; none in a found network."""
        if self.edge_choice is None:
            return []
        return [self.edge_choice, *(choice for node in self.nodes for choice in node.choices())]

    def arch_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters: key of a choice -> logits; empty for a found network."""
        return {choice.key: choice.logits for choice in self.choices()}

    def probabilities(self, inputs: Iterable[str] = ()) -> dict[str, dict[str, dict[str, float]]]:
        """Probabilities of all candidates, for logs and pictures: title -> {row name: {operation: probability}}.

        Args:
            inputs: Names of the input features; by default Input_1, Input_2, ...
        """
        names = list(inputs) or [f"Input_{j + 1}" for j in range(self.num_inputs)]
        states = names + [f"C{i + 1}" for i in range(len(self.nodes))]
        result = _edge_probabilities("alphas, step {}", self.edges, states)
        for i, node in enumerate(self.nodes, start=1):
            inner = ["x", "y", *(f"C{i}_S{k + 1}" for k in range(len(node.ops)))]
            result |= _edge_probabilities(f"betas, step {i}.{{}}", node.edges, inner)
            rows = node.choice.probabilities().tolist()
            result[f"gammas, step {i}"] = {
                f"C{i}_S{k}": dict(zip(node.choice.candidates, row, strict=True)) for k, row in enumerate(rows, start=1)
            }
        return result

    def uses_all_weights(self) -> bool:
        """Whether the output depends on all steps, on all inner steps with weights, and on all features read."""
        if self.edge_choice is not None:
            # A mixed step reads all earlier steps, and the last step is always concatenated. A strategy that draws
            # candidates may leave steps unused.
            return self.edge_choice.relaxation.runs_all
        inner = [node.edges.live_states(2, node.multiplier) for node in self.nodes]
        for live, node in zip(inner, self.nodes, strict=True):
            weighted = {2 + k for k, operation in enumerate(node.ops) if next(operation.parameters(), None) is not None}
            if not live >= weighted:
                return False
        # The residual always reads x, argument 0.
        live = self.edges.live_states(self.num_inputs, self.multiplier, [{0} | (states & {1}) for states in inner])
        steps = set(range(self.num_inputs, self.num_inputs + len(self.nodes)))
        return live >= steps | {index for pair in self.edges.pairs for _, index in pair}

    def discretise(self, scores: dict[str, torch.Tensor], inputs: Iterable[str] = ()) -> FusionGenotype:
        """Derive the genotype from scores of the candidates.

        Each step reads the pair of input features with the largest product of skip scores, but no pair whose features
        have both been read by earlier steps. The state with the lower index is the first argument; for a strategy that
        draws ordered pairs, it is the state with the larger score.

        NOTE: as in the original, edges from earlier steps are trained but never selected. With ``chain`` they are
        selected like input features, as the text of the paper describes it.

        Args:
            scores: Key of a choice -> scores of its candidates, see `search.choice.SearchSpace`.
            inputs: Names of the input features.
        """
        selected: set[int] = set()
        edges: list[tuple[str, int]] = []
        for step, weights in enumerate(scores[self.edges.choice.key].split(self.edges.counts)):
            skip = weights[:, SKIP]
            pairs = eligible_pairs(self.num_inputs, selected, step if self.chain else 0)
            pair = max(pairs, key=lambda jk, w=skip: (w[jk[0]] * w[jk[1]]).item())  # type: ignore[misc]  # the first of equals
            selected.update(pair)
            if self.edges.choice.relaxation.ordered_pairs:
                pair = pair if skip[pair[0]] >= skip[pair[1]] else pair[::-1]
            edges += [("skip", index) for index in pair]
        steps = tuple(node.discretise(scores) for node in self.nodes)
        concat = tail_indices(self.num_inputs + len(self.nodes), self.multiplier)
        return FusionGenotype(tuple(edges), steps, concat, tuple(inputs))


def _edge_probabilities(title, edges, states):
    return {
        title.format(k): {
            state: dict(zip(EDGE_OPERATIONS, row, strict=True))
            for state, row in zip(states, weights.tolist(), strict=False)
        }
        for k, weights in enumerate(edges.probabilities(), start=1)
    }
