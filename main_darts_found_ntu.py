"""BM-NAS on NTU RGB+D 60: train and test a fusion network (Yin et al., AAAI 2022, section 4.2).

  python main_darts_found_ntu.py --search_exp_dir=<dir of search exp>
  python main_darts_found_ntu.py --search_exp_dir=<dir of search exp> --eval_exp_dir=<dir of eval exp>   # test only
  python main_darts_found_ntu.py --genotype genotypes/ntu_example.json      # or: --genotype random, --fusion late

The published recipe trains everything, backbones included: --micro_batch 8 fits it into less memory,
--freeze_backbones trains the fusion alone. Data, sizes, seed and weights default to those of the search run.
Results: <search_exp_dir>/eval-<save>-<time>/result.json.
Paper, Table 2: accuracy 90.48 on test. --recipe ntu-1 trains as its supplement says (train and dev together, 50
epochs) and, like the released script, selects on test.
"""

from engine import arguments
from tasks import ntu
from tasks.bmnas import flags, paper_recipes, recipes
from util.cli import run_cli

DEMO = {**ntu.DEMO, "epochs": 12, "Ti": 12, "freeze_backbones": True}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = ntu.recipe_parser(__doc__)
    flags.add_found_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.found_recipes("ntu"))
    arguments.set_defaults_of(parser, ntu.PUBLISHED_FOUND)
    return parser


def main(argv=None):
    """Train (or only test) a found network; returns the result that ``result.json`` holds."""
    return recipes.found(ntu, flags.parse_found(ntu, get_args_parser(), argv, DEMO))


if __name__ == "__main__":
    run_cli(main)
