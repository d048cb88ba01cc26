"""MMNas on visual grounding: train an architecture, score val, score and predict a test split (Yu et al., section 4).

  python train_vgd.py --RUN='train' --DATASET='refcoco' --ARCH_PATH='arch/mmnas_vgd.json'
  python train_vgd.py --RUN='train' --ARCH_PATH='<search run>' --ARCH_EPOCH=50
  python train_vgd.py --RUN='train' --ARCH_PATH=random --search_exp_dir='<search run>'   # from its search space
  python train_vgd.py --RUN='test' --TEST_SPLIT='testB' --CKPT_PATH=<run folder>    # or val
  python train_vgd.py --RUN='train' --RESUME --CKPT_PATH=<run folder>

Checkpoints of the original code need --ARCH_PATH in addition to --CKPT_PATH. A training scores val after every epoch,
and every test split at its end. Results, in <out_dir> or inside the search run whose architecture is trained:
train-<VERSION>-<time>/result.json; val and test runs are inside it. Boxes of test are also written to
logs/ckpts/result_test/result_train_<VERSION>_<DATASET>_<split>.json. Released checkpoints (val / testA / testB,
accuracy at IoU 0.5): RefCOCO 83.66 / 87.25 / 78.78, RefCOCO+ 74.48 / 81.00 / 65.15; RefCOCOg (val, test) 74.59, 75.42.
Values: tasks/vgd.py; network: models/mmnas/net.py. Only data, head, loss and values differ from train_vqa.py.
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
from tasks import vgd
from tasks.mmnas import flags, networks
from tasks.mmnas.checkpoints import checkpoint_extras
from tasks.mmnas.data import build_loaders, check_data, describe, note_data
from tasks.mmnas.estimates import estimate_training
from tasks.mmnas.evaluation import evaluate_checkpoint
from util.schedules import WarmupStepDecay

TASK = vgd.TASK
DEMO = {**vgd.DEMO, "epochs": 11, "lr_decay_epochs": (8, 10), "ARCH_PATH": "mcan"}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = vgd.recipe_parser(__doc__)
    flags.add_train_flags(parser)
    parser.add_argument("--SPLIT", choices=("train", "train+val"), default="train", help="what to train on")
    tested = "split of --RUN test (default: testA; for refcocog: test)"
    parser.add_argument("--TEST_SPLIT", choices=("testA", "testB", "test", "val"), help=tested)
    arguments.set_defaults_of(parser, vgd.PUBLISHED_TRAIN)
    return parser


def main(argv=None):
    """Train, score or predict; returns the result that ``result.json`` holds, or None if other processes did it."""
    args = flags.parse_train(TASK, get_args_parser(), argv, DEMO)
    if launch(__name__, argv, args.GPU, args.device):  # --GPU '0, 1': one process each
        return None
    if args.RUN != "train":
        return evaluate_checkpoint(TASK, args)
    data = TASK.open_training(args)  # --SPLIT for training, val unless it is trained on, and the test splits
    check_data(TASK, data)
    if args.estimate:
        return estimate_training(TASK, args, data)

    architecture = networks.find_architecture(args)  # from a file or a search run, mcan, or random
    with start_run(args, "train", args.out_dir) as run:
        metadata = TASK.metadata(data["train"])
        # Words (GloVe, LSTM) and regions (linear), the encoder-decoder, then a score and a box for each region.
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
            TASK.loss(args),  # KL divergence of the regions' scores from the overlaps, and smooth L1 of the boxes
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
        best = BestEpoch(split, TASK.validation.score, flags.PROTOCOLS[args.select_on])  # IoU above 0.5 on val
        return train_network(
            run,
            net,
            weight_update,
            loaders,
            TASK.training_metric(args, data["train"]),
            best,
            scorers={k: TASK.build_scorer(args, run, data[k], precision, k) for k in data if k != "train"},
            every_epoch=(TASK.validation.split,),
            genotype=architecture.to_dict(),
            checkpoint_extras=checkpoint_extras(TASK, args, metadata),
            architecture=networks.architecture_facts(args),
            **describe(TASK, run, data),
            **architecture_cost(architecture, hsize=args.hsize, batch=total_batch(args), device=run.device),
        )


if __name__ == "__main__":
    run_cli(main)
