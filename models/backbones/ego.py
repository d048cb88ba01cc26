"""The two backbones of EgoGesture and where their weights come from."""

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
    """Build the colour and the depth network of a fusion.

    Args:
        num_outputs: Classes of their own heads.
        weights: Weights of a network without a checkpoint argument: ``pretrained``: the released checkpoint in
            ``checkpointdir``; ``random``: random weights.
        rgb_cp, depth_cp: Checkpoint file or run folder, as a path or in ``checkpointdir``; or ``random``.
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
        # Wrong paths fail here, before networks are built.
        sources.find_checkpoint(checkpoints[name], source, checkpointdir)
    return {
        name: build_ego_backbone(name, num_outputs, checkpoint, checkpointdir)
        for name, checkpoint in checkpoints.items()
    }


def build_ego_backbone(
    modality: str, num_outputs: int, checkpoint: Path | str | None = None, checkpointdir: Path | str | None = None
) -> ResNeXt101:
    """The network of ``modality``, ``rgb`` or ``depth``, from a checkpoint or random; see `build_ego_backbones`."""
    return sources.build_from_checkpoint(
        lambda: ResNeXt101(num_outputs, _IN_CHANNELS[modality]), _SOURCES[modality], checkpoint, checkpointdir
    )
