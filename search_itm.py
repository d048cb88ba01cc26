"""MMNas on image-text matching: search an encoder-decoder of attention operations (Yu et al., ACM MM 2020, section 3).

  python search_itm.py --data data/itm --DATASET flickr
  python search_itm.py --demo                       # synthetic scenes of coloured shapes

Weight steps on the captions of the first 80 % of the training images, architecture steps on the others from epoch 20
on; hard negatives are mined from epoch 10 on, with a random path. <out_dir>/search-<VERSION>-<time>/ gets arch.json
(the architecture of every epoch), pictures of them (architectures/), the probabilities (probabilities.svg) and
result.json. Then:
  python train_itm.py --RUN='train' --ARCH_PATH=<that folder>
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
from search.strategies import strategy_of
from tasks import itm
from tasks.mmnas import flags, networks
from tasks.mmnas.data import build_loaders, check_data, describe, note_data
from tasks.mmnas.estimates import estimate_search
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
    """Search; returns the result that ``result.json`` holds, or None where other processes did it."""
    args = flags.parse_search(TASK, get_args_parser(), argv, DEMO)
    if launch(__name__, argv, args.GPU, args.device):  # --GPU '0, 1': one process each
        return None
    # Weight steps on the captions of the first 80 % of the training images, architecture steps on the rest.
    data = check_data(TASK, TASK.open_search(args))
    if args.estimate:
        return estimate_search(TASK, args, data)

    with start_run(args, "search", args.out_dir) as run:
        # The supernet: words (GloVe, LSTM) and regions (linear), every operation, then one score of a pair.
        net = TASK.build_net(args, TASK.metadata(data["train"]), architecture=None).to(run.device)
        networks.set_padding(net, data)
        gates = functools.partial(SampledGates, mode=args.alpha_mode)
        strategy = strategy_of(args, gates).attach(net)
        precision = networks.build_precision(args, run.device)
        loaders = build_loaders(args, run, {k: data[k] for k in ("train", "held_out")}, drop_last=True)
        note_data(run, data)

        shared = {"reduction": TASK.loss_reduction, "micro_batch": args.micro_batch, "min_part": 1}
        shared |= {"precision": precision, "parallel": data_parallel(run, precision)}
        loss = TASK.loss(args)  # binary cross-entropy of own pairs and hard negatives, or a margin
        adam = torch.optim.Adam(net.weights(), lr=args.lr, betas=(0.9, 0.98), eps=1e-9, fused=args.fused_adam or None)
        steps = networks.log_step_counts(args, loaders["train"])
        schedule = WarmupStepDecay(args.lr, steps, args.lr_decay_epochs, args.lr_decay)
        options = {"clip": args.clip, "step_unused": args.unsampled == "keep_momentum", **shared}
        weights = OptimizerStep(net, loss, adam, schedule=schedule, find_unused=not net.uses_all_weights(), **options)
        adam = torch.optim.Adam([choice.logits for choice in net.choices()], lr=args.alpha_lr, betas=(0.0, 0.999))
        alphas = OptimizerStep(net, loss, adam, parameters=strategy.gradient_parameters(), **shared)

        # From epoch --alpha_start on, an architecture step on held-out data after every --alpha_every weight steps.
        turns = {"start": args.alpha_start, "every": args.alpha_every}
        passes = (loaders["train"], loaders["held_out"])
        search_epoch = InterleavedSearch(strategy, weights, alphas, passes, run.device, args.epochs, **turns)
        monitor = ArchitectureMonitor(net, networks.collapse, args.patience, args.alpha_start)
        last = BestEpoch("last", None, "architecture of the last epoch")
        scored = "dev"
        scorer = TASK.build_scorer(args, run, data[scored], precision, scored)
        measure = functools.partial(architecture_cost, hsize=args.hsize, batch=total_batch(args), device=run.device)
        derivation = Derivation(args.derive, scorer, TASK.validation[1], args.seed)
        found = {"keep": networks.keep_architecture, "derivation": derivation, "measure": measure}
        found |= {"scorers": {scored: scorer}, "facts": describe(TASK, run, data)}
        mining = TASK.before_epoch(args, run, net, data, precision)  # hard negatives
        return run_search(run, search_epoch, monitor, last, before_epoch=mining, **found)


if __name__ == "__main__":
    run_cli(main)
