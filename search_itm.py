"""MMNas on image-text matching: search an encoder-decoder of attention operations (Yu et al., ACM MM 2020, section 3).

  python search_itm.py --data data/itm --DATASET flickr
  python search_itm.py --demo                       # synthetic scenes of coloured shapes

Weight steps on the captions of the first 80 % of the training images, architecture steps on the others from epoch 20
on; hard negatives are mined from epoch 10 on, with a random path. <out_dir>/search-<VERSION>-<time>/ gets arch.json
(the architecture of every epoch), pictures of them (architectures/), the probabilities (probabilities.svg) and
result.json. Then:
  python train_itm.py --RUN='train' --ARCH_PATH=<that folder>
"""

from engine import arguments
from tasks import itm
from tasks.mmnas import flags, start
from util.cli import run_cli

DEMO = {**itm.DEMO, "epochs": 8, "alpha_start": 5, "neg_start_epoch": 6}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = itm.recipe_parser(__doc__)
    flags.add_search_flags(parser)
    arguments.set_defaults_of(parser, itm.PUBLISHED_SEARCH)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds, or None where other processes did it."""
    return start.search(itm, main, get_args_parser(), argv, DEMO)


if __name__ == "__main__":
    run_cli(main)
