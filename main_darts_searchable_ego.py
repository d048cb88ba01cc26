"""BM-NAS on EgoGesture: search the fusion of RGB and depth features (Yin et al., AAAI 2022, section 4.3).

  python main_darts_searchable_ego.py
  python main_darts_searchable_ego.py --rgb_cp <run folder of main_unimodal_ego.py> --depth_cp <another>
  python main_darts_searchable_ego.py --demo

Weight steps on the training clips, architecture steps on the validation clips; the backbones are frozen.
--estimate says what it needs; --amp bf16 and --augment_views 4 make it faster.
<out_dir>/search-<save>-<time>/ gets the genotype of the best dev epoch (genotype.json), a picture of every
epoch's (architectures/), the probabilities (probabilities.svg) and result.json. --recipe ego-1 to ego-4 take
the paper's configurations (Table 8; ego-1: accuracy 98.87 on dev, 20.67 GPU hours). Then:
  python main_darts_found_ego.py --search_exp_dir <that folder>
"""

from engine import arguments
from tasks import ego
from tasks.bmnas import flags, paper_recipes, recipes
from util.cli import run_cli

DEMO = {**ego.DEMO, "epochs": 20, "Ti": 20, "arch_learning_rate": 3e-2}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = ego.recipe_parser(__doc__)
    flags.add_search_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.search_recipes("ego"))
    arguments.set_defaults_of(parser, ego.PUBLISHED_SEARCH)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds."""
    return recipes.search(ego, arguments.parse_args(get_args_parser(), argv, demo=DEMO))


if __name__ == "__main__":
    run_cli(main)
