"""Loss terms that architecture steps add and that depend on the logits only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from search.choice import Choice, SearchSpace
from util.cli import UserError


class Regularizer:
    """Base class of terms. Subclasses override `term`; the search loops call `begin_epoch` and `add_gradients`.

    The term is added to the loss of an architecture step. In BM-NAS this loss is a mean over samples; in MMNas' VQA it
    is a sum over samples, so the same weight has less effect there.
    """

    def attach(self, space: SearchSpace) -> None:
        """Called once with the space that is searched, a `search.choice.SearchSpace`."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Update settings that depend on the epoch, which is 0 to ``epochs`` - 1."""

    def term(self, logits: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Return the term, a scalar with gradients to the logits of all choices; None: nothing to add."""
        raise NotImplementedError

    def add_gradients(self, choices: list[Choice], scale: float = 1.0) -> None:
        """Add the term's gradients, times ``scale`` (the loss scale of mixed precision), to those of the logits."""
        logits = [choice.logits.detach().requires_grad_() for choice in choices]
        with torch.enable_grad():
            term = self.term(logits)
        if term is None:
            return
        # A term may leave out some choices.
        gradients = torch.autograd.grad(term * scale, logits, allow_unused=True)
        for choice, gradient in zip(choices, gradients, strict=True):
            if gradient is None:
                continue
            own = choice.logits.grad
            choice.logits.grad = gradient if own is None else own + gradient


class BetaDecay(Regularizer):
    """beta-DARTS (Ye et al., CVPR 2022): lambda * mean over all rows of logsumexp(logits).

    The gradient of a row is lambda * softmax(row) / rows, so strong candidates decay most. lambda rises linearly: in
    epoch e of E it is ``weight`` * e / E, as in the released code (50 * e / 100).

    Args:
        weight: The value that lambda rises to; 0: no effect.
    """

    def __init__(self, weight: float) -> None:
        self.weight, self.now = weight, 0.0

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set lambda for this epoch."""
        self.now = self.weight * epoch / epochs

    def term(self, logits: Sequence[torch.Tensor]) -> torch.Tensor | None:
        if not self.now:
            return None
        return self.now * torch.cat([values.logsumexp(-1).flatten() for values in logits]).mean()


class DirichletKL(Regularizer):
    """DrNAS (Chen et al., ICLR 2021): weight * sum over rows of KL(Dir(elu(logits) + 1) || Dir(1)).

    It is 0 where elu(logits) = 0.

    Args:
        weight: Weight of the term; 0: no effect.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def term(self, logits: Sequence[torch.Tensor]) -> torch.Tensor | None:
        if not self.weight:
            return None
        total: Any = sum(dirichlet_kl(concentrations(values)).sum() for values in logits)
        return self.weight * total


class CostPenalty(Regularizer):
    """weight * expected cost under the current probabilities (as in ProxylessNAS, Cai et al., 2019).

    The cost is a fraction of the largest cost that the space allows, so a weight has a similar effect in every space.

    Args:
        weight: Weight of the term.
        kind: ``parameters`` or ``flops``.
    """

    def __init__(self, weight: float, kind: str) -> None:
        self.weight, self.kind = weight, kind
        self.choices: list[Choice] = []
        self.cost: Any = None

    def attach(self, space: SearchSpace) -> None:
        """Get the expected cost of the space.

        Raises:
            UserError: the space does not define it.
        """
        if not hasattr(space, "expected_cost"):
            raise UserError("--cost_weight: this network has no expected_cost; see search/choice.py:SearchSpace")
        self.choices, self.cost = space.choices(), space.expected_cost(self.kind)

    def term(self, logits: Sequence[torch.Tensor]) -> torch.Tensor | None:
        pairs = zip(self.choices, logits, strict=True)
        return self.weight * self.cost({choice.key: choice.probabilities_of(values) for choice, values in pairs})


def concentrations(logits: torch.Tensor) -> torch.Tensor:
    """Concentrations elu(logits) + 1 of a Dirichlet distribution, clamped to stay above zero."""
    return (F.elu(logits) + 1).clamp(min=1e-6)


def dirichlet_kl(c: torch.Tensor) -> torch.Tensor:
    """KL(Dir(c) || Dir(1)) for each row of c: (..., n) -> (...)."""
    total, count = c.sum(-1), torch.tensor(float(c.shape[-1]), dtype=c.dtype, device=c.device)
    spread = ((c - 1) * (torch.digamma(c) - torch.digamma(total).unsqueeze(-1))).sum(-1)
    return torch.lgamma(total) - torch.lgamma(c).sum(-1) - torch.lgamma(count) + spread
