"""MMNas on visual grounding: search an encoder-decoder of attention operations (Yu et al., ACM MM 2020, section 3).

  python search_vgd.py --data data/vgd --DATASET refcoco
  python search_vgd.py --demo                       # synthetic scenes of coloured shapes

Weight steps on the first 80 % of the training expressions, architecture steps on the rest from epoch 20 on.
<out_dir>/search-<VERSION>-<time>/ gets arch.json (the architecture of every epoch), pictures of them
(architectures/), the probabilities (probabilities.svg) and result.json. Then:
  python train_vgd.py --RUN='train' --ARCH_PATH=<that folder>
"""

from engine import arguments
from tasks import vgd
from tasks.mmnas import flags, start
from util.cli import run_cli

DEMO = {**vgd.DEMO, "epochs": 6, "alpha_start": 3}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = vgd.recipe_parser(__doc__)
    flags.add_search_flags(parser)
    arguments.set_defaults_of(parser, vgd.PUBLISHED_SEARCH)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds, or None where other processes did it."""
    return start.search(vgd, main, get_args_parser(), argv, DEMO)


if __name__ == "__main__":
    run_cli(main)
