"""BM-NAS on EgoGesture: search the fusion of RGB and depth features (Yin et al., AAAI 2022, section 4.3).

  python main_darts_searchable_ego.py [--rgb_cp <run folder of main_unimodal_ego.py>] [--depth_cp <another>]
  python main_darts_searchable_ego.py --demo

Weight steps on the training clips, architecture steps on the validation clips; the backbones are frozen.
--estimate prints the memory and time that it needs; --amp bf16 and --augment_views 4 make it faster.
It writes to <out_dir>/search-<save>-<time>/: the genotype of the best dev epoch (genotype.json), a picture of
every epoch's genotype (architectures/), the probabilities (probabilities.svg) and result.json. --recipe ego-1
to ego-4 use the paper's configurations (Table 8; ego-1: accuracy 98.87 on dev, 20.67 GPU hours). Then:
  python main_darts_found_ego.py --search_exp_dir <that folder>
Values: tasks/ego.py; space: models/bmnas/cells.py; the way of a batch: docs/design.md.
Read main_darts_searchable_mmimdb.py first; only data, backbones and values differ here.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import functools

import torch

from engine import arguments
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch
from engine.updates import OptimizerStep, Precision, data_parallel
from models.bmnas.collapse import collapse_warnings
from models.bmnas.cost import fusion_cost
from search.derive import Derivation
from search.loops import EpochwiseSearch
from search.monitor import ArchitectureMonitor, run_search
from search.relaxation import SoftmaxMixture
from search.strategies import is_black_box, strategy_of
from tasks import ego
from tasks.bmnas import flags, paper_recipes
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.estimates import estimate_search
from tasks.bmnas.networks import build_search_net
from tasks.bmnas.trainings import search_by_trainings
from util.schedules import CosineRestarts

TASK = ego.TASK
DEMO = {**ego.DEMO, "epochs": 20, "Ti": 20, "arch_learning_rate": 3e-2}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = ego.recipe_parser(__doc__)
    flags.add_search_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.search_recipes("ego"))
    arguments.set_defaults_of(parser, ego.PUBLISHED_SEARCH)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds."""
    args = flags.parse_search(TASK, get_args_parser(), argv, DEMO)
    train, dev = "train", "dev"
    data = open_splits(TASK, args, (train, dev))
    if args.estimate:
        return estimate_search(TASK, args, data[train], data[dev])

    with start_run(args, "search", args.out_dir) as run:
        # Frozen: a 3-D ResNeXt-101 on RGB and one on depth (--rgb_cp, --depth_cp, --checkpointdir).
        net = build_search_net(TASK, args, TASK.build_backbones(args)).to(run.device)
        loss = TASK.loss  # cross-entropy
        metric = TASK.metric(args)  # accuracy
        precision = Precision(args.amp, run.device)
        shared = {"precision": precision, "parallel": data_parallel(run, precision), "micro_batch": args.micro_batch}
        loaders, batch_size = feature_loaders(args, run, net, data, precision), total_batch(args)
        facts = describe(TASK, run, data, net, metric)
        if is_black_box(args):  # random, evolution: complete networks, trained one by one on these features
            return search_by_trainings(TASK, args, run, net, data, loaders, precision, facts)

        strategy = strategy_of(args, SoftmaxMixture).attach(net)
        weight_adam = torch.optim.Adam(net.weights(), lr=args.eta_max, weight_decay=args.weight_decay)
        batches = len(data[train]) / batch_size
        cosine = CosineRestarts(args.eta_max, args.eta_min, args.Ti, args.Tm, batches, restarts=args.lr_restarts)
        unused = not net.uses_all_weights()
        weight_update = OptimizerStep(net, loss, weight_adam, schedule=cosine, find_unused=unused, **shared)

        learned = strategy.gradient_parameters()
        logits = [choice.logits for choice in strategy.choices]
        alpha_adam = torch.optim.Adam(
            logits, lr=args.arch_learning_rate, betas=(0.5, 0.999), weight_decay=args.arch_weight_decay
        )
        unused = strategy.ordered_pairs  # the logits of a step that no drawn pair reads get no gradient
        alpha_update = OptimizerStep(net, loss, alpha_adam, parameters=learned, find_unused=unused, **shared)

        # A pass of weight steps over train, then a pass of architecture steps over dev. As published, the dev score is
        # that of the architecture steps: in training mode (dropout, batch statistics), while the logits move.
        passes = (loaders[train], loaders[dev])
        second = args.dev_metric == "second_forward"
        search_epoch = EpochwiseSearch(
            strategy, weight_update, alpha_update, passes, run.device, args.epochs, metric=metric, second_forward=second
        )
        scorer, rule = search_epoch.dev_scorer(), "genotype of the epoch with the best dev score during the search"
        best = BestEpoch("dev", metric.name, rule, TASK.later_wins_ties)
        monitor = ArchitectureMonitor(net, collapse_warnings, args.patience)
        derivation = Derivation(args.derive, scorer, metric.name, args.seed)
        measure = functools.partial(fusion_cost, net, batch_size)  # size and speed of the derived network
        return run_search(run, search_epoch, monitor, best, derivation=derivation, measure=measure, facts=facts)


if __name__ == "__main__":
    run_cli(main)
