"""A block's candidate operations in the search, of which the relaxation decides what runs (MMNas section 3.2)."""

import functools

import torch
from torch import nn

from models.mmnas.operations import make_operation
from search.choice import Choice, Draw
from search.gates import SampledGates
from util.registry import module_key


class GatedOperation(nn.Module):
    """Candidate operations with architecture parameters.

    Args:
        names: Names of the candidates, all different.
        hsize, dropout, relation_size: See `operations.Operation`.
        key: Key of the choice.

    Attributes:
        alpha_prob: (n,), softmax gives the probabilities of the candidates; zeros at first.
        alpha_gate: (n,), only a place for the gates' gradients; its values have no meaning.
        choice: The `Choice` between the candidates.
        relaxation: How they act together.
    """

    def __init__(self, names, hsize, dropout, relation_size=64, key="block"):
        super().__init__()
        self.alpha_prob = nn.Parameter(torch.zeros(len(names)))
        self.alpha_gate = nn.Parameter(torch.zeros(len(names)))
        self.operations = nn.ModuleDict(
            {module_key(name): make_operation(name, hsize, dropout, relation_size) for name in dict.fromkeys(names)}
        )
        if len(self.operations) != len(names):
            raise ValueError(f"candidates are named twice: {', '.join(names)}")
        self.choice = Choice(key, names, self, "alpha_prob", "alpha_gate")
        self.choice.drawn = Draw((0,))
        self.relaxation = SampledGates()

    @property
    def names(self):
        """Names of the candidates."""
        return self.choice.candidates

    def running(self):
        """The operations that the next forward calls, the active one first."""
        return [self.operations[module_key(self.names[k])] for k in self.choice.running()]

    def forward(self, x, y=None, x_mask=None, y_mask=None, relation=None):
        """Output of the candidates together; arguments as in `operations.Operation`."""
        operands = (x, y, x_mask, y_mask, relation)
        candidates = [functools.partial(operation, *operands) for operation in self.operations.values()]
        return self.relaxation.combine(self.choice, candidates, self.alpha_prob, gates=self.alpha_gate)
