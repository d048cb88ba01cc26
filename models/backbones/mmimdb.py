"""The two backbones of MM-IMDB and where their weights come from."""

import socket
from pathlib import Path

from models.backbones.maxout_mlp import MaxOutMLP
from models.backbones.vgg import VGG19Taps
from util.checkpoint import load_state_dict_file, load_weights
from util.cli import UserError

# What a result says of weights that no file gave.
RANDOM = "random, drawn from the seed"
_VGG_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
_DOWNLOAD_TIMEOUT = 30.0


def build_mmimdb_backbones(num_outputs, *, weights, vgg_weights=None, image_cp=None, text_cp=None):
    """Make the image and the text network.

    Args:
        num_outputs: Classes of their own heads.
        weights: ``random``: what no other argument names stays as drawn; ``pretrained``: the image
            network starts from torchvision's ImageNet weights and ``text_cp`` must be named.
        vgg_weights: File with torchvision's VGG-19 state dict, instead of its cache or the download.
        image_cp, text_cp: Checkpoint of ``main_unimodal_mmimdb.py`` (file or run folder), or ``random``.

    Returns:
        ``{"image": VGG19Taps, "text": MaxOutMLP}``.

    Raises:
        UserError: weights are missing or do not fit.
    """
    if weights == "pretrained" and text_cp is None:
        raise UserError(
            "no weights for the text network: train it with `python main_unimodal_mmimdb.py --modality text` and pass "
            "--text_cp RUN_DIR, or pass --text_cp random (the originals' way) or --backbone_weights random"
        )
    if text_cp not in (None, "random") and not Path(text_cp).exists():  # before a long download
        raise UserError(f"--text_cp {text_cp} does not exist; pass a run folder, its backbone.pth, or random")
    return {
        "image": build_image_backbone(num_outputs, weights, vgg_weights, image_cp),
        "text": build_text_backbone(num_outputs, text_cp),
    }


def build_image_backbone(num_outputs, weights, vgg_weights=None, checkpoint=None):
    """VGG-19 from a checkpoint, ImageNet weights or at random; see `build_mmimdb_backbones`."""
    if vgg_weights is not None and checkpoint is not None:
        raise UserError("--image_cp and --vgg_weights both give the image network's weights; pass one of them")
    net = VGG19Taps(num_outputs)
    net.source = RANDOM
    if checkpoint not in (None, "random"):
        load_backbone(net, checkpoint, "image")
    elif vgg_weights is not None:
        _load_vgg(net, load_state_dict_file(vgg_weights), vgg_weights)
    elif weights == "pretrained" and checkpoint != "random":
        _load_vgg(net, _imagenet_state_dict(), "torchvision's ImageNet VGG-19")
    return net


def build_text_backbone(num_outputs, checkpoint=None):
    """MaxOut network from a checkpoint or at random; see `build_mmimdb_backbones`."""
    net = MaxOutMLP(num_outputs)
    net.source = RANDOM
    if checkpoint not in (None, "random"):
        load_backbone(net, checkpoint, "text")
    return net


def load_backbone(net, path, modality):
    """Load a checkpoint file, or the ``backbone.pth`` of a run folder, strictly.

    Raises:
        UserError: the file is missing or is not of this network.
    """
    path = Path(path)
    path = path / "backbone.pth" if path.is_dir() else path
    try:
        load_weights(net, load_state_dict_file(path), path)
    except UserError as error:
        command = f"python main_unimodal_mmimdb.py --modality {modality}"
        raise UserError(f"--{modality}_cp: {error}; expected the run folder or backbone.pth of `{command}`") from None
    net.source = str(path)


def _load_vgg(net, state, source):
    try:
        net.load_torchvision(state)
        net.source = str(source)
    except (KeyError, RuntimeError):
        raise UserError(
            f"{source} is not a state dict of torchvision.models.vgg19; expected features.0.weight, ..."
        ) from None


def _imagenet_state_dict():
    """torchvision's ImageNet weights from its cache or the download."""
    from torchvision.models import VGG19_Weights

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"torchvision's ImageNet VGG-19 is not in its cache and cannot be downloaded ({reason}): get {_VGG_URL} "
            "elsewhere and pass --vgg_weights FILE, or pass --backbone_weights random"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
