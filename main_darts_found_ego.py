"""BM-NAS on EgoGesture: train and test a fusion network (Yin et al., AAAI 2022, section 4.3).

  python main_darts_found_ego.py --search_exp_dir=<dir of search exp>
  python main_darts_found_ego.py --search_exp_dir=<dir of search exp> --eval_exp_dir=<dir of eval exp>   # test only
  python main_darts_found_ego.py --genotype random      # or: --genotype FILE.json, --fusion late

The released script keeps the backbones as they are; --no-freeze_backbones trains them too. Data, sizes, seed
and weights default to those of the search run. Results: <search_exp_dir>/eval-<save>-<time>/result.json.
Paper, Table 3: accuracy 94.96 on test. --recipe ego-1 trains as described in its supplement (train and dev
together, 50 epochs at batch 72, backbones too) and, like the released script, selects on test.
Values: tasks/ego.py; network: models/bmnas/fusion_net.py.
Read main_darts_found_mmimdb.py first; only data, backbones and values differ here.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import torch

from engine import arguments
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch, train_network
from engine.updates import OptimizerStep, Precision, data_parallel
from models.bmnas.cost import fusion_cost
from tasks import ego
from tasks.bmnas import flags, paper_recipes
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.estimates import estimate_found
from tasks.bmnas.evaluation import evaluate_found
from tasks.bmnas.networks import build_found_net, find_genotype, genotype_facts, keep_genotype
from util.schedules import CosineRestarts

TASK = ego.TASK
DEMO = {**ego.DEMO, "epochs": 12, "Ti": 12}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = ego.recipe_parser(__doc__)
    flags.add_found_flags(parser, backbones)
    arguments.add_recipe_flag(parser, paper_recipes.found_recipes("ego"))
    arguments.set_defaults_of(parser, ego.PUBLISHED_FOUND)
    return parser


def main(argv=None):
    """Train (or only test) a found network; returns the result that ``result.json`` holds."""
    args = flags.parse_found(TASK, get_args_parser(), argv, DEMO)
    if args.eval_exp_dir:
        return evaluate_found(TASK, args)
    trained = TASK.train_splits[args.train_on]
    data = open_splits(TASK, args, (*trained, *(["dev"] if args.train_on == "train" else []), "test"))
    if args.estimate:
        return estimate_found(TASK, args, data, trained)

    with start_run(args, "eval", args.out_dir) as run:
        genotype = find_genotype(TASK, args)  # searched, drawn at random, or None: late fusion
        # A 3-D ResNeXt-101 on RGB and one on depth (--rgb_cp, --depth_cp, --checkpointdir).
        backbones = TASK.build_backbones(args)
        net = build_found_net(TASK, args, backbones, genotype, frozen=args.freeze_backbones).to(run.device)
        keep_genotype(run, genotype)
        loss = TASK.loss  # cross-entropy
        metric = TASK.metric(args)  # accuracy
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

        best = BestEpoch(args.select_on, metric.name, flags.PROTOCOLS[args.select_on], TASK.later_wins_ties)
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
            **describe(TASK, run, data, net, metric),
            **fusion_cost(net, total_batch(args)),
        )


if __name__ == "__main__":
    run_cli(main)
