"""The two backbones of MM-IMDB, and where their weights come from."""

from pathlib import Path

from models.backbones import weights as sources
from models.backbones.maxout_mlp import MaxOutMLP
from models.backbones.vgg import VGG19Taps
from util.cli import UserError

_COMMAND = "python main_unimodal_mmimdb.py --modality "
_IMAGE = sources.Source("--image_cp", _COMMAND + "image")
_TEXT = sources.Source("--text_cp", _COMMAND + "text")


def build_mmimdb_backbones(
    num_outputs: int,
    *,
    weights: str,
    vgg_weights: Path | str | None = None,
    image_cp: Path | str | None = None,
    text_cp: Path | str | None = None,
) -> dict[str, VGG19Taps | MaxOutMLP]:
    """Build the image and the text backbone of a fusion network.

    Args:
        num_outputs: Number of classes of the unimodal heads.
        weights: Weights of a backbone for which no file is given: ``pretrained`` (torchvision's ImageNet weights for
            the image network; the text network then requires ``text_cp``) or ``random``.
        vgg_weights: File with torchvision's VGG-19 state dict, used instead of torchvision's cache or a download.
        image_cp, text_cp: Checkpoint of ``main_unimodal_mmimdb.py`` (file or run folder), or ``random``.

    Returns:
        ``{"image": VGG19Taps, "text": MaxOutMLP}``.

    Raises:
        UserError: weights are missing or do not fit.
    """
    if weights == "pretrained" and text_cp is None:
        raise UserError(
            f"no weights for the text network: train it with `{_TEXT.command}` and pass "
            "--text_cp RUN_DIR, or pass --text_cp random (the originals' way) or --backbone_weights random"
        )
    sources.find_checkpoint(text_cp, _TEXT)  # report a wrong path before a long download
    return {
        "image": build_image_backbone(num_outputs, weights, vgg_weights, image_cp),
        "text": build_text_backbone(num_outputs, text_cp),
    }


def build_image_backbone(
    num_outputs: int, weights: str, vgg_weights: Path | str | None = None, checkpoint: Path | str | None = None
) -> VGG19Taps:
    """Build VGG-19 from a checkpoint, ImageNet weights or random weights; see `build_mmimdb_backbones`."""
    return sources.build_from_imagenet(
        lambda: VGG19Taps(num_outputs),
        sources.VGG19,
        _IMAGE,
        weights=weights,
        imagenet_file=vgg_weights,
        checkpoint=checkpoint,
    )


def build_text_backbone(num_outputs: int, checkpoint: Path | str | None = None) -> MaxOutMLP:
    """Build the MaxOut network from a checkpoint or with random weights; see `build_mmimdb_backbones`."""
    return sources.build_from_checkpoint(lambda: MaxOutMLP(num_outputs), _TEXT, checkpoint)
