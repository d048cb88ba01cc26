"""MMNas on image-text matching: train an architecture, score dev and test (Yu et al., ACM MM 2020, section 4).

  python train_itm.py --RUN='train' --DATASET=flickr --ARCH_PATH='arch/mmnas_itm.json'
  python train_itm.py --RUN='train' --ARCH_PATH='<search run>' --ARCH_EPOCH=50
  python train_itm.py --RUN='train' --ARCH_PATH=random --search_exp_dir='<search run>'   # from its search space
  python train_itm.py --RUN='test' --CKPT_PATH=<run folder>   # or val: dev. COCO: 5,000 images, mean of five 1,000
  python train_itm.py --RUN='train' --RESUME --CKPT_PATH=<run folder>

Checkpoints of the original code need --ARCH_PATH in addition to --CKPT_PATH. Results, in <out_dir> or inside the search
run whose architecture is trained: train-<VERSION>-<time>/result.json; val and test runs are inside the training and
write predictions.json and retrieval.txt, the scores in the original's format. R@1 of the released checkpoint on
Flickr30K: 77.30 (image to text) and 60.88 (text to image).
Values: tasks/itm.py; network: models/mmnas/matching.py. Unlike train_vqa.py it mines hard negatives.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import torch

from engine import arguments
from engine.launch import launch
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch, train_network
from engine.updates import OptimizerStep, data_parallel
from models.mmnas.cost import architecture_cost
from tasks import itm
from tasks.mmnas import flags, networks
from tasks.mmnas.checkpoints import checkpoint_extras
from tasks.mmnas.data import build_loaders, check_data, describe, note_data
from tasks.mmnas.estimates import estimate_training
from tasks.mmnas.evaluation import evaluate_checkpoint
from util.schedules import WarmupStepDecay

TASK = itm.TASK
DEMO = {**itm.DEMO, "epochs": 10, "lr_decay_epochs": (7, 9), "neg_start_epoch": 4, "neg_every": 2, "ARCH_PATH": "mcan"}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = itm.recipe_parser(__doc__)
    flags.add_train_flags(parser)
    parser.add_argument("--SPLIT", choices=("train",), default="train", help="what to train on")
    arguments.set_defaults_of(parser, itm.PUBLISHED_TRAIN)
    return parser


def main(argv=None):
    """Train, score or predict; returns the result that ``result.json`` holds, or None if other processes did it."""
    args = flags.parse_train(TASK, get_args_parser(), argv, DEMO)
    if launch(__name__, argv, args.GPU, args.device):  # --GPU '0, 1': one process each
        return None
    if args.RUN != "train":
        return evaluate_checkpoint(TASK, args)
    data = TASK.open_training(args)  # train, dev and the test split
    check_data(TASK, data)
    if args.estimate:
        return estimate_training(TASK, args, data)

    architecture = networks.find_architecture(args)  # from a file or a search run, mcan, or random
    with start_run(args, "train", args.out_dir) as run:
        metadata = TASK.metadata(data["train"])
        # Words (GloVe, LSTM) and regions (linear), the encoder-decoder, then one score per pair.
        net = TASK.build_net(args, metadata, architecture).to(run.device)
        networks.set_padding(net, data)
        note_data(run, data)
        networks.note_architecture(run, architecture)
        precision = networks.build_precision(args, run.device)
        loaders = build_loaders(args, run, {"train": data["train"]}, drop_last=True)
        adam = torch.optim.Adam(net.weights(), lr=args.lr, betas=(0.9, 0.98), eps=1e-9, fused=args.fused_adam or None)
        parallel = data_parallel(run, precision)
        weight_update = OptimizerStep(
            net,
            TASK.loss(args),  # binary cross-entropy of true pairs and hard negatives, or a margin loss
            adam,
            schedule=WarmupStepDecay(args.lr, len(loaders["train"]), args.lr_decay_epochs, args.lr_decay),
            precision=precision,
            parallel=networks.compiled(net, parallel) if args.compile else parallel,
            find_unused=not net.uses_all_weights(),
            micro_batch=args.micro_batch,
            min_part=1,
            reduction=TASK.loss_reduction,
            clip=args.clip,
        )
        split = "last" if args.select_on == "last" else TASK.validation.split
        best = BestEpoch(split, TASK.validation.score, flags.PROTOCOLS[args.select_on])  # mean recall on dev
        mining = TASK.before_epoch(args, run, net, data, precision)  # hard negatives
        return train_network(
            run,
            net,
            weight_update,
            loaders,
            TASK.training_metric(args, data["train"]),
            best,
            scorers={k: TASK.build_scorer(args, run, data[k], precision, k) for k in data if k != "train"},
            every_epoch=(TASK.validation.split,),
            before_epoch=mining,
            genotype=architecture.to_dict(),
            checkpoint_extras=checkpoint_extras(TASK, args, metadata),
            architecture=networks.architecture_facts(args),
            **describe(TASK, run, data),
            **architecture_cost(architecture, hsize=args.hsize, batch=total_batch(args), device=run.device),
        )


if __name__ == "__main__":
    run_cli(main)
