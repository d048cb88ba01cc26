"""Number types of tensors."""

import torch


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32 if its type is less precise, otherwise unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
