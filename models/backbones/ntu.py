"""The two backbones of NTU RGB+D, and where their weights come from."""

from pathlib import Path

from models.backbones import weights as sources
from models.backbones.hcn import SkeletonHCN
from models.backbones.inflated_resnet import InflatedResNet50

_COMMAND = "python main_unimodal_ntu.py --modality "
_RGB = sources.Source("--rgb_cp", _COMMAND + "rgb", "rgb_8frames_83.91.checkpoint")
_SKELETON = sources.Source("--ske_cp", _COMMAND + "skeleton", "skeleton_32frames_85.24.checkpoint")


def build_ntu_backbones(
    num_outputs: int,
    *,
    weights: str,
    resnet_weights: Path | str | None = None,
    rgb_cp: Path | str | None = None,
    skeleton_cp: Path | str | None = None,
    checkpointdir: Path | str,
    dropout: float,
    pool: str = "7x7",
) -> dict[str, InflatedResNet50 | SkeletonHCN]:
    """Build the video and the skeleton backbone of a fusion network.

    Args:
        num_outputs: Number of classes of the unimodal heads.
        weights: Weights of a backbone for which no file is given: ``pretrained`` (the released checkpoint in
            ``checkpointdir``) or ``random``.
        resnet_weights: File with torchvision's ResNet-50 state dict, from which the video network is inflated.
        rgb_cp, skeleton_cp: Checkpoint file or run folder, as a path or relative to ``checkpointdir``; or ``random``.
        checkpointdir: Folder of the released checkpoints.
        dropout: Dropout rate of the skeleton network.
        pool: See `InflatedResNet50`.

    Returns:
        ``{"rgb": InflatedResNet50, "skeleton": SkeletonHCN}``.

    Raises:
        UserError: weights are missing or do not fit.
    """
    if weights == "pretrained":
        if rgb_cp is None and resnet_weights is None:
            rgb_cp = sources.find_released(_RGB, checkpointdir)
        if skeleton_cp is None:
            skeleton_cp = sources.find_released(_SKELETON, checkpointdir)
    # Report a wrong path before any network is built.
    sources.find_checkpoint(skeleton_cp, _SKELETON, checkpointdir)
    return {
        "rgb": build_rgb_backbone(num_outputs, weights, resnet_weights, rgb_cp, checkpointdir, pool),
        "skeleton": build_skeleton_backbone(num_outputs, skeleton_cp, checkpointdir, dropout=dropout),
    }


def build_rgb_backbone(
    num_outputs: int,
    weights: str,
    resnet_weights: Path | str | None = None,
    checkpoint: Path | str | None = None,
    checkpointdir: Path | str | None = None,
    pool: str = "7x7",
) -> InflatedResNet50:
    """Build the video backbone, from a checkpoint, ImageNet weights or random weights.

    Without a checkpoint, ``pretrained`` means torchvision's ImageNet weights, from ``resnet_weights``, torchvision's
    cache or a download. For the other arguments see `build_ntu_backbones`.
    """
    return sources.build_from_imagenet(
        lambda: InflatedResNet50(num_outputs, pool),
        sources.RESNET50,
        _RGB,
        weights=weights,
        imagenet_file=resnet_weights,
        checkpoint=checkpoint,
        folder=checkpointdir,
    )


def build_skeleton_backbone(
    num_outputs: int, checkpoint: Path | str | None = None, checkpointdir: Path | str | None = None, *, dropout: float
) -> SkeletonHCN:
    """Build the skeleton backbone from a checkpoint or with random weights; see `build_ntu_backbones`."""
    return sources.build_from_checkpoint(
        lambda: SkeletonHCN(num_outputs, dropout), _SKELETON, checkpoint, checkpointdir
    )
