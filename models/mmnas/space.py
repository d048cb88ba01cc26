"""The search space of MMNas: the candidates of a block, and one block, searched or fixed.

Both sides have candidates of their own; words know nothing of regions, so encoder candidates need no other side and no
relation. Source: Yu et al., Deep Multimodal Neural Architecture Search, ACM MM 2020; gates after ProxylessNAS
(Cai et al., ICLR 2019).
"""

import functools
from collections.abc import Sequence

import torch
from torch import nn

from models.mmnas.operations import make_operation
from search.choice import Choice, Draw
from search.gates import SampledGates
from util.registry import module_key

# The published candidates, in the order of the columns of the architecture parameters.
ENCODER_CANDIDATES = ("self_att_64", "feed_forward")
DECODER_CANDIDATES = ("self_att_64", "rel_self_att_64", "guided_att_64", "feed_forward")
# What an MCAN-like network repeats, block by block: a prefix of an operation's name, and others to fall back on.
ENCODER_START = (("self_att",), ("feed_forward",))
DECODER_START = (("rel_self_att", "self_att"), ("guided_att",), ("feed_forward",))
# Logit of the preferred candidate at the start; the others get its negative.
START_LOGIT = 1.0
# A fixed operation by its name, or the names of candidates.
Member = str | tuple[str, ...]
# What combines candidates until a strategy is attached. It draws nothing, so all blocks share it.
_GATES = SampledGates()


class GatedOperation(nn.Module):
    """Candidate operations with architecture parameters.

    Args:
        names: Names of the candidates, all different.
        hsize, dropout, relation_size: See `operations.Operation`.
        key: Key of the choice.

    Attributes:
        alpha_logits: float32 (n,); their softmax gives the probabilities of the candidates. Zeros at first.
        alpha_gate: float32 (n,), a place for the gradients of the gates; its values have no meaning.
        choice: The `Choice` between the candidates.

    Raises:
        ValueError: a candidate is named twice.
        UserError: a candidate is unknown or does not fit the width.
    """

    def __init__(
        self, names: tuple[str, ...], hsize: int, dropout: float, relation_size: int = 64, key: str = "block"
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
        self.choice = Choice(key, names, self, "alpha_logits", "alpha_gate", relaxation=_GATES)
        self.choice.drawn = Draw((0,))

    @property
    def names(self) -> Sequence[str]:
        """Names of the candidates."""
        return self.choice.candidates

    @torch.no_grad()
    def prefer(self, prefixes: tuple[str, ...]) -> None:
        """Start from the first candidate that a prefix fits, which runs until a draw; without one nothing changes."""
        fitting = [name for prefix in prefixes for name in self.names if name.startswith(prefix)]
        if fitting:
            self.alpha_logits.fill_(-START_LOGIT)
            preferred = self.names.index(fitting[0])
            self.alpha_logits[preferred] = START_LOGIT
            self.choice.drawn = Draw((preferred,))

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None = None,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
        relation: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Combined output of the candidates; arguments as in `operations.Operation`."""
        inputs = (x, y, x_mask, y_mask, relation)
        candidates = [functools.partial(operation, *inputs) for operation in self.operations.values()]
        return self.choice.relaxation.combine(self.choice, candidates, self.alpha_logits, gates=self.alpha_gate)


class Block(nn.ModuleList):
    """Operations on the same input, their outputs summed; searched ones are `GatedOperation`.

    Args:
        members: Names of fixed operations, or tuples of candidates.
        hsize, dropout, relation_size: See `operations.Operation`.
        key: Name of the block, which the keys of its choices begin with.
    """

    def __init__(
        self, members: Sequence[Member], hsize: int, dropout: float, relation_size: int = 64, key: str = "block"
    ) -> None:
        sizes = (hsize, dropout, relation_size)
        super().__init__(
            make_operation(member, *sizes)
            if isinstance(member, str)
            else GatedOperation(member, *sizes, key=f"{key}.{i}")
            for i, member in enumerate(members)
        )
        self.members = tuple(members)

    def discretise(self, scores: dict[str, torch.Tensor]) -> tuple[str, ...]:
        """Names of the operations, of gated ones the best candidate; ``scores`` as in `EncoderDecoder.discretise`."""
        return tuple(
            operation.names[int(scores[operation.choice.key].argmax())]
            if isinstance(operation, GatedOperation)
            else member
            for member, operation in zip(self.members, self, strict=True)
        )

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None = None,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
        relation: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Sum of the operations' outputs; arguments as in `operations.Operation`."""
        first, *others = [operation(x, y, x_mask, y_mask, relation) for operation in self]
        return sum(others, first)
