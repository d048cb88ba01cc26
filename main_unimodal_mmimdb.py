"""MM-IMDB with one modality: the papers' unimodal rows, and the backbones that a search starts from.

  python main_unimodal_mmimdb.py --modality text
  python main_unimodal_mmimdb.py --modality image [--freeze_backbones]

Trains the MaxOut network on plots, or VGG-19 on posters (whole, or with --freeze_backbones its head
alone). The run folder gets backbone.pth: pass that folder as --text_cp or --image_cp.
BM-NAS, Table 1: weighted F1 57.54 (text) and 49.21 (image) on test.
"""

from engine import arguments
from tasks import mmimdb
from tasks.bmnas import flags, recipes
from util.cli import run_cli

DEMO = {**mmimdb.DEMO, "epochs": 10, "Ti": 10, "freeze_backbones": True}


def get_args_parser():
    """Flags of this recipe, with the values of the fusion recipes."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    flags.add_unimodal_flags(parser, backbones, mmimdb.MODALITIES)
    arguments.set_defaults_of(parser, mmimdb.PUBLISHED)
    return parser


def main(argv=None):
    """Train one backbone; returns the result that ``result.json`` holds."""
    return recipes.unimodal(mmimdb, arguments.parse_args(get_args_parser(), argv, demo=DEMO))


if __name__ == "__main__":
    run_cli(main)
