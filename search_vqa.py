"""MMNas on VQA: search an encoder-decoder of attention operations (Yu et al., ACM MM 2020, section 3).

  python search_vqa.py --data data/vqa
  python search_vqa.py --demo                       # easy-VQA: real pictures and questions

Weight steps on the first 80 % of the training questions, architecture steps on the rest from epoch 20 on.
<out_dir>/search-<VERSION>-<time>/ gets arch.json (the architecture of every epoch), pictures of them
(architectures/), the probabilities (probabilities.svg) and result.json. Then:
  python train_vqa.py --RUN='train' --ARCH_PATH=<that folder>
"""

from engine import arguments
from tasks import vqa
from tasks.mmnas import flags, start
from util.cli import run_cli

DEMO = {**vqa.DEMO, "epochs": 6, "alpha_start": 4}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = vqa.recipe_parser(__doc__)
    flags.add_search_flags(parser)
    arguments.set_defaults_of(parser, vqa.PUBLISHED_SEARCH)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds, or None where other processes did it."""
    return start.search(vqa, main, get_args_parser(), argv, DEMO)


if __name__ == "__main__":
    run_cli(main)
