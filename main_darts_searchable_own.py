"""BM-NAS on data of your own: search how to fuse any number of modalities (docs/own_data.md).

  python datasets/prepare_own.py ... --out data/films
  python main_darts_searchable_own.py --datadir data/films --encoder image=timm:resnet18
  python main_darts_searchable_own.py --demo            # real data: two sensors, seven activities

Weight steps on train, architecture steps on dev. Encoders that start with random weights are trained with
the fusion; pretrained ones, and those of main_unimodal_own.py (--encoder_weights NAME=RUN_FOLDER), are frozen
and computed once.
<out_dir>/search-<save>-<time>/ gets the genotype of the best dev epoch (genotype.json), a picture
of every epoch's (architectures/), the probabilities (probabilities.svg) and result.json. Then:
  python main_darts_found_own.py --search_exp_dir <that folder>
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import torch

from engine import arguments
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch
from engine.updates import OptimizerStep, Precision, data_parallel
from models.bmnas.collapse import collapse
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
        # An encoder per modality; --train_encoders says which of them are trained here.
        backbones = task.build_backbones(args)
        net = build_search_net(task, args, backbones).to(run.device)
        loss, metric = task.loss, task.metric(args)  # by the kind of label
        precision = Precision(args.amp, run.device)
        shared = {"precision": precision, "parallel": data_parallel(run, precision), "micro_batch": args.micro_batch}
        loaders = feature_loaders(args, run, net, data, precision)
        facts = {**describe(task, run, data, net, metric), **own.facts(args, net)}
        if is_black_box(args):  # random, evolution: found networks, trained one by one, encoders included
            return search_by_trainings(task, args, run, net, data, loaders, precision, facts)

        strategy = strategy_of(args, SoftmaxMixture).attach(net)
        adam = torch.optim.Adam(net.weights(), lr=args.eta_max, weight_decay=args.weight_decay)
        cycle = (args.eta_max, args.eta_min, args.Ti, args.Tm, len(data[train]) / total_batch(args))
        cosine = CosineRestarts(*cycle, restarts=args.lr_restarts)
        weights = OptimizerStep(net, loss, adam, schedule=cosine, find_unused=not net.uses_all_weights(), **shared)
        # Of a cell whose steps are not all read, pairs of edges leave some logits out.
        learned, unused = strategy.gradient_parameters(), strategy.ordered_pairs
        logits, rate = [choice.logits for choice in strategy.choices], args.arch_learning_rate
        adam = torch.optim.Adam(logits, lr=rate, betas=(0.5, 0.999), weight_decay=args.arch_weight_decay)
        alphas = OptimizerStep(net, loss, adam, parameters=learned, find_unused=unused, **shared)

        # A pass of weight steps over train, then a pass of architecture steps over dev.
        passes = (loaders[train], loaders[dev])
        scored = {"metric": metric, "second_forward": args.dev_metric == "second_forward"}
        search_epoch = EpochwiseSearch(strategy, weights, alphas, passes, run.device, args.epochs, **scored)
        scorer, rule = search_epoch.dev_scorer(), "genotype of the epoch with the best dev score during the search"
        best = BestEpoch("dev", metric.name, rule, task.later_wins_ties)
        derivation = Derivation(args.derive, scorer, metric.name, args.seed)
        monitor = ArchitectureMonitor(net, collapse, args.patience)
        return run_search(run, search_epoch, monitor, best, derivation=derivation, facts=facts)


if __name__ == "__main__":
    run_cli(main)
