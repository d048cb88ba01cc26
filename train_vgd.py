"""MMNas on visual grounding: train an architecture, score val, score and predict a test split (Yu et al., section 4).

  python train_vgd.py --RUN='train' --DATASET='refcoco' --ARCH_PATH='arch/mmnas_vgd.json'
  python train_vgd.py --RUN='train' --ARCH_PATH='<search run>' --ARCH_EPOCH=50
  python train_vgd.py --RUN='train' --ARCH_PATH=random --search_exp_dir='<search run>'   # of its search space
  python train_vgd.py --RUN='val' --CKPT_PATH=<run folder>
  python train_vgd.py --RUN='test' --TEST_SPLIT='testB' --CKPT_PATH=<run folder>
  python train_vgd.py --RUN='train' --RESUME --CKPT_PATH=<run folder>

Checkpoints of the original code are read with --ARCH_PATH beside --CKPT_PATH. A training scores val after every
epoch and every test split at its end. Results: train-<VERSION>-<time>/result.json, in <out_dir> or inside the search
run whose architecture is trained; val and test runs lie inside the training. Boxes of test also go to
logs/ckpts/result_test/result_train_<VERSION>_<DATASET>_<split>.json. Released checkpoints (val / testA / testB,
accuracy at IoU 0.5): RefCOCO 83.66 / 87.25 / 78.78, RefCOCO+ 74.48 / 81.00 / 65.15; RefCOCOg (val / test) 74.59 /
75.42.
"""

from engine import arguments
from tasks import vgd
from tasks.mmnas import flags, start
from util.cli import run_cli

DEMO = {**vgd.DEMO, "epochs": 11, "lr_decay_epochs": (8, 10), "ARCH_PATH": "mcan"}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = vgd.recipe_parser(__doc__)
    flags.add_train_flags(parser)
    parser.add_argument("--SPLIT", choices=("train", "train+val"), default="train", help="what to train on")
    parser.add_argument(
        "--TEST_SPLIT",
        choices=("testA", "testB", "test", "val"),
        help="split of --RUN test (default: testA; of refcocog test)",
    )
    arguments.set_defaults_of(parser, vgd.PUBLISHED_TRAIN)
    return parser


def main(argv=None):
    """Train, score or predict; returns the result that ``result.json`` holds, or None where other processes did it."""
    return start.train(vgd, main, get_args_parser(), argv, DEMO)


if __name__ == "__main__":
    run_cli(main)
