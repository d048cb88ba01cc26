"""MMNas on image-text matching: search an encoder-decoder of attention operations (Yu et al., ACM MM 2020, section 3).

  python search_itm.py --data data/itm --DATASET flickr
  python search_itm.py --demo                       # synthetic scenes of coloured shapes

Weight steps on the captions of the first 80 % of the training images, architecture steps on the others from epoch 20
on; hard negatives are mined from epoch 10 on, with a random path. It writes to <out_dir>/search-<VERSION>-<time>/:
arch.json (the architecture of every epoch), pictures (architectures/), probabilities.svg and result.json. Then:
  python train_itm.py --RUN='train' --ARCH_PATH=<that folder>
Values: tasks/itm.py; space: models/mmnas/space.py; the way of a batch: docs/design.md. Read search_vqa.py first; here
negatives are mined and dev is scored.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import functools

import torch

from engine import arguments
from engine.launch import launch
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch
from engine.updates import OptimizerStep, data_parallel
from models.mmnas.cost import architecture_cost
from search.derive import Derivation
from search.gates import SampledGates
from search.loops import InterleavedSearch
from search.monitor import ArchitectureMonitor, run_search
from search.strategies import is_black_box, strategy_of
from tasks import itm
from tasks.mmnas import flags, networks
from tasks.mmnas.data import build_loaders, check_data, describe, note_data
from tasks.mmnas.estimates import estimate_search
from tasks.mmnas.trainings import search_by_trainings
from util.schedules import WarmupStepDecay

TASK = itm.TASK
DEMO = {**itm.DEMO, "epochs": 8, "alpha_start": 5, "neg_start_epoch": 6}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = itm.recipe_parser(__doc__)
    flags.add_search_flags(parser)
    arguments.set_defaults_of(parser, itm.PUBLISHED_SEARCH)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds, or None if other processes did it."""
    args = flags.parse_search(TASK, get_args_parser(), argv, DEMO)
    if launch(__name__, argv, args.GPU, args.device):  # --GPU '0, 1': one process each
        return None
    data = TASK.open_search(args)
    check_data(TASK, data)
    if args.estimate:
        return estimate_search(TASK, args, data)

    with start_run(args, "search", args.out_dir) as run:
        # Words (GloVe, LSTM), regions (linear), all operations, a score of a pair; sped up by models/mmnas/fast.py.
        net = TASK.build_net(args, TASK.metadata(data["train"]), architecture=None).to(run.device)
        networks.set_padding(net, data)
        precision = networks.build_precision(args, run.device)
        loaders = build_loaders(args, run, {k: data[k] for k in ("train", "held_out")}, drop_last=True)
        note_data(run, data)
        if is_black_box(args):  # random, evolution: complete networks, trained one by one; each mines for itself
            return search_by_trainings(TASK, args, run, net, data, loaders, precision, "dev")

        strategy = strategy_of(args, functools.partial(SampledGates, mode=args.alpha_mode)).attach(net)
        shared = {"reduction": TASK.loss_reduction, "micro_batch": args.micro_batch, "min_part": 1}
        shared |= {"precision": precision, "parallel": data_parallel(run, precision)}
        loss = TASK.loss(args)  # binary cross-entropy of own pairs and hard negatives, or a margin
        fused = args.fused_adam or None
        weight_adam = torch.optim.Adam(net.weights(), lr=args.lr, betas=(0.9, 0.98), eps=1e-9, fused=fused)
        steps = len(loaders["train"])
        networks.log_step_counts(args, steps)
        schedule = WarmupStepDecay(args.lr, steps, args.lr_decay_epochs, args.lr_decay)
        unused = not net.uses_all_weights()
        moved = args.unsampled == "keep_momentum"  # whether Adam also moves what a path leaves out
        weight_update = OptimizerStep(
            net, loss, weight_adam, schedule=schedule, find_unused=unused, clip=args.clip, step_unused=moved, **shared
        )

        # Backward fills the gates; `finish_backward` turns them into gradients of the logits, which Adam moves.
        alpha_adam = torch.optim.Adam([choice.logits for choice in net.choices()], lr=args.alpha_lr, betas=(0.0, 0.999))
        alpha_update = OptimizerStep(net, loss, alpha_adam, parameters=strategy.gradient_parameters(), **shared)

        # From epoch --alpha_start on, an architecture step on held-out data after every --alpha_every weight steps.
        passes = (loaders["train"], loaders["held_out"])
        start = args.alpha_start
        search_epoch = InterleavedSearch(
            strategy, weight_update, alpha_update, passes, run.device, args.epochs, start=start, every=args.alpha_every
        )
        monitor = ArchitectureMonitor(net, networks.collapse_warnings, args.patience, start)
        last = BestEpoch("last", None, "architecture of the last epoch")
        scorer = TASK.build_scorer(args, run, data["dev"], precision, "dev")
        derivation = Derivation(args.derive, scorer, TASK.validation.score, args.seed)
        measure = functools.partial(architecture_cost, hsize=args.hsize, batch=total_batch(args), device=run.device)
        mining = TASK.before_epoch(args, run, net, data, precision)  # hard negatives
        reported = {"scorers": {"dev": scorer}, "measure": measure, "facts": describe(TASK, run, data)}
        return run_search(run, search_epoch, monitor, last, before_epoch=mining, derivation=derivation, **reported)


if __name__ == "__main__":
    run_cli(main)
