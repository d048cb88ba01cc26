"""What all encoders share: taps, the head, and pooling that ignores padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from util.cli import UserError

RANDOM = "random, drawn from the seed"


class Encoder(nn.Module):
    """Base class of unimodal networks whose stages can be tapped. It is a `tasks.task.Backbone`.

    Subclasses define `forward` and `modules_of`. The head ``classifier`` (dropout and a linear layer) is created here.

    Args:
        available: Number of channels of every feature that can be tapped, in order.
        taps: Indices of the features to return; None: `default_taps`.
        num_outputs: Number of outputs of the head.
        dropout: Dropout rate before the head.
        name: Name of the encoder, for messages.

    Raises:
        UserError: ``taps`` are out of order or do not exist.

    Attributes:
        preparation: Function from a list of raw values (None: missing) to the encoder's input, a tensor or a dict of
            tensors. None: the data set prepares the input itself.
        settings: All that the features depend on besides weights; part of the key of cached features.
        trained: Whether the encoder is trained together with the fusion even if other backbones are frozen.
    """

    cacheable = True
    deterministic_features = False
    stops_early = True
    trained = False
    source = RANDOM
    preparation: Callable[[list], Any] | None = None

    def __init__(
        self, available: Sequence[int], taps: Sequence[int] | None, num_outputs: int, dropout: float, name: str
    ) -> None:
        super().__init__()
        self.taps = check_taps(taps, len(available), name) if taps is not None else self.default_taps(len(available))
        self.channels = tuple(available[tap] for tap in self.taps)
        self.settings: dict[str, Any] = {"name": name, "taps": self.taps}
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.channels[-1], num_outputs))

    @staticmethod
    def default_taps(available: int) -> tuple[int, ...]:
        """Four taps spread over the depth, including the last; all taps if there are fewer than five."""
        return tuple(sorted({-(-available * part // 4) - 1 for part in range(1, 5)}))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.classifier.parameters()).dtype

    def forward(self, inputs: Any, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` (None: all) tapped features, (N, C) or (N, C, ...) each."""
        raise NotImplementedError

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return outputs (N, num_outputs), computed from the mean of the last feature over its positions."""
        return self.classifier(features[-1].flatten(2).mean(2) if features[-1].dim() > 2 else features[-1])

    def modules_of(self, count: int) -> list[nn.Module]:
        """The modules that the first ``count`` features depend on."""
        raise NotImplementedError

    def load_library_weights(self, path: str, state: dict[str, torch.Tensor]) -> None:
        """Load weights in the form in which the encoder's library stores them.

        Args:
            path: The file, for messages.
            state: The state dict that was read from it.

        Raises:
            UserError: the weights belong to another network, or the encoder does not come from a library.
        """
        raise UserError(f"{path} does not hold weights of this encoder ({self.settings['name']})")


class Staged(Encoder):
    """Base class of encoders whose stages form a chain. Tap 0 is the input, tap i the output of stage i.

    Args:
        stages: The stages; those after the last tap are dropped.
        sizes: Number of channels of the input and of each stage's output.
        taps, num_outputs, dropout, name: See `Encoder`.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        sizes: Sequence[int],
        taps: Sequence[int] | None,
        num_outputs: int,
        dropout: float,
        name: str,
    ) -> None:
        super().__init__(sizes, taps, num_outputs, dropout, name)
        self.stages = nn.ModuleList(stages[: self.taps[-1]])
        self.deterministic_features = dropout == 0

    def modules_of(self, count: int) -> list[nn.Module]:
        return list(self.stages[: self.taps[count - 1]]) if count else []

    def wanted(self, count: int | None) -> tuple[int, ...]:
        """The first ``count`` taps."""
        return self.taps if count is None else self.taps[:count]


def check_taps(taps: Sequence[int], available: int, name: str) -> tuple[int, ...]:
    """Return the taps as a tuple if they exist and are in ascending order.

    Raises:
        UserError: they do not exist, repeat, or are out of order.
    """
    if list(taps) != sorted(set(taps)) or not taps or taps[0] < 0 or taps[-1] >= available:
        shown = ",".join(map(str, taps))
        raise UserError(f"--taps {shown}: {name} has the taps 0 to {available - 1}; name some of them, in order")
    return tuple(taps)


def lengths_mask(length: torch.Tensor, size: int) -> torch.Tensor:
    """Mask, bool (N, size), of the real positions of samples of ``length`` (N,); a length of 0 counts as 1."""
    return torch.arange(size, device=length.device) < length.clamp(min=1)[:, None]


def _segments(length, size, count):
    """Mask, bool (N, count, size), of the positions in each of ``count`` segments, divided as in adaptive pooling."""
    length = length.clamp(min=1, max=size)[:, None]
    part = torch.arange(count, device=length.device)[None]
    start, stop = part * length // count, -(-(part + 1) * length // count)
    position = torch.arange(size, device=length.device)
    return (position >= start[..., None]) & (position < stop[..., None])


def segment_means(states: torch.Tensor, length: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """Adaptive average pool over the real positions of each sample: (N, C, T) -> (N, C, *pool).

    Args:
        states: float (N, C, T); positions after a sample's length are padding and are ignored.
        length: int64 (N,), number of real positions; 0 counts as 1.
        pool: Output size (rows, columns). Time is divided into rows * columns segments.
    """
    weights = _segments(length, states.shape[2], pool[0] * pool[1]).to(states.dtype)
    weights = weights / weights.sum(2, keepdim=True)
    return torch.bmm(states, weights.transpose(1, 2)).unflatten(2, pool)


def segment_maxima(states: torch.Tensor, length: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """Adaptive max pool over the real positions of each sample; otherwise as `segment_means`."""
    inside = _segments(length, states.shape[2], pool[0] * pool[1])
    # One segment at a time limits the memory.
    parts = [states.masked_fill(~segment[:, None], -torch.inf).amax(2) for segment in inside.unbind(1)]
    return torch.stack(parts, dim=2).unflatten(2, pool)
