"""VGG-19 image network with four feature taps (MM-IMDB posters)."""

from collections.abc import Mapping

import torch
from torch import nn

_CHANNELS = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")
# relu4_1, relu4_4, relu5_3, pool5: indices into torchvision's `vgg19().features`.
_TAPS = (20, 26, 33, 36)


class VGG19Taps(nn.Module):
    """torchvision's VGG-19 without batch norm, tapped after layers 20, 26, 33 and 36.

    Parameter names are those of the original: ``vgg.{i}.*`` for the convolutions, ``bn4.*`` and ``classifier.*``
    for the head. Random weights follow torchvision's initialisation.

    Args:
        num_outputs: Number of classes of the unimodal head.
    """

    channels = (512, 512, 512, 512)
    deterministic_features = True
    cacheable = True

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(_layers())
        self.bn4 = nn.BatchNorm1d(self.channels[-1])
        self.classifier = nn.Linear(self.channels[-1], num_outputs)
        # The layout in which the convolution kernels work; contiguous tensors would be converted back and forth.
        self.vgg.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` of five features.

        Args:
            images: (N, 3, H, W), uint8 or float, H and W at least 32. Values are used as stored: the original does
                not normalise images.
            count: 1..4: stop after that tap; None: return all.

        Returns:
            Taps 1 to 4, (N, 512, h, w) each, where h and w are 1/8, 1/8, 1/16 and 1/32 of H and W, rounded down; and
            the spatial mean of tap 4, (N, 512), which the head reads.
        """
        x = images.to(self.classifier.weight.dtype).contiguous(memory_format=torch.channels_last)
        features = []
        for index, layer in enumerate(self.vgg):
            x = layer(x)
            if index in _TAPS:
                features.append(x)
                if len(features) == count:
                    return features
        return [*features, x.mean(dim=(2, 3))]

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return class logits (N, num_outputs) from the features of `forward`."""
        return self.classifier(self.bn4(features[-1]))

    def modules_of(self, count: int) -> list[nn.Module]:
        """Modules that the first ``count`` taps depend on."""
        return [self.vgg[: _TAPS[count - 1] + 1]] if count else []

    def load_torchvision(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Copy the convolutions from a state dict of ``torchvision.models.vgg19``.

        Raises:
            KeyError, RuntimeError: the state dict belongs to another network.
        """
        prefix = "features."
        self.vgg.load_state_dict({k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)})


def _layers():
    layers: list[nn.Module] = []
    channels = 3
    for width in _CHANNELS:
        if isinstance(width, str):  # "M"
            layers.append(nn.MaxPool2d(2))
            continue
        conv = nn.Conv2d(channels, width, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.ReLU(inplace=True)]
        channels = width
    return layers
