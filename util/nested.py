"""Tensors, also in nested lists and dicts such as batches: mapping, slicing, moving, splitting, raising precision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Replace each tensor in ``value`` by ``function(tensor)``. Lists and dicts are copied; other values are kept."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, list):
        return [map_tensors(function, item) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in ``value``, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def rows_of(value: Any, start: int, stop: int) -> Any:
    """Slice rows ``start`` to ``stop`` (exclusive) of every tensor in ``value``."""
    return map_tensors(lambda tensor: tensor[start:stop], value)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move the tensors of a batch dict, including those in nested lists and dicts, to ``device``."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


def split_batch(batch: dict[str, Any], size: int, min_part: int = 2) -> list[tuple[int, dict[str, Any]]]:
    """Split a batch dict into parts of nearly equal size.

    Args:
        batch: The batch dict, with ``label``.
        size: Maximum number of samples of a part; 0: a single part.
        min_part: Minimum number of samples of a part, which wins over ``size``. Batch norm needs two samples.

    Returns:
        List of (number of samples, batch dict).
    """
    count = len(batch["label"])
    parts = math.ceil(count / size) if size else 1
    while parts > 1 and count // parts < min_part:
        parts -= 1
    if parts == 1:
        return [(count, batch)]
    bounds = [count * i // parts for i in range(parts + 1)]
    return [(stop - start, rows_of(batch, start, stop)) for start, stop in itertools.pairwise(bounds)]


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32 if its type is less precise, otherwise unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def parts_of(inputs: Any) -> dict[str, torch.Tensor]:
    """The tensors of an input by name; a single tensor has the name ""."""
    return {"": inputs} if isinstance(inputs, torch.Tensor) else dict(inputs)
