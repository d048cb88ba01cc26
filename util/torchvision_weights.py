"""torchvision's published weights, from its cache or from a download with a timeout."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from util.cli import UserError

if TYPE_CHECKING:
    import torch

_DOWNLOAD_TIMEOUT = 30.0


def fetch(entry: Any, name: str, otherwise: str) -> dict[str, torch.Tensor]:
    """Get the state dict of published weights.

    Args:
        entry: Member of a torchvision weights enumeration.
        name: Name of the weights, for messages.
        otherwise: Remedy for messages; ``{url}`` in it is replaced by the address of the weights.

    Raises:
        UserError: the weights are not in the cache and cannot be downloaded.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"torchvision's {name} is not in its cache and cannot be downloaded ({getattr(error, 'reason', error)}): "
            f"{otherwise.format(url=entry.url)}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
