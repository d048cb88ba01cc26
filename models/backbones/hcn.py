"""Skeleton network HCN (NTU RGB+D), after Li et al. 2018: hierarchical co-occurrence of joints."""

import torch
from torch import nn
from torch.nn import functional as F

_COORDINATES, JOINTS = 3, 25


class SkeletonHCN(nn.Module):
    """Convolutions on the positions and motions of each person, then the maximum over persons.

    Parameter names are those of the original (24 tensors). Weights are drawn by Glorot's uniform rule, biases are 0.
    All persons form one batch, so each person has its own dropout masks.

    Args:
        num_outputs: Number of classes of the unimodal head.
        dropout: Dropout rate; it drops channels of feature maps, and elements of the last feature.
    """

    channels = (128, 256, 1024, 512)
    deterministic_features = False
    cacheable = True

    def __init__(self, num_outputs: int, dropout: float) -> None:
        super().__init__()
        for suffix in ("", "m"):
            self.add_module(f"conv1{suffix}", nn.Sequential(nn.Conv2d(_COORDINATES, 64, 1), nn.ReLU(inplace=True)))
            self.add_module(f"conv2{suffix}", nn.Conv2d(64, 32, (3, 1), padding=(1, 0)))
            self.add_module(f"conv3{suffix}", nn.Sequential(_conv3x3(JOINTS, 32), nn.MaxPool2d(2)))
            self.add_module(f"conv4{suffix}", nn.Sequential(_conv3x3(32, 64), nn.Dropout2d(dropout), nn.MaxPool2d(2)))
        self.conv5 = _merged(128, 128, dropout)
        self.conv6 = _merged(128, 256, dropout)
        self.fc7 = nn.Sequential(nn.Linear(1024, 512), nn.ReLU(inplace=True), nn.Dropout(dropout))
        self.fc8 = nn.Linear(512, num_outputs)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, skeletons: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
        """Return the first ``count`` of four features.

        Args:
            skeletons: (N, 3, 32, 25, M): coordinates, frames, joints, persons.
            count: 1..3: stop after that feature; None: return all.

        Returns:
            The maps of conv5, (N, 128, 4, 4), and of conv6, (N, 256, 2, 2); the latter flattened, (N, 1024); and
            (N, 512), which the head reads.
        """
        persons = skeletons.shape[-1]
        x = skeletons.to(self.fc8.weight.dtype).permute(4, 0, 1, 2, 3).flatten(0, 1)
        motion = F.interpolate(x[:, :, 1:] - x[:, :, :-1], size=x.shape[2:], mode="bilinear", align_corners=False)
        x = self.conv5(torch.cat([self._branch(x, ""), self._branch(motion, "m")], dim=1))
        features = [_largest(x, persons)]
        if count == 1:
            return features
        features.append(_largest(self.conv6(x), persons))
        features.append(features[1].flatten(1))
        return features[:count] if count in (2, 3) else [*features, self.fc7(features[2])]

    def _branch(self, x, suffix):
        """(N, 3, T, 25) -> (N, 64, T / 4, 8). From conv3 on, the joints are the channels."""
        conv1, conv2, conv3, conv4 = self._branch_modules(suffix)
        return conv4(conv3(conv2(conv1(x)).permute(0, 3, 2, 1)))

    def _branch_modules(self, suffix):
        return [getattr(self, f"conv{i}{suffix}") for i in (1, 2, 3, 4)]

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Return class logits (N, num_outputs) from the features of `forward`."""
        return self.fc8(features[-1])

    def modules_of(self, count: int) -> list[nn.Module]:
        """Modules that the first ``count`` features depend on."""
        if not count:
            return []
        merged = [self.conv5, self.conv6, None, self.fc7][:count]
        return self._branch_modules("") + self._branch_modules("m") + [module for module in merged if module]


def _conv3x3(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _merged(inputs, outputs, dropout):
    return nn.Sequential(_conv3x3(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout2d(dropout), nn.MaxPool2d(2))


def _largest(x, persons):
    """(persons * N, ...) -> (N, ...)."""
    return x.unflatten(0, (persons, -1)).amax(dim=0)
