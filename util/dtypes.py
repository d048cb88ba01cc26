"""Number types of tensors."""

import torch


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32, or as it is in float64: reduced precision ends here."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
