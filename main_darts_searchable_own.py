"""BM-NAS on data of your own: search how to fuse any number of modalities (docs/own_data.md).

  python datasets/prepare_own.py ... --out data/films
  python main_darts_searchable_own.py --datadir data/films --encoder image=timm:resnet18
  python main_darts_searchable_own.py --demo            # real data: two sensors, seven activities

Weight steps on train, architecture steps on dev. Encoders that start with random weights are trained with
the fusion; pretrained ones, and those of main_unimodal_own.py (--encoder_weights NAME=RUN_FOLDER), are frozen
and their features computed once.
It writes to <out_dir>/search-<save>-<time>/: the genotype of the best dev epoch (genotype.json), a picture
of every epoch's genotype (architectures/), the probabilities (probabilities.svg) and result.json. Then:
  python main_darts_found_own.py --search_exp_dir <that folder>
Values: tasks/own.py; space: models/bmnas/cells.py; the way of a batch: docs/design.md.
Read main_darts_searchable_mmimdb.py first; here the task follows from the data, and encoders can be trained.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import torch

from engine import arguments
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch
from engine.updates import OptimizerStep, Precision, data_parallel
from models.bmnas.collapse import collapse_warnings
from search.derive import Derivation
from search.loops import EpochwiseSearch
from search.monitor import ArchitectureMonitor, run_search
from search.relaxation import SoftmaxMixture
from search.strategies import is_black_box, strategy_of
from tasks import own, own_encoders
from tasks.bmnas import flags
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.estimates import estimate_search
from tasks.bmnas.networks import build_search_net
from tasks.bmnas.trainings import search_by_trainings
from util.schedules import CosineRestarts


def get_args_parser():
    """Flags of this recipe, with values for small data."""
    parser, backbones = own.recipe_parser(__doc__)
    own_encoders.add_training_flag(backbones)
    flags.add_search_flags(parser, backbones)
    arguments.set_defaults_of(parser, own.DEFAULTS)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds."""
    task, args = own.parse_search(get_args_parser(), argv, own.DEMO)
    train, dev = "train", "dev"
    data = open_splits(task, args, (train, dev))
    if args.estimate:
        return estimate_search(task, args, data[train], data[dev])

    with start_run(args, "search", args.out_dir) as run:
        # One encoder per modality; --train_encoders decides which of them are trained here.
        backbones = task.build_backbones(args)
        net = build_search_net(task, args, backbones).to(run.device)
        loss = task.loss  # by the kind of label, as the metric
        metric = task.metric(args)
        precision = Precision(args.amp, run.device)
        shared = {"precision": precision, "parallel": data_parallel(run, precision), "micro_batch": args.micro_batch}
        loaders = feature_loaders(args, run, net, data, precision)
        facts = {**describe(task, run, data, net, metric), **own.facts(args, net)}
        if is_black_box(args):  # random, evolution: complete networks, trained one by one, encoders included
            return search_by_trainings(task, args, run, net, data, loaders, precision, facts)

        strategy = strategy_of(args, SoftmaxMixture).attach(net)
        shared = {"precision": precision, "parallel": data_parallel(run, precision), "micro_batch": args.micro_batch}
        weight_adam = torch.optim.Adam(net.weights(), lr=args.eta_max, weight_decay=args.weight_decay)
        batches = len(data[train]) / total_batch(args)
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
        best = BestEpoch("dev", metric.name, rule, task.later_wins_ties)
        monitor = ArchitectureMonitor(net, collapse_warnings, args.patience)
        derivation = Derivation(args.derive, scorer, metric.name, args.seed)
        return run_search(run, search_epoch, monitor, best, derivation=derivation, facts=facts)


if __name__ == "__main__":
    run_cli(main)
