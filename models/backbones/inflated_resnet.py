"""ResNet-50 with a 2-D stem and 3-D bottlenecks inflated from ImageNet weights (NTU RGB+D videos)."""

from collections.abc import Mapping

import torch
from torch import nn

from models.backbones.resnet3d import build_stage, channels_last_3d, put_channels_last

# The original applies them to the channels in the order of the file, whether RGB or BGR.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_BLOCKS = (3, 4, 6, 3)
_WIDTH = 64
# Frames, rows and columns that the original's pool averages; it was made for 8 frames of 224 pixels.
_ORIGINAL_POOL = (8, 7, 7)


class InflatedResNet50(nn.Module):
    """Video network with four features; parameter names are those of the original (``cnn.*``, ``classifier.*``).

    Convolutions are drawn from N(0, 2 / (k0 * k1 * outputs)), where k0 and k1 are the first two axes of the
    kernel, as in the original.

    Args:
        num_outputs: Classes of its own head.
        pool: ``7x7`` averages the first 8 frames, 7 rows and 7 columns of the last map, as the original does (it drops
            a row and a column of the 8x8 map of 256 pixels); ``full`` averages the full map.
    """

    channels = (512, 1024, 2048, 2048)
    deterministic_features = False
    cacheable = True

    def __init__(self, num_outputs: int, pool: str = "7x7") -> None:
        super().__init__()
        if pool not in ("7x7", "full"):
            raise ValueError(f"pool {pool!r}: expected 7x7 or full")
        self.pool = self.settings = pool
        self.cnn = _Body()
        self.classifier = nn.Linear(self.channels[-1], num_outputs)
        put_channels_last(self)

    def forward(self, frames: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` of four features (all when None).

        Args:
            frames: (N, T, H, W, 3): uint8, normalised here, or float, normalised before.
            count: 1..3: stop after that feature.

        Returns:
            Maps of layers 2, 3 and 4, (N, 512 | 1024 | 2048, T, h, w), with h and w an 8th, a 16th and a
            32nd of H and W, rounded up; and their pool, (N, 2048), which the head reads.
        """
        x = normalise(frames) if frames.dtype == torch.uint8 else frames
        x = self.cnn.stem(x.to(self.classifier.weight.dtype))
        features = []
        for layer in self.cnn.layers(count):
            x = layer(x)
            features.append(x)
        features = features[1:]
        return features if len(features) == count else [*features, self._pooled(x)]

    def _pooled(self, x):
        if self.pool == "7x7":
            frames, rows, columns = _ORIGINAL_POOL
            x = x[:, :, :frames, :rows, :columns]
        return x.mean(dim=(2, 3, 4))

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Class logits (N, num_outputs) from the list that `forward` returns."""
        return self.classifier(features[-1])

    def modules_of(self, count: int) -> list[nn.Module]:
        """Modules that the first ``count`` features depend on."""
        return [self.cnn.conv1, self.cnn.bn1, *self.cnn.layers(count)] if count else []

    def load_torchvision(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Copy and inflate a state dict of ``torchvision.models.resnet50``, without its classifier.

        Raises:
            RuntimeError: it is of another network.
        """
        own = self.cnn.state_dict()
        body = {key: value for key, value in state_dict.items() if not key.startswith("fc.")}
        for key, value in body.items():
            if value.dim() == 4 and key in own and own[key].dim() == 5:
                body[key] = inflate(value, own[key].shape[2])
        self.cnn.load_state_dict(body)


class _Body(nn.Module):
    """The stem, frame by frame, and four stages that keep the number of frames."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = _WIDTH
        for i, blocks in enumerate(_BLOCKS):
            width = _WIDTH * 2**i
            stride = (1, 1, 1) if i == 0 else (1, 2, 2)
            self.add_module(f"layer{i + 1}", build_stage(channels, width, 4 * width, blocks, stride))
            channels = 4 * width
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                outputs, (k0, k1) = module.out_channels, module.kernel_size[:2]
                nn.init.normal_(module.weight, std=(2 / (k0 * k1 * outputs)) ** 0.5)

    def stem(self, frames):
        """(N, T, H, W, 3) -> (N, 64, T, h, w)."""
        x = frames.flatten(0, 1).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return channels_last_3d(x.unflatten(0, frames.shape[:2]).transpose(1, 2))

    def layers(self, count=None):
        """The stages that the first ``count`` features need; the fourth feature has no stage of its own."""
        return [self.layer1, self.layer2, self.layer3, self.layer4][: None if count is None else count + 1]


def normalise(frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames (..., 3) as float32, divided by 255, minus `MEAN`, divided by `STD`."""
    # Tensors, since a GPU would multiply by the reciprocal of a Python number.
    white, mean, std = torch.tensor([(255.0,) * 3, MEAN, STD], device=frames.device)
    return frames.to(torch.float32).div_(white).sub_(mean).div_(std)


def inflate(weight: torch.Tensor, frames: int) -> torch.Tensor:
    """A 2-D kernel (O, I, h, w) as a 3-D one (O, I, frames, h, w) that reads only frame ``frames // 2``."""
    inflated = weight.new_zeros((*weight.shape[:2], frames, *weight.shape[2:]))
    inflated[:, :, frames // 2] = weight
    return inflated
