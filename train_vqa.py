"""MMNas on VQA: train an architecture, score val, predict test (Yu et al., ACM MM 2020, section 4).

  python train_vqa.py --RUN='train' --ARCH_PATH='arch/mmnas_vqa.json'
  python train_vqa.py --RUN='train' --ARCH_PATH='<search run>' --ARCH_EPOCH=50
  python train_vqa.py --RUN='train' --ARCH_PATH=random --search_exp_dir='<search run>'   # of its search space
  python train_vqa.py --RUN='val' --CKPT_PATH=<run folder>
  python train_vqa.py --RUN='test' --CKPT_PATH=<run folder>   # predictions for the evaluation server
  python train_vqa.py --RUN='train' --RESUME --CKPT_PATH=<run folder>

Checkpoints of the original code are read with --ARCH_PATH beside --CKPT_PATH. Results:
train-<VERSION>-<time>/result.json, in <out_dir> or inside the search run whose architecture is trained; val and test
runs lie inside the training. Predictions of test also go to logs/ckpts/result_test/result_train_<VERSION>.json.
Accuracy on test-dev, trained on train+val+vg: paper 71.24, released checkpoint 71.25.
"""

from engine import arguments
from tasks import vqa
from tasks.mmnas import flags, start
from util.cli import run_cli

DEMO = {**vqa.DEMO, "epochs": 8, "ARCH_PATH": "mcan"}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = vqa.recipe_parser(__doc__)
    flags.add_train_flags(parser)
    parser.add_argument(
        "--SPLIT", choices=("train", "train+val", "train+val+vg"), default="train", help="what to train on"
    )
    arguments.set_defaults_of(parser, vqa.PUBLISHED_TRAIN)
    return parser


def main(argv=None):
    """Train, score or predict; returns the result that ``result.json`` holds, or None where other processes did it."""
    return start.train(vqa, main, get_args_parser(), argv, DEMO)


if __name__ == "__main__":
    run_cli(main)
