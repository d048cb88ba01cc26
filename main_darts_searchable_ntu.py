"""BM-NAS on NTU RGB+D 60: search the fusion of video and skeleton features (Yin et al., AAAI 2022, section 4.2).

  python main_darts_searchable_ntu.py
  python main_darts_searchable_ntu.py --rgb_cp <run folder of main_unimodal_ntu.py> --ske_cp <another>
  python main_darts_searchable_ntu.py --demo

Weight steps on 8 of the 16 training subjects, architecture steps on the 4 dev subjects; the backbones are
frozen. Fits a 24 GB GPU as it is; --estimate says what it needs, --amp bf16 and --augment_views 4 make it
faster. <out_dir>/search-<save>-<time>/ gets the genotype of the best dev epoch (genotype.json), a picture of
every epoch's (architectures/), the probabilities (probabilities.svg) and result.json. --recipe ntu-1 to ntu-4
take the paper's configurations (Table 8; ntu-1: accuracy 94.48 on dev, 53.68 GPU hours). Then:
  python main_darts_found_ntu.py --search_exp_dir <that folder>
"""

from engine import arguments
from tasks import ntu
from tasks.bmnas import flags, paper_recipes, recipes
from util.cli import run_cli

DEMO = {
    **ntu.DEMO,
    "epochs": 20,
    "Ti": 20,
    "arch_learning_rate": 3e-2,
    "train_split": "train",
    "reshape_layers": "trained",
}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = ntu.recipe_parser(__doc__)
    flags.add_search_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.search_recipes("ntu"))
    ntu.add_search_split_flag(parser)
    arguments.set_defaults_of(parser, ntu.PUBLISHED_SEARCH)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds."""
    return recipes.search(ntu, arguments.parse_args(get_args_parser(), argv, demo=DEMO))


if __name__ == "__main__":
    run_cli(main)
