"""Tensors inside lists and dicts, as batches and inputs of several tensors hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """``value`` with ``function(tensor)`` in place of each tensor; lists and dicts are copied, the rest is kept."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, list):
        return [map_tensors(function, item) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of ``value``, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def rows_of(value: Any, start: int, stop: int) -> Any:
    """Rows ``start`` to ``stop`` of every tensor of ``value``."""
    return map_tensors(lambda tensor: tensor[start:stop], value)


def parts_of(inputs: Any) -> dict[str, torch.Tensor]:
    """The tensors of an input by name; "" if it is a single one."""
    return {"": inputs} if isinstance(inputs, torch.Tensor) else dict(inputs)
