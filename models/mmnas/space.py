"""The search space of MMNas: the candidates of a block, and the module of one searched block.

Encoder and decoder have different candidates. The encoder only reads words, so its candidates need neither the other
side nor relations. Source: Yu et al., Deep Multimodal Neural Architecture Search, ACM MM 2020; gates after ProxylessNAS
(Cai et al., ICLR 2019).
"""

import functools
from typing import Any

import torch
from torch import nn

from models.mmnas.layers import RELATION_SIZE
from models.mmnas.operations import Operation, make_operation
from search.choice import Choice, Draw
from search.gates import SampledGates
from search.relaxation import Relaxation
from util.registry import module_key

# The published candidates, in the order of the columns of the architecture parameters.
ENCODER_CANDIDATES = ("self_att_64", "feed_forward")
DECODER_CANDIDATES = ("self_att_64", "rel_self_att_64", "guided_att_64", "feed_forward")
# The sequence of blocks that an MCAN-like network repeats. Each block is a prefix of an operation's name, followed by
# others to fall back on.
ENCODER_START = (("self_att",), ("feed_forward",))
DECODER_START = (("rel_self_att", "self_att"), ("guided_att",), ("feed_forward",))
# Initial logit of the preferred candidate; those of the others are its negative.
START_LOGIT = 1.0
# The relaxation in use until `EncoderDecoder.relax` sets another one. It draws nothing, so all blocks share it.
_GATES = SampledGates()


class GatedOperation(nn.Module):
    """A searched operation: n candidate operations with architecture parameters.

    Args:
        names: Names of the candidates, all different.
        hsize, dropout, relation_size: See `operations.Residual`.
        key: Key of the choice.

    Attributes:
        alpha_logits: Parameter, float32 (n,), initially zeros; its softmax gives the probabilities of the candidates.
        alpha_gate: Parameter, float32 (n,), that collects the gradients of the gates; its values have no meaning.
        choice: The `Choice` between the candidates.
        relaxation: The `Relaxation` that combines them.

    Raises:
        ValueError: a candidate is named twice.
        UserError: a candidate is unknown or does not fit the width.
    """

    def __init__(
        self, names: tuple[str, ...], hsize: int, dropout: float, relation_size: int = RELATION_SIZE, key: str = "block"
    ) -> None:
        super().__init__()
        self.alpha_logits = nn.Parameter(torch.zeros(len(names)))
        self.alpha_gate = nn.Parameter(torch.zeros(len(names)))
        if len(set(names)) < len(names):
            raise ValueError(f"candidates are named twice: {', '.join(names)}")
        keys = {module_key(name): name for name in names}
        self.operations = nn.ModuleDict(
            {key: make_operation(name, hsize, dropout, relation_size) for key, name in keys.items()}
        )
        self.choice = Choice(key, names, self, "alpha_logits", "alpha_gate")
        self.choice.drawn = Draw((0,))
        self.relaxation: Relaxation = _GATES

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates."""
        return self.choice.candidates

    @torch.no_grad()
    def prefer(self, prefixes: tuple[str, ...]) -> None:
        """Initialise the logits so that the first candidate that matches a prefix is preferred.

        Args:
            prefixes: Prefixes of names, the preferred one first. If none matches, the logits stay as they are.
        """
        fitting = [name for prefix in prefixes for name in self.names if name.startswith(prefix)]
        if fitting:
            self.alpha_logits.fill_(-START_LOGIT)
            self.alpha_logits[self.names.index(fitting[0])] = START_LOGIT

    def running(self) -> list[Operation]:
        """The operations that the next forward pass calls, the active one first."""
        operations: Any = list(self.operations.values())
        return [operations[k] for k in self.choice.running()]

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None = None,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
        relation: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the combined output of the candidates; arguments as in `operations.Operation.forward`."""
        inputs = (x, y, x_mask, y_mask, relation)
        candidates = [functools.partial(operation, *inputs) for operation in self.operations.values()]
        return self.relaxation.combine(self.choice, candidates, self.alpha_logits, gates=self.alpha_gate)
