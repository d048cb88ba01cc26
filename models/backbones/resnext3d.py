"""3-D ResNeXt-101 for RGB and depth clips (EgoGesture), after Hara et al. 2018."""

import torch
from torch import nn

from models.backbones.resnet3d import build_stage, channels_last_3d, put_channels_last

# Mean of the ActivityNet videos, on the scale 0..255; depth uses the first value.
MEAN = (114.7748, 107.7354, 99.475)
_BLOCKS = (3, 4, 23, 3)
_WIDTH = 64
_GROUPS = 32


class ResNeXt101(nn.Module):
    """Clip network with four features; parameter names are those of the original.

    Convolutions are drawn by He's normal rule (fan-out), except for the RGB stem, which has torch's default
    initialisation. The kernel of a depth stem is the channel mean of an RGB kernel, as in the original.

    Args:
        num_outputs: Number of classes of the unimodal head.
        in_channels: 3 (RGB) or 1 (depth).
    """

    channels = (512, 1024, 2048, 2048)
    deterministic_features = False
    cacheable = True

    def __init__(self, num_outputs: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = _stem(in_channels)
        self.bn1 = nn.BatchNorm3d(_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        channels = _WIDTH
        for i, blocks in enumerate(_BLOCKS):
            width, out_channels, stride = 2 * _WIDTH * 2**i, 4 * _WIDTH * 2**i, 1 if i == 0 else 2
            self.add_module(f"layer{i + 1}", build_stage(channels, width, out_channels, blocks, stride, _GROUPS))
            channels = out_channels
        self.fc = nn.Linear(self.channels[-1], num_outputs)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv3d) and name != "conv1":
                _he_normal(module.weight)
        put_channels_last(self)

    def forward(self, clips: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` of four features.

        Args:
            clips: (N, in_channels, T, H, W): uint8, from which the mean is subtracted here, or float, from which it
                has been subtracted already.
            count: 1..3: stop after that feature; None: return all.

        Returns:
            The maps of layers 2, 3 and 4, (N, 512 | 1024 | 2048, t, h, w), where t is 1/4, 1/8 and 1/16 of T, and
            h and w are 1/8, 1/16 and 1/32 of H and W, rounded up; and the mean of the last map over all positions,
            (N, 2048), which the head reads.
        """
        x = subtract_mean(clips) if clips.dtype == torch.uint8 else clips
        x = self.conv1(channels_last_3d(x.to(self.fc.weight.dtype)))
        # A convolution with one input channel does not keep the memory layout.
        x = self.maxpool(self.relu(self.bn1(channels_last_3d(x))))
        features = []
        for layer in self._layers(count):
            x = layer(x)
            features.append(x)
        features = features[1:]
        return features if len(features) == count else [*features, x.mean(dim=(2, 3, 4))]

    def _layers(self, count=None):
        """The stages that the first ``count`` features need; the fourth feature has no stage of its own."""
        return [self.layer1, self.layer2, self.layer3, self.layer4][: None if count is None else count + 1]

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return class logits (N, num_outputs) from the features of `forward`."""
        return self.fc(features[-1])

    def modules_of(self, count: int) -> list[nn.Module]:
        """Modules that the first ``count`` features depend on."""
        return [self.conv1, self.bn1, *self._layers(count)] if count else []


def subtract_mean(clips: torch.Tensor) -> torch.Tensor:
    """Convert uint8 clips (N, C, T, H, W) to float32 and subtract the first C values of `MEAN`, one per channel."""
    mean = torch.tensor(MEAN[: clips.shape[1]], device=clips.device)
    return clips.to(torch.float32, memory_format=torch.channels_last_3d).sub_(mean.view(-1, 1, 1, 1))


def _stem(in_channels):
    size = {3: (3, 7, 7), 1: (7, 7, 7)}[in_channels]
    padding = (size[0] // 2, size[1] // 2, size[2] // 2)
    conv = nn.Conv3d(in_channels, _WIDTH, size, stride=(1, 2, 2), padding=padding, bias=False)
    if in_channels == 1:
        colour = torch.empty(_WIDTH, 3, *size)
        _he_normal(colour)
        conv.weight.data.copy_(colour.mean(dim=1, keepdim=True))
    return conv


def _he_normal(weight):
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
