"""BM-NAS on data of your own: train and test a fusion network (docs/own_data.md).

  python main_darts_found_own.py --search_exp_dir=<dir of search exp>
  python main_darts_found_own.py --eval_exp_dir=<dir of eval exp>           # test only
  python main_darts_found_own.py --datadir data/films --fusion late         # baselines: late, concat
  python main_darts_found_own.py --datadir data/films --genotype random

Encoders that start with random weights are trained with the fusion; the others are frozen and their features
computed once (--train_encoders changes that). --modality_dropout P prepares the network for missing modalities.
Data, encoders, sizes, seed and weights default to those of the search run. Results:
<search_exp_dir>/eval-<save>-<time>/result.json.
Values: tasks/own.py; network: models/bmnas/fusion_net.py.
Read main_darts_found_mmimdb.py first; here the task follows from the data.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import torch

from engine import arguments
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch, train_network
from engine.updates import OptimizerStep, Precision, data_parallel
from tasks import own, own_encoders
from tasks.bmnas import flags
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.estimates import estimate_found
from tasks.bmnas.evaluation import evaluate_found
from tasks.bmnas.networks import build_found_net, find_genotype, genotype_facts, keep_genotype
from util.schedules import CosineRestarts


def get_args_parser():
    """Flags of this recipe, with values for small data."""
    parser, backbones = own.recipe_parser(__doc__)
    own_encoders.add_training_flag(backbones)
    flags.add_found_flags(parser, backbones)
    arguments.set_defaults_of(parser, own.DEFAULTS)
    return parser


def main(argv=None):
    """Train (or only test) a found network; returns the result that ``result.json`` holds."""
    task, args = own.parse_found(get_args_parser(), argv, own.DEMO)
    if args.eval_exp_dir:
        return evaluate_found(task, args)
    trained = task.train_splits[args.train_on]
    data = open_splits(task, args, (*trained, *(["dev"] if args.train_on == "train" else []), "test"))
    if args.estimate:
        return estimate_found(task, args, data, trained)

    with start_run(args, "eval", args.out_dir) as run:
        genotype = find_genotype(task, args)  # searched, drawn at random, or None: a baseline
        backbones = task.build_backbones(args)
        net = build_found_net(task, args, backbones, genotype, frozen=args.freeze_backbones).to(run.device)
        keep_genotype(run, genotype)
        own.keep_inputs(run, task, args, net)  # for `tasks.loading.load_found`
        loss = task.loss  # by the kind of label, as the metric
        metric = task.metric(args)
        precision = Precision(args.amp, run.device)
        loaders = feature_loaders(args, run, net, data, precision)

        adam = torch.optim.Adam(net.weights(), lr=args.eta_max, weight_decay=args.weight_decay)
        batches = len(data[trained[0]]) / total_batch(args)
        cosine = CosineRestarts(args.eta_max, args.eta_min, args.Ti, args.Tm, batches, restarts=args.lr_restarts)
        weight_update = OptimizerStep(
            net,
            loss,
            adam,
            schedule=cosine,
            precision=precision,
            parallel=data_parallel(run, precision),
            find_unused=not net.uses_all_weights(),
            micro_batch=args.micro_batch,
        )

        best = BestEpoch(args.select_on, metric.name, flags.PROTOCOLS[args.select_on], task.later_wins_ties)
        return train_network(
            run,
            net,
            weight_update,
            loaders,
            metric,
            best,
            trained=trained,
            genotype=genotype.to_dict() if genotype else None,
            fusion=args.fusion,
            architecture=genotype_facts(args),
            **describe(task, run, data, net, metric),
            **own.facts(args, net),
        )


if __name__ == "__main__":
    run_cli(main)
