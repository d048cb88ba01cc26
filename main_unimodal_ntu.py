"""NTU RGB+D 60 with one modality: the papers' unimodal rows, and the backbones that a search starts from.

  python main_unimodal_ntu.py --modality rgb
  python main_unimodal_ntu.py --modality skeleton

Trains the inflated ResNet-50 on videos (from ImageNet weights) or the HCN network on skeletons (from scratch).
The run folder gets backbone.pth, in the form of the released checkpoints: pass that folder as --rgb_cp or --ske_cp.
BM-NAS, Table 2: accuracy 83.91 (video) and 85.24 (skeleton) on test.
"""

from engine import arguments
from tasks import ntu
from tasks.bmnas import flags, recipes
from util.cli import run_cli

DEMO = {**ntu.DEMO, "epochs": 12, "Ti": 12, "eta_max": 1e-3, "augment_views": 0}


def get_args_parser():
    """Flags of this recipe, with the values of the found recipe."""
    parser, backbones = ntu.recipe_parser(__doc__)
    flags.add_unimodal_flags(parser, backbones, ntu.MODALITIES)
    flags.add_dropout_flag(backbones)
    arguments.set_defaults_of(parser, ntu.PUBLISHED_FOUND)
    return parser


def main(argv=None):
    """Train one backbone; returns the result that ``result.json`` holds."""
    return recipes.unimodal(ntu, arguments.parse_args(get_args_parser(), argv, demo=DEMO))


if __name__ == "__main__":
    run_cli(main)
