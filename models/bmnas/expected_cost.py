"""The expected cost of a cell under the probabilities of a search, for architecture steps that penalise cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from engine.cost import costs_of
from models.backbone_net import ReshapeLayer
from models.bmnas.operations import STEP_OPERATIONS
from search.ordered_pairs import firsts, partners

if TYPE_CHECKING:
    from models.bmnas.cells import FusionCell

META = torch.device("meta")


class ExpectedCost:
    """Expected cost of the modules that the search decides about, as a fraction of the largest possible cost.

    It is the sum of the costs of all operations, weighted by their probabilities, and of all reshape layers, weighted
    by the probability that some step reads the feature: 1 - prod over steps of (1 - p). Modules that every found
    network of these sizes has (norms, merges, the classifier) are not counted.

    If edges are decided one by one, p is the probability of ``skip``. If they are drawn in pairs, p is the probability
    that the feature is the first or second argument of the step: p_i + sum over j of p_j p_i / (sum of p over the
    partners of j). This ignores that pairs of earlier steps make some pairs ineligible.

    Args:
        cell: A `FusionCell` built by `FusionCell.mixed`.
        kind: ``parameters``, or ``flops`` of one sample.
        reshape: Reshape layer of each feature.
        size: (C, L).
    """

    def __init__(self, cell: FusionCell, kind: str, reshape: Sequence[ReshapeLayer], size: tuple[int, int]) -> None:
        self.cell = cell
        names = cell.nodes[0].choice.candidates
        self.operations = torch.tensor([_of_operation(name, kind, size) for name in names], dtype=torch.float64)
        self.features = torch.tensor([_of_layer(layer, kind, size[0]) for layer in reshape], dtype=torch.float64)
        rows = sum(len(node.ops) for node in cell.nodes)
        self.most = float(self.features.sum() + rows * self.operations.max())

    def __call__(self, probabilities: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the expected cost, a differentiable scalar in 0..1.

        Args:
            probabilities: Key of a choice -> probabilities shaped like its logits, for all choices.
        """
        total: Any = 0.0
        for node in self.cell.nodes:
            rows = probabilities[node.choice.key]
            total = total + (rows.double() @ self.operations.to(rows.device)).sum()
        edges = self.cell.edges
        unread: Any = 1.0
        for step, skip in enumerate(probabilities[edges.choice.key][:, edges.choice.pairs.chosen].split(edges.counts)):
            read = self._reads(step, skip) if edges.choice.relaxation.ordered_pairs else skip
            unread = unread * (1 - read[: self.cell.num_inputs].double())
        return (total + ((1 - unread) * self.features.to(unread.device)).sum()) / self.most

    def _reads(self, step, first):
        """Probability that a state is one of a step's arguments, from the probability that it is the first."""
        eligible, reads = self.cell.edges.choice.pairs.eligible(step, []), list(first.unbind())
        for state in firsts(eligible):
            others = partners(eligible, state)
            rest = first[others].sum().clamp(min=1e-12)
            for other in others:
                reads[other] = reads[other] + first[state] * first[other] / rest
        return torch.stack(reads)


def _of_operation(name, kind, size):
    with META:
        operation = STEP_OPERATIONS[name](*size, 0.0)
    return costs_of(operation, lambda n, device: (torch.zeros(n, *size, device=device),) * 2, META)[kind]


def _of_layer(layer, kind, channels):
    with META:
        own = ReshapeLayer(layer.conv.in_channels, channels, layer.pool, 0.0)
    inputs = (layer.conv.in_channels, *layer.pool)
    return costs_of(own, lambda n, device: (torch.zeros(n, *inputs, device=device),), META)[kind]
