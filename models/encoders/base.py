"""What all encoders share: taps, the head, and pooling that leaves padding out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from util.cli import UserError

RANDOM = "random, drawn from the seed"


class Encoder(nn.Module):
    """A unimodal network whose stages can be tapped; a `tasks.task.Backbone`.

    Derive from it, set ``classifier`` and define `forward`.

    Args:
        available: Channels of every feature that can be tapped, in order.
        taps: Indices of those that are; None: `default_taps`.
        num_outputs: Outputs of its own head.
        dropout: Dropout rate before the head.
        name: What the encoder is, for messages.

    Attributes:
        preparation: Function from a list of raw values (None: missing) to its input, a tensor or a dict of tensors;
            None: the data set's own.
        settings: All that its features depend on besides weights, for the key of stored features.
        trained: Whether it is trained with the fusion where the other backbones are frozen.
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
        """Four taps spread over the depth, the last among them; all of fewer than five."""
        return tuple(sorted({-(-available * part // 4) - 1 for part in range(1, 5)}))

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights."""
        return next(self.classifier.parameters()).dtype

    def forward(self, inputs: Any, count: int | None = None) -> list[torch.Tensor]:
        """The first ``count`` (None: all) tapped features."""
        raise NotImplementedError

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Outputs (N, num_outputs) from the mean of the last feature over its positions."""
        return self.classifier(features[-1].flatten(2).mean(2) if features[-1].dim() > 2 else features[-1])

    def modules_of(self, count: int) -> list[nn.Module]:
        """The modules that the first ``count`` features depend on."""
        raise NotImplementedError

    def load_library_weights(self, path: str, state: dict[str, torch.Tensor]) -> None:
        """Load a file of the library's weights.

        Raises:
            UserError: they do not fit, or the encoder has none.
        """
        raise UserError(f"{path} does not hold weights of this encoder ({self.settings['name']})")


class Staged(Encoder):
    """An encoder of stages in a row; tap 0 is its input, tap i the output of stage i.

    Args:
        stages: The stages.
        sizes: Channels of the input and of each stage's output.
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
    """The taps, if they are in order and exist.

    Raises:
        UserError: they are not.
    """
    if list(taps) != sorted(set(taps)) or not taps or taps[0] < 0 or taps[-1] >= available:
        shown = ",".join(map(str, taps))
        raise UserError(f"--taps {shown}: {name} has the taps 0 to {available - 1}; name some of them, in order")
    return tuple(taps)


def lengths_mask(length: torch.Tensor, size: int) -> torch.Tensor:
    """bool (N, size), True before each sample's ``length`` (N,); at least one position counts."""
    return torch.arange(size, device=length.device) < length.clamp(min=1)[:, None]


def _segments(length, size, count):
    """bool (N, count, size): positions of each of ``count`` segments of equal length, as adaptive pooling cuts them."""
    length = length.clamp(min=1, max=size)[:, None]
    part = torch.arange(count, device=length.device)[None]
    start, stop = part * length // count, -(-(part + 1) * length // count)
    position = torch.arange(size, device=length.device)
    return (position >= start[..., None]) & (position < stop[..., None])


def segment_means(states: torch.Tensor, length: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """Means over segments of the first ``length`` positions of each sample: (N, C, T) -> (N, C, *pool).

    Args:
        states: float (N, C, T); positions after the sample's length are padding and have no influence.
        length: int64 (N,); 0 counts as 1.
        pool: Output size (rows, columns); rows * columns segments.
    """
    weights = _segments(length, states.shape[2], pool[0] * pool[1]).to(states.dtype)
    weights = weights / weights.sum(2, keepdim=True)
    return torch.bmm(states, weights.transpose(1, 2)).unflatten(2, pool)


def segment_maxima(states: torch.Tensor, length: torch.Tensor, pool: tuple[int, int]) -> torch.Tensor:
    """Maxima over segments; as `segment_means`."""
    inside = _segments(length, states.shape[2], pool[0] * pool[1])
    # One segment at a time limits the memory.
    parts = [states.masked_fill(~segment[:, None], -torch.inf).amax(2) for segment in inside.unbind(1)]
    return torch.stack(parts, dim=2).unflatten(2, pool)
