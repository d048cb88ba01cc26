"""EgoGesture with one modality: the papers' unimodal rows, and the backbones that a search starts from.

  python main_unimodal_ego.py --modality rgb
  python main_unimodal_ego.py --modality depth

Trains a 3-D ResNeXt-101 from scratch, or from a checkpoint (--rgb_cp, --depth_cp). The run folder gets
backbone.pth, in the form of the released checkpoints: pass that folder as --rgb_cp or --depth_cp.
BM-NAS, Table 3: accuracy 93.75 (RGB) and 94.03 (depth) on test.
"""

from engine import arguments
from tasks import ego
from tasks.bmnas import flags, recipes
from util.cli import run_cli

DEMO = {**ego.DEMO, "epochs": 12, "Ti": 12, "eta_max": 1e-3, "augment_views": 0}


def get_args_parser():
    """Flags of this recipe, with the values of the found recipe."""
    parser, backbones = ego.recipe_parser(__doc__, choice=False)
    flags.add_unimodal_flags(parser, backbones, ego.MODALITIES)
    arguments.set_defaults_of(parser, {**ego.PUBLISHED_FOUND, "freeze_backbones": False})
    return parser


def main(argv=None):
    """Train one backbone; returns the result that ``result.json`` holds."""
    return recipes.unimodal(ego, arguments.parse_args(get_args_parser(), argv, demo=DEMO))


if __name__ == "__main__":
    run_cli(main)
