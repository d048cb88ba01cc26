"""Weights of the networks that make region features: torchvision's, a file's, or drawn by chance for tests."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from util.cli import UserError
from util.torchvision_weights import fetch

RANDOM = "random"
# How a network's `source` begins that has torchvision's own weights.
TORCHVISION = "torchvision "


@dataclass(frozen=True)
class Weights:
    """Where the weights of one network come from.

    Args:
        name: The network's name in a sentence.
        entry: Name of the weights in ``torchvision.models`` (for ``get_weight``).
        flag: The flag that names a file or ``random``.
    """

    name: str
    entry: str
    flag: str

    def load(self, net, value):
        """Give ``net`` the weights that the flag asks for.

        Args:
            net: A network of torchvision, as drawn.
            value: Path of a state dict, ``random`` (keep what was drawn), or None: torchvision's cache or a download.

        Returns:
            Where the weights are from, in words.

        Raises:
            UserError: the file is missing or does not fit, or there is neither a cached copy nor a network.
        """
        from util.checkpoint import load_state_dict_file

        if value == RANDOM:
            return RANDOM
        if value is None:
            net.load_state_dict(self._fetch())
            return TORCHVISION + self.entry
        try:
            state = load_state_dict_file(value)
        except UserError as error:
            raise UserError(f"{self.flag}: {error}; {self._expected()}") from None
        try:
            # torchvision's layers translate the names of older files themselves, so only they can tell what fits.
            missing, unknown = net.load_state_dict(state, strict=False)
        except RuntimeError:
            raise UserError(f"{self.flag} {value} has tensors of other shapes; {self._expected()}") from None
        if missing or unknown:
            first = (missing + unknown)[0]
            raise UserError(
                f"{self.flag} {value} is of another network ({len(missing)} tensors missing, {len(unknown)} unknown, "
                f"the first {first}); {self._expected()}"
            )
        return str(Path(value).resolve())

    def _expected(self):
        return f"expected torchvision's {self._entry().url.rsplit('/', 1)[-1]} ({self.name}), or {RANDOM}"

    def _entry(self):
        from torchvision import models

        return models.get_weight(self.entry)

    def _fetch(self):
        otherwise = f"get {{url}} elsewhere and pass {self.flag} FILE, or use --backbone pixels, which needs none"
        return fetch(self._entry(), self.name, otherwise)


# The first version of ImageNet weights, as in the rest of the project.
RESNET101 = Weights("ResNet-101", "ResNet101_Weights.IMAGENET1K_V1", "--weights")
DETECTOR = Weights("Faster R-CNN", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1", "--detector_weights")


def digest(net):
    """Short hex string of all weights and buffers of a network."""
    import torch

    found = hashlib.blake2b(digest_size=8)
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
