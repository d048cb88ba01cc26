"""Weights of backbones: from checkpoints, released files, torchvision's ImageNet weights, or random."""

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

# Random weights: the value of a flag, and the description in results.
RANDOM_FLAG = "random"
RANDOM = "random, drawn from the seed"


@dataclass(frozen=True)
class Source:
    """Where checkpoints of one backbone come from. Error messages name it.

    Args:
        flag: Flag that names a checkpoint, e.g. ``--rgb_cp``.
        command: Command that trains the backbone.
        released: File name of the checkpoint that the authors released, if any.
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
        name: Name of the network in messages.
        model: Name of the network in ``torchvision.models``.
        weights: Name of its weights enumeration there; ``IMAGENET1K_V1`` is used.
        file: File name of the weights.
        flag: Flag that names a local copy of the file.
    """

    name: str
    model: str
    weights: str
    file: str
    flag: str


VGG19 = ImageNet("VGG-19", "vgg19", "VGG19_Weights", "vgg19-dcbb9e9d.pth", "--vgg_weights")
RESNET50 = ImageNet("ResNet-50", "resnet50", "ResNet50_Weights", "resnet50-0676ba61.pth", "--resnet_weights")


def find_checkpoint(value: Path | str | None, source: Source, folder: Path | str | None = None) -> Path | None:
    """Find the checkpoint file that a flag names, without reading it.

    Args:
        value: Value of the flag: a file or run folder, as a path or relative to ``folder``; None or ``random``.
        source: The backbone's `Source`.
        folder: ``--checkpointdir``, if the task has one.

    Returns:
        The path, or None if the flag names no file.

    Raises:
        UserError: the file does not exist.
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
    """Path of the released checkpoint file in ``folder``.

    Raises:
        UserError: the file does not exist.
    """
    assert source.released is not None
    path = Path(folder) / source.released
    if not path.exists():
        raise UserError(
            f"{path} does not exist: put the released checkpoint there (--checkpointdir sets the folder), or train "
            f"one with `{source.command}` and pass {source.flag} RUN_DIR, or pass --backbone_weights random"
        )
    return path


def load_backbone(net: Any, path: Path, source: Source) -> None:
    """Load a checkpoint file strictly, except that batch norm counters may be missing, as they are in very old files.

    Args:
        net: The backbone. Its attribute ``source`` is set to the path.
        path: The checkpoint file.
        source: The backbone's `Source`, for messages.

    Raises:
        UserError: the file is damaged or belongs to another network.
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
    """Build a backbone with the weights of a checkpoint, or with random weights if the flag names none.

    Args:
        make: Function without arguments that builds the network. It is called once the path is known to exist.
        source, value, folder: See `find_checkpoint`.

    Returns:
        The network. Its attribute ``source`` says where the weights come from.

    Raises:
        UserError: the file does not exist, is damaged, or belongs to another network.
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
    """Build a backbone with the weights of a checkpoint, torchvision's ImageNet weights, or random weights.

    Args:
        make: Function without arguments that builds the network, which has ``load_torchvision(state_dict)``.
        imagenet: `VGG19` or `RESNET50`.
        source: The backbone's `Source`.
        weights: Weights if no file is given: ``pretrained`` (ImageNet weights) or ``random``.
        imagenet_file: File with the ImageNet weights, used instead of torchvision's cache or a download.
        checkpoint, folder: ``value`` and ``folder`` of `find_checkpoint`.

    Returns:
        The network. Its attribute ``source`` says where the weights come from.

    Raises:
        UserError: both files are given, or one of them does not exist or belongs to another network.
    """
    if imagenet_file is not None and checkpoint is not None:
        raise UserError(
            f"{source.flag} and {imagenet.flag} both set the weights of the same network; pass only one of them"
        )
    check_imagenet_file(imagenet_file, imagenet)
    net = build_from_checkpoint(make, source, checkpoint, folder)
    if imagenet_file is not None or (weights == "pretrained" and checkpoint is None):
        _load_imagenet(net, imagenet, imagenet_file)
    return net


def check_imagenet_file(path: Path | str | None, imagenet: ImageNet) -> None:
    """Check that the file of an ImageNet flag exists. A flag that is not set passes.

    Raises:
        UserError: the file does not exist.
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
    """State dict of torchvision's weights, from its cache or a download."""
    from torchvision import models

    version = getattr(models, imagenet.weights).IMAGENET1K_V1
    otherwise = f"download {{url}} elsewhere and pass {imagenet.flag} FILE, or pass --backbone_weights random"
    return fetch(version, f"ImageNet {imagenet.name}", otherwise)
