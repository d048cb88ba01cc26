"""Dtypes of tensors."""

import torch


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Convert ``x`` to float32 if its dtype is less precise; otherwise return it unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
