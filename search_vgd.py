"""MMNas on visual grounding: search an encoder-decoder of attention operations (Yu et al., ACM MM 2020, section 3).

  python search_vgd.py --data data/vgd --DATASET refcoco
  python search_vgd.py --demo                       # synthetic scenes of coloured shapes

Weight steps on the first 80 % of the training expressions, architecture steps on the rest from epoch 20 on. It writes
to <out_dir>/search-<VERSION>-<time>/: arch.json (the architecture of every epoch), pictures of them (architectures/),
the probabilities (probabilities.svg) and result.json. Then:
  python train_vgd.py --RUN='train' --ARCH_PATH=<that folder>
Values: tasks/vgd.py; space: models/mmnas/space.py. Only data, head and loss differ from search_vqa.py.
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
from tasks import vgd
from tasks.mmnas import flags, networks
from tasks.mmnas.data import build_loaders, check_data, describe, note_data
from tasks.mmnas.estimates import estimate_search
from tasks.mmnas.trainings import search_by_trainings
from util.schedules import WarmupStepDecay

TASK = vgd.TASK
DEMO = {**vgd.DEMO, "epochs": 6, "alpha_start": 3}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser = vgd.recipe_parser(__doc__)
    flags.add_search_flags(parser)
    arguments.set_defaults_of(parser, vgd.PUBLISHED_SEARCH)
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
        # Words (GloVe, LSTM), regions (linear), all operations, scores and boxes; sped up by models/mmnas/fast.py.
        net = TASK.build_net(args, TASK.metadata(data["train"]), architecture=None).to(run.device)
        networks.set_padding(net, data)
        precision = networks.build_precision(args, run.device)
        loaders = build_loaders(args, run, data, drop_last=True)
        note_data(run, data)
        if is_black_box(args):  # random, evolution: complete networks, trained one by one
            return search_by_trainings(TASK, args, run, net, data, loaders, precision, "held_out")

        strategy = strategy_of(args, functools.partial(SampledGates, mode=args.alpha_mode)).attach(net)
        shared = {"reduction": TASK.loss_reduction, "micro_batch": args.micro_batch, "min_part": 1}
        shared |= {"precision": precision, "parallel": data_parallel(run, precision)}
        loss = TASK.loss(args)  # KL divergence of the regions' scores from the overlaps, and smooth L1 of the boxes
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
        scorers = {"held_out": TASK.build_scorer(args, run, data["held_out"], precision, "held_out")}
        derivation = Derivation(args.derive, scorers["held_out"], TASK.validation.score, args.seed)
        measure = functools.partial(architecture_cost, hsize=args.hsize, batch=total_batch(args), device=run.device)
        facts = describe(TASK, run, data)
        return run_search(
            run, search_epoch, monitor, last, scorers=scorers, derivation=derivation, measure=measure, facts=facts
        )


if __name__ == "__main__":
    run_cli(main)
