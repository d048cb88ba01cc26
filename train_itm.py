"""MMNas on image-text matching: train an architecture, score dev and test (Yu et al., ACM MM 2020, section 4).

  python train_itm.py --RUN='train' --DATASET=flickr --ARCH_PATH='arch/mmnas_itm.json'
  python train_itm.py --RUN='train' --ARCH_PATH='<search run>' --ARCH_EPOCH=50
  python train_itm.py --RUN='train' --ARCH_PATH=random --search_exp_dir='<search run>'   # of its search space
  python train_itm.py --RUN='val' --CKPT_PATH=<run folder>    # dev
  python train_itm.py --RUN='test' --CKPT_PATH=<run folder>   # of COCO all 5,000 images, and the mean of five 1,000
  python train_itm.py --RUN='train' --RESUME --CKPT_PATH=<run folder>

Checkpoints of the original code are read with --ARCH_PATH beside --CKPT_PATH. Results:
train-<VERSION>-<time>/result.json, in <out_dir> or inside the search run whose architecture is trained; val and test
runs lie inside the training and also write retrieval.txt, the lines in which the original reports, and
predictions.json. The released checkpoint has on Flickr30K R@1 77.30 (image to
text) and 60.88 (text to image).
"""

from engine import arguments
from tasks import itm
from tasks.supernet import flags, start
from util.cli import run_cli

DEMO = {**itm.DEMO, "epochs": 10, "lr_decay_epochs": (7, 9), "neg_start_epoch": 4, "neg_every": 2, "ARCH_PATH": "mcan"}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = itm.recipe_parser(__doc__)
    flags.add_train_flags(parser)
    parser.add_argument("--SPLIT", choices=("train",), default="train", help="what to train on")
    arguments.set_defaults_of(parser, itm.PUBLISHED_TRAIN)
    return parser


def main(argv=None):
    """Train or score; returns the result that ``result.json`` holds, or None where other processes did it."""
    return start.train(itm, main, get_args_parser(), argv, DEMO)


if __name__ == "__main__":
    run_cli(main)
