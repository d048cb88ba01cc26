"""BM-NAS on MM-IMDB: train and test a fusion network (Yin et al., AAAI 2022, section 4.1).

  python main_darts_found_mmimdb.py --search_exp_dir=<dir of search exp>
  python main_darts_found_mmimdb.py --eval_exp_dir=<dir of eval exp>           # test only
  python main_darts_found_mmimdb.py --genotype genotypes/mmimdb_example.json   # or: --genotype random, --fusion late

The published recipe trains everything, backbones included; --freeze_backbones trains the fusion
alone on features that are computed once. Data, sizes, seed and weights default to those of the
search run. Results: <search_exp_dir>/eval-<save>-<time>/result.json.
Paper, Table 1: weighted F1 62.92 on test. --recipe mmimdb-1 trains as its supplement says (train and dev together,
50 epochs at batch 96) and, like the released script, selects on test.
"""

from engine import arguments
from tasks import mmimdb
from tasks.bmnas import flags, paper_recipes, recipes
from util.cli import run_cli

DEMO = {**mmimdb.DEMO, "epochs": 8, "Ti": 8, "freeze_backbones": True}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    flags.add_found_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.found_recipes("mmimdb"))
    arguments.set_defaults_of(parser, mmimdb.PUBLISHED)
    return parser


def main(argv=None):
    """Train (or only test) a found network; returns the result that ``result.json`` holds."""
    return recipes.found(mmimdb, flags.parse_found(mmimdb, get_args_parser(), argv, DEMO))


if __name__ == "__main__":
    run_cli(main)
