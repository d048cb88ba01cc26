"""BM-NAS on EgoGesture: train and test a fusion network (Yin et al., AAAI 2022, section 4.3).

  python main_darts_found_ego.py --search_exp_dir=<dir of search exp>
  python main_darts_found_ego.py --search_exp_dir=<dir of search exp> --eval_exp_dir=<dir of eval exp>   # test only
  python main_darts_found_ego.py --genotype random      # or: --genotype FILE.json, --fusion late

The released script keeps the backbones as they are; --no-freeze_backbones trains them too. Data, sizes, seed
and weights default to those of the search run. Results: <search_exp_dir>/eval-<save>-<time>/result.json.
Paper, Table 3: accuracy 94.96 on test. --recipe ego-1 trains as its supplement says (train and dev together, 50
epochs at batch 72, backbones too) and, like the released script, selects on test.
"""

from engine import arguments
from tasks import ego
from tasks.bmnas import flags, paper_recipes, recipes
from util.cli import run_cli

DEMO = {**ego.DEMO, "epochs": 12, "Ti": 12}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = ego.recipe_parser(__doc__)
    flags.add_found_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.found_recipes("ego"))
    arguments.set_defaults_of(parser, ego.PUBLISHED_FOUND)
    return parser


def main(argv=None):
    """Train (or only test) a found network; returns the result that ``result.json`` holds."""
    return recipes.found(ego, flags.parse_found(ego, get_args_parser(), argv, DEMO))


if __name__ == "__main__":
    run_cli(main)
