"""The search space of MMNas: the candidates of a block, and the module of one block, searched or fixed.

Encoder and decoder have different candidates. The encoder only reads words, so its candidates need neither the other
side nor relations. Source: Yu et al., Deep Multimodal Neural Architecture Search, ACM MM 2020; gates after ProxylessNAS
(Cai et al., ICLR 2019).
"""

import functools
from collections.abc import Sequence

import torch
from torch import nn

from models.mmnas.layers import RELATION_SIZE
from models.mmnas.operations import make_operation
from search.choice import Choice, Draw
from search.gates import SampledGates
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
# The name of a fixed operation, or the names of the candidates of a searched one.
Member = str | tuple[str, ...]
# The relaxation in use until a strategy is attached. It draws nothing, so all blocks share it.
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
        self.choice = Choice(key, names, self, "alpha_logits", "alpha_gate", relaxation=_GATES)
        self.choice.drawn = Draw((0,))

    @property
    def names(self) -> Sequence[str]:
        """Names of the candidates."""
        return self.choice.candidates

    @torch.no_grad()
    def prefer(self, prefixes: tuple[str, ...]) -> None:
        """Initialise the logits so that the first candidate that matches a prefix is preferred, and runs until a draw.

        Args:
            prefixes: Prefixes of names, the preferred one first. If none matches, nothing changes.
        """
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
        """Return the combined output of the candidates; arguments as in `operations.Operation.forward`."""
        inputs = (x, y, x_mask, y_mask, relation)
        candidates = [functools.partial(operation, *inputs) for operation in self.operations.values()]
        return self.choice.relaxation.combine(self.choice, candidates, self.alpha_logits, gates=self.alpha_gate)


class Block(nn.ModuleList):
    """Operations on the same input, whose outputs are summed. A searched one is a `GatedOperation`.

    Args:
        members: For each operation its name, or a tuple with the names of candidates.
        hsize, dropout, relation_size: See `operations.Residual`.
        key: Name of the block, the prefix of the keys of its choices.
    """

    def __init__(
        self,
        members: Sequence[Member],
        hsize: int,
        dropout: float,
        relation_size: int = RELATION_SIZE,
        key: str = "block",
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
        """Names of the operations; a gated one is represented by its best candidate.

        Args:
            scores: Key of a choice -> scores of its candidates (n,).
        """
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
        """Return the sum of the operations' outputs; arguments as in `operations.Operation.forward`."""
        first, *others = [operation(x, y, x_mask, y_mask, relation) for operation in self]
        return sum(others, first)
