"""The two backbones of EgoGesture, and where their weights come from."""

from pathlib import Path

from models.backbones import weights as sources
from models.backbones.resnext3d import ResNeXt101

_COMMAND = "python main_unimodal_ego.py --modality "
_SOURCES = {
    "rgb": sources.Source("--rgb_cp", _COMMAND + "rgb", "egogesture_resnext_1.0x_RGB_32_acc_94.01245.pth"),
    "depth": sources.Source("--depth_cp", _COMMAND + "depth", "egogesture_resnext_1.0x_Depth_32_acc_93.61060.pth"),
}
_IN_CHANNELS = {"rgb": 3, "depth": 1}


def build_ego_backbones(
    num_outputs: int,
    *,
    weights: str,
    rgb_cp: Path | str | None = None,
    depth_cp: Path | str | None = None,
    checkpointdir: Path | str,
) -> dict[str, ResNeXt101]:
    """Build the RGB and the depth backbone of a fusion network.

    Args:
        num_outputs: Number of classes of the unimodal heads.
        weights: Weights of a backbone whose checkpoint argument is None: ``pretrained`` (the released checkpoint in
            ``checkpointdir``) or ``random``.
        rgb_cp, depth_cp: Checkpoint file or run folder, as a path or relative to ``checkpointdir``; or ``random``.
        checkpointdir: Folder of the released checkpoints.

    Returns:
        ``{"rgb": ResNeXt101, "depth": ResNeXt101}``.

    Raises:
        UserError: weights are missing or do not fit.
    """
    checkpoints = {"rgb": rgb_cp, "depth": depth_cp}
    for name, source in _SOURCES.items():
        if checkpoints[name] is None and weights == "pretrained":
            checkpoints[name] = sources.find_released(source, checkpointdir)
        # Report a wrong path before any network is built.
        sources.find_checkpoint(checkpoints[name], source, checkpointdir)
    return {
        name: build_ego_backbone(name, num_outputs, checkpoint, checkpointdir)
        for name, checkpoint in checkpoints.items()
    }


def build_ego_backbone(
    modality: str, num_outputs: int, checkpoint: Path | str | None = None, checkpointdir: Path | str | None = None
) -> ResNeXt101:
    """Build the backbone of one modality, ``rgb`` or ``depth``; see `build_ego_backbones` for the arguments."""
    return sources.build_from_checkpoint(
        lambda: ResNeXt101(num_outputs, _IN_CHANNELS[modality]), _SOURCES[modality], checkpoint, checkpointdir
    )
