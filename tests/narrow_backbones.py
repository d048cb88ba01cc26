"""The image and video backbones with an eighth of their channels and one block a stage, for tests of everything else.

`tests/models` compares the real ones with the originals. In a process of its own a script gets the narrow ones by

  python tests/narrow_backbones.py SCRIPT FLAG ...
"""

import contextlib
import runpy
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent

NARROW = {
    "vgg._CHANNELS": (8, 8, "M", 16, 16, "M", *(32,) * 4, "M", *(64,) * 4, "M", *(64,) * 4, "M"),
    "vgg.VGG19Taps.channels": (64,) * 4,
    "inflated_resnet._WIDTH": 8,
    "inflated_resnet._BLOCKS": (1, 1, 1, 1),
    "inflated_resnet.InflatedResNet50.channels": (64, 128, 256, 256),
    "resnext3d._WIDTH": 8,
    "resnext3d._BLOCKS": (1, 1, 1, 1),
    "resnext3d._GROUPS": 4,
    "resnext3d.ResNeXt101.channels": (64, 128, 256, 256),
}


@contextlib.contextmanager
def narrow_backbones():
    """Build narrow backbones in this block."""
    with contextlib.ExitStack() as patches:
        for name, value in NARROW.items():
            patches.enter_context(mock.patch(f"models.backbones.{name}", value))
        yield


def run_narrowly(function, *args):
    """Call ``function(*args)`` with narrow backbones: for processes of their own."""
    with narrow_backbones():
        function(*args)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    del sys.argv[0]
    with narrow_backbones():
        runpy.run_path(sys.argv[0], run_name="__main__")
