"""BM-NAS on MM-IMDB: search the fusion of poster and plot features (Yin et al., AAAI 2022, section 4.1).

  python main_darts_searchable_mmimdb.py --text_cp <run folder of main_unimodal_mmimdb.py --modality text>
  python main_darts_searchable_mmimdb.py --demo

Weight steps on train, architecture steps on dev; the backbones are frozen and computed once.
<out_dir>/search-<save>-<time>/ gets the genotype of the best dev epoch (genotype.json), a picture
of every epoch's (architectures/), the probabilities (probabilities.svg) and result.json. --recipe
mmimdb-1 takes the paper's configuration (Table 8: weighted F1 53.44 on dev, 1.24 GPU hours). Then:
  python main_darts_found_mmimdb.py --search_exp_dir <that folder>
"""

from engine import arguments
from tasks import mmimdb
from tasks.bmnas import flags, paper_recipes, recipes
from util.cli import run_cli

DEMO = {**mmimdb.DEMO, "epochs": 6, "Ti": 6, "arch_learning_rate": 1e-2}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    flags.add_search_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.search_recipes("mmimdb"))
    arguments.set_defaults_of(parser, mmimdb.PUBLISHED)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds."""
    return recipes.search(mmimdb, arguments.parse_args(get_args_parser(), argv, demo=DEMO))


if __name__ == "__main__":
    run_cli(main)
