"""MM-IMDB with one modality: the papers' unimodal rows, and the backbones that a search starts from.

  python main_unimodal_mmimdb.py --modality text
  python main_unimodal_mmimdb.py --modality image [--freeze_backbones]

Trains the MaxOut network on plots, or VGG-19 on posters (all of it, or with --freeze_backbones only its head).
It writes backbone.pth into the run folder: pass that folder as --text_cp or --image_cp.
BM-NAS, Table 1: weighted F1 57.54 (text) and 49.21 (image) on test.
Values: tasks/mmimdb.py; network: models/backbone_net.py. The training is that of main_darts_found_mmimdb.py.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import torch

from engine import arguments
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch, train_network
from engine.updates import OptimizerStep, Precision, data_parallel
from tasks import mmimdb
from tasks.bmnas import flags
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.estimates import estimate_unimodal
from tasks.bmnas.networks import build_unimodal_net
from util.schedules import CosineRestarts

TASK = mmimdb.TASK
DEMO = {**mmimdb.DEMO, "epochs": 10, "Ti": 10, "freeze_backbones": True}


def get_args_parser():
    """Flags of this recipe, with the values of the fusion recipes."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    flags.add_unimodal_flags(parser, backbones, TASK.modalities)
    arguments.set_defaults_of(parser, mmimdb.PUBLISHED)
    return parser


def main(argv=None):
    """Train one backbone; returns the result that ``result.json`` holds."""
    args = flags.parse_unimodal(TASK, get_args_parser(), argv, DEMO)
    data = open_splits(TASK, args, ("train", "dev", "test"))
    if args.estimate:
        return estimate_unimodal(TASK, args, data)

    with start_run(args, f"unimodal-{args.modality}", args.out_dir) as run:
        # MaxOut on plots from scratch, or VGG-19 and MaxOut on posters from ImageNet weights.
        net = build_unimodal_net(TASK, args).to(run.device)
        loss = TASK.loss  # binary cross-entropy
        metric = TASK.metric(args)  # F1 (--f1_type)
        precision = Precision(args.amp, run.device)
        loaders = feature_loaders(args, run, net, data, precision)

        adam = torch.optim.Adam(net.weights(), lr=args.eta_max, weight_decay=args.weight_decay)
        batches = len(data["train"]) / total_batch(args)
        cosine = CosineRestarts(args.eta_max, args.eta_min, args.Ti, args.Tm, batches, restarts=args.lr_restarts)
        weight_update = OptimizerStep(
            net,
            loss,
            adam,
            schedule=cosine,
            precision=precision,
            parallel=data_parallel(run, precision),
            micro_batch=args.micro_batch,
        )

        best = BestEpoch(args.select_on, metric.name, flags.PROTOCOLS[args.select_on], TASK.later_wins_ties)
        facts = describe(TASK, run, data, net, metric)
        result = train_network(run, net, weight_update, loaders, metric, best, modality=args.modality, **facts)
        run.save("backbone.pth", net.backbone.state_dict())
        return result


if __name__ == "__main__":
    run_cli(main)
