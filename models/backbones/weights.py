"""Where backbones get their weights: checkpoints, released files, torchvision's ImageNet weights, or chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from util.checkpoint import load_state_dict_file, load_weights
from util.cli import UserError
from util.torchvision_weights import fetch

if TYPE_CHECKING:
    pass

# What a flag is set to, and what a result says of weights that no file gave.
RANDOM_FLAG = "random"
RANDOM = "random, drawn from the seed"


@dataclass(frozen=True)
class Source:
    """Where checkpoints of one backbone come from, in the words that a user needs.

    Args:
        flag: The flag that names one, e.g. ``--rgb_cp``.
        command: The command that trains one.
        released: File name of the checkpoint that the original's authors released, if any.
    """

    flag: str
    command: str
    released: str | None = None

    def __str__(self) -> str:
        released = f", or the released {self.released}" if self.released else ""
        return f"the run folder or backbone.pth of `{self.command}`{released}"


@dataclass(frozen=True)
class ImageNet:
    """torchvision's ImageNet weights of one network.

    Args:
        name: The network's name in a sentence.
        model: Its name in ``torchvision.models``.
        weights: Name of the weights' enumeration there; the first version is meant.
        file: Their file name.
        flag: The flag that names a local copy.
    """

    name: str
    model: str
    weights: str
    file: str
    flag: str


VGG19 = ImageNet("VGG-19", "vgg19", "VGG19_Weights", "vgg19-dcbb9e9d.pth", "--vgg_weights")
RESNET50 = ImageNet("ResNet-50", "resnet50", "ResNet50_Weights", "resnet50-0676ba61.pth", "--resnet_weights")


def find_checkpoint(value: Path | str | None, source: Source, folder: Path | str | None = None) -> Path | None:
    """The checkpoint file that a flag names, checked to exist, without reading it.

    Args:
        value: What the flag is set to: a file or run folder, as given or in ``folder``; or None or ``random``.
        source: The backbone's `Source`.
        folder: ``--checkpointdir``, if the task has one.

    Returns:
        Path, or None where the flag names no file.

    Raises:
        UserError: there is no such file.
    """
    if value in (None, RANDOM_FLAG):
        return None
    for path in [Path(value)] + ([Path(folder) / value] if folder is not None else []):
        if path.is_dir() and not (path / "backbone.pth").exists():
            raise UserError(f"{source.flag} {path} has no backbone.pth; pass {source}, or {RANDOM_FLAG}")
        if path.exists():
            return path / "backbone.pth" if path.is_dir() else path
    place = "" if folder is None or Path(value).is_absolute() else f", neither here nor in {folder}"
    raise UserError(f"{source.flag} {value} does not exist{place}; pass {source}, or {RANDOM_FLAG}")


def find_released(source: Source, folder: Path | str) -> Path:
    """The released checkpoint file in ``folder``.

    Raises:
        UserError: it is not there.
    """
    assert source.released is not None
    path = Path(folder) / source.released
    if not path.exists():
        raise UserError(
            f"{path} does not exist: put the released checkpoint there (--checkpointdir names the folder), or train "
            f"one with `{source.command}` and pass {source.flag} RUN_DIR, or pass --backbone_weights random"
        )
    return path


def load_backbone(net: Any, path: Path, source: Source) -> None:
    """Load a checkpoint file strictly, except for the batch counts that very old files lack and nothing uses.

    Raises:
        UserError: the file is damaged or is not of this network.
    """
    try:
        state = load_state_dict_file(path)
        counts = {k: v for k, v in net.state_dict().items() if k.endswith(".num_batches_tracked")}
        load_weights(net, {**counts, **state}, path)
    except UserError as error:
        raise UserError(f"{source.flag}: {error}; expected {source}") from None
    net.source = str(path)


def build_from_checkpoint(
    make: Callable[[], Any], source: Source, value: Path | str | None, folder: Path | str | None = None
) -> Any:
    """A backbone with the weights of the checkpoint that a flag names, or as drawn; see `find_checkpoint`.

    Args:
        make: Function without arguments that makes the network.
        source, value, folder: See `find_checkpoint`, whose faults show before anything is made.
    """
    path = find_checkpoint(value, source, folder)
    net = make()
    net.source = RANDOM
    if path is not None:
        load_backbone(net, path, source)
    return net


def build_from_imagenet(
    make: Callable[[], Any],
    imagenet: ImageNet,
    source: Source,
    *,
    weights: str,
    imagenet_file: Path | str | None,
    checkpoint: Path | str | None,
    folder: Path | str | None = None,
) -> Any:
    """A backbone with the weights of a checkpoint, with torchvision's ImageNet weights, or as drawn.

    Args:
        make: Function without arguments that makes the network; it has ``load_torchvision(state_dict)``.
        imagenet: `VGG19` or `RESNET50`.
        source: The backbone's `Source`.
        weights: ``pretrained``: ImageNet weights where nothing is named; ``random``: as drawn there.
        imagenet_file: File with the ImageNet weights, instead of torchvision's cache or the download.
        checkpoint, folder: ``value`` and ``folder`` of `find_checkpoint`.

    Raises:
        UserError: both files are named, or one of them does not exist or does not fit.
    """
    if imagenet_file is not None and checkpoint is not None:
        raise UserError(f"{source.flag} and {imagenet.flag} both give one network's weights; pass one of them")
    check_imagenet_file(imagenet_file, imagenet)
    net = build_from_checkpoint(make, source, checkpoint, folder)
    if imagenet_file is not None or (weights == "pretrained" and checkpoint is None):
        _load_imagenet(net, imagenet, imagenet_file)
    return net


def check_imagenet_file(path: Path | str | None, imagenet: ImageNet) -> None:
    """Check that the file of an ImageNet flag exists, if the flag is set.

    Raises:
        UserError: it does not.
    """
    if path is not None and not Path(path).is_file():
        raise UserError(f"{imagenet.flag} {path} does not exist; pass a copy of torchvision's {imagenet.file}")


def _load_imagenet(net, imagenet, path):
    if path is None:
        state, name = _download(imagenet), f"torchvision's ImageNet {imagenet.name}"
    else:
        state, name = _read_flagged(path, imagenet.flag), str(path)
    try:
        net.load_torchvision(state)
    except (KeyError, RuntimeError):
        raise UserError(
            f"{imagenet.flag}: {name} is not a state dict of torchvision.models.{imagenet.model}; expected the "
            f"contents of {imagenet.file}"
        ) from None
    net.source = name


def _read_flagged(path, flag):
    try:
        return load_state_dict_file(path)
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None


def _download(imagenet):
    """torchvision's weights from its cache or the download."""
    from torchvision import models

    version = getattr(models, imagenet.weights).IMAGENET1K_V1
    otherwise = f"get {{url}} elsewhere and pass {imagenet.flag} FILE, or pass --backbone_weights random"
    return fetch(version, f"ImageNet {imagenet.name}", otherwise)
