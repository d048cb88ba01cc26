"""3-D bottleneck blocks, shared by the inflated ResNet-50 and the 3-D ResNeXt-101."""

import torch
from torch import nn


class Bottleneck3d(nn.Module):
    """1x1x1, 3x3x3 and 1x1x1 convolutions, each with batch norm, added to a shortcut.

    Maps (N, in_channels, T, H, W) to (N, out_channels, t, h, w). Parameter names are those of the originals.

    Args:
        in_channels, width, out_channels: Channels before, within and after the block.
        stride: Stride of the 3x3x3 convolution and of the shortcut, one number or (T, H, W).
        groups: Groups of the 3x3x3 convolution.
        project: Give the shortcut its own 1x1x1 convolution and batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int | tuple[int, int, int],
        groups: int,
        project: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        # In place: the backward pass of batch norm needs its input, not its output.
        return self.relu(self.bn3(self.conv3(out)).add_(shortcut))


def build_stage(
    in_channels: int, width: int, out_channels: int, blocks: int, stride: int | tuple[int, int, int], groups: int = 1
) -> nn.Sequential:
    """Build a stage of ``blocks`` bottlenecks. The first one has the stride and the projected shortcut."""
    first = Bottleneck3d(in_channels, width, out_channels, stride, groups, project=True)
    rest = [Bottleneck3d(out_channels, width, out_channels, 1, groups, project=False) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def put_channels_last(net: nn.Module) -> None:
    """Store the kernels of all convolutions channels-last, the layout of the fast implementations. Values stay."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)


def channels_last_3d(x: torch.Tensor) -> torch.Tensor:
    """Convert a tensor (N, C, T, H, W) to the channels-last memory layout."""
    return x.contiguous(memory_format=torch.channels_last_3d)
