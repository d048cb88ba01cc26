"""The cost of an encoder-decoder: measured for a found one, and expected under the probabilities of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from engine.cost import cost_facts, costs_of
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.operations import make_operation

if TYPE_CHECKING:
    from models.mmnas.architecture import Architecture

# Costs are counted and measured for these lengths, to which the official data are padded.
WORDS, REGIONS = 14, 100
WHAT = f"the encoder-decoder as it is written, on {WORDS} words and {REGIONS} regions"
# The CPU and not the meta device, since operations query the autocast precision of their device.
CPU = torch.device("cpu")


def architecture_cost(architecture: Architecture, *, hsize: int, batch: int, device: torch.device) -> dict[str, Any]:
    """The entries of a result for the cost of a found architecture, see `engine.cost.cost_facts`.

    Args:
        architecture: The `Architecture`.
        hsize: Width H of the network.
        batch: Batch size of the second latency; the first is measured on one sample.
        device: Device to measure on.
    """
    net, inputs = _network(architecture, hsize)
    return cost_facts(net.to(device), inputs, device, batch, WHAT)


def architecture_counts(architecture: Architecture, hsize: int) -> dict[str, int]:
    """``parameters`` and ``flops`` of a found architecture of width ``hsize``, without measuring its latency."""
    return costs_of(*_network(architecture, hsize), CPU)


def _network(architecture, hsize):
    with torch.random.fork_rng(devices=[]):
        net = EncoderDecoder.fixed(architecture, hsize, 0.0)

    def inputs(count, device):
        words, regions = (torch.randn(count, length, hsize).to(device) for length in (WORDS, REGIONS))
        relation = torch.rand(count, REGIONS, REGIONS, net.relation_size).to(device) if net.uses_relation() else None
        return words, regions, None, None, relation

    return net, inputs


class ExpectedCost:
    """Expected cost of the blocks, sum over blocks of sum_k p_k c_k, as a fraction of the largest possible cost.

    p_k is the probability of candidate k of a block and c_k its cost.

    Args:
        net: An `EncoderDecoder` built by `EncoderDecoder.searched`.
        kind: ``parameters``, or ``flops`` of one sample.
    """

    def __init__(self, net: EncoderDecoder, kind: str) -> None:
        known: dict[tuple[str, str], float] = {}
        self.costs: dict[str, torch.Tensor] = {}
        for choice in net.choices():
            side = choice.key.partition(".")[0]
            for name in choice.candidates:
                if (side, name) not in known:
                    known[side, name] = _of_operation(name, side, kind, net)
            self.costs[choice.key] = torch.tensor([known[side, name] for name in choice.candidates]).double()
        self.most = float(sum(costs.max() for costs in self.costs.values())) or 1.0

    def __call__(self, probabilities: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the expected cost, a differentiable scalar in 0..1.

        Args:
            probabilities: Key of a choice -> probabilities (n,), for all choices.
        """
        total: Any = 0.0
        for key, costs in self.costs.items():
            row = probabilities[key].double()
            total = total + row @ costs.to(row.device)
        return total / self.most


def _of_operation(name, side, kind, net):
    with torch.random.fork_rng(devices=[]):
        operation = make_operation(name, net.hsize, 0.0, net.relation_size)

    def inputs(count, device):
        words, regions = (torch.zeros(count, length, net.hsize, device=device) for length in (WORDS, REGIONS))
        relation = torch.zeros(count, REGIONS, REGIONS, net.relation_size, device=device)
        return (words, None, None, None, None) if side == "enc" else (regions, words, None, None, relation)

    return float(costs_of(operation, inputs, CPU)[kind])
