"""ResNet-50 with a 2-D stem and 3-D bottlenecks inflated from ImageNet weights (NTU RGB+D videos)."""

from collections.abc import Mapping

import torch
from torch import nn

from models.backbones.resnet3d import build_stage, channels_last_3d, put_channels_last

# ImageNet statistics in RGB order. The original applies them to the channels as they come, which OpenCV reads as BGR.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_BLOCKS = (3, 4, 6, 3)
_WIDTH = 64
# Frames, rows and columns that the original's pool averages: the size of the last map for 8 frames of 224x224 pixels.
_ORIGINAL_POOL = (8, 7, 7)


class InflatedResNet50(nn.Module):
    """Video network with four features; parameter names are those of the original (``cnn.*``, ``classifier.*``).

    Convolutions are drawn from a normal distribution of variance 2 / (k0 * k1 * outputs), where k0 and k1 are the
    first two axes of the kernel, as in the original.

    Args:
        num_outputs: Number of classes of the unimodal head.
        pool: ``7x7`` averages the first 8 frames, 7 rows and 7 columns of the last map, as the original does (frames
            of 256 pixels give an 8x8 map, whose last row and column are ignored). ``full`` averages the whole map.

    Raises:
        ValueError: ``pool`` is neither.
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
        """Return the first ``count`` of four features.

        Args:
            frames: (N, T, H, W, 3): uint8, normalised here, or float, already normalised.
            count: 1..3: stop after that feature; None: return all.

        Returns:
            The maps of layers 2, 3 and 4, (N, 512 | 1024 | 2048, T, h, w), where h and w are 1/8, 1/16 and 1/32 of
            H and W, rounded up; and the pooled last map, (N, 2048), which the head reads.
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
        """Return class logits (N, num_outputs) from the features of `forward`."""
        return self.classifier(features[-1])

    def modules_of(self, count: int) -> list[nn.Module]:
        """Modules that the first ``count`` features depend on."""
        return [self.cnn.conv1, self.cnn.bn1, *self.cnn.layers(count)] if count else []

    def load_torchvision(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Copy and inflate a state dict of ``torchvision.models.resnet50``, except for its classifier.

        Raises:
            RuntimeError: the state dict belongs to another network.
        """
        own = self.cnn.state_dict()
        body = {key: value for key, value in state_dict.items() if not key.startswith("fc.")}
        for key, value in body.items():
            if value.dim() == 4 and key in own and own[key].dim() == 5:
                body[key] = inflate(value, own[key].shape[2])
        self.cnn.load_state_dict(body)


class _Body(nn.Module):
    """The stem, a 2-D network applied to each frame, and four 3-D stages, which keep the number of frames."""

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
    """Normalise uint8 frames (..., 3): convert to float32, divide by 255, subtract `MEAN`, divide by `STD`."""
    # Divide by tensors: with a Python number, a GPU would multiply by its reciprocal and round differently.
    white, mean, std = torch.tensor([(255.0,) * 3, MEAN, STD], device=frames.device)
    return frames.to(torch.float32).div_(white).sub_(mean).div_(std)


def inflate(weight: torch.Tensor, frames: int) -> torch.Tensor:
    """Inflate a 2-D kernel (O, I, h, w) to a 3-D one (O, I, frames, h, w) that reads only frame ``frames // 2``."""
    inflated = weight.new_zeros((*weight.shape[:2], frames, *weight.shape[2:]))
    inflated[:, :, frames // 2] = weight
    return inflated
