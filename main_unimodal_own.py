"""Data of your own with one modality: unimodal results, and encoders that a search starts from (docs/own_data.md).

  python main_unimodal_own.py --datadir data/films --modality text
  python main_unimodal_own.py --datadir data/films --modality image --encoder image=timm:resnet18 --no-freeze_backbones

Encoders with random weights are trained entirely. For pretrained encoders only the head is trained, on features
that are computed once, unless --no-freeze_backbones is given. It writes backbone.pth into the run folder: pass that
folder as --encoder_weights NAME=RUN_FOLDER, which also restores the encoder's name and taps. There is no --C, which
is the width of a fusion; the encoder has its own width (--encoder text=words:64,128).
Values: tasks/own.py; network: models/backbone_net.py. Here the task follows from the data; the rest is that of
main_unimodal_mmimdb.py.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import torch

from engine import arguments
from engine.loading import total_batch
from engine.run import start_run
from engine.training import BestEpoch, train_network
from engine.updates import OptimizerStep, Precision, data_parallel
from tasks import own
from tasks.bmnas import flags
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.estimates import estimate_unimodal
from tasks.bmnas.networks import build_unimodal_net
from util.schedules import CosineRestarts


def get_args_parser():
    """Flags of this recipe, with the values of the fusion recipes."""
    parser, backbones = own.recipe_parser(__doc__)
    flags.add_unimodal_flags(parser, backbones, own.ANY_MODALITY)
    flags.add_dropout_flag(parser)
    arguments.set_defaults_of(parser, own.DEFAULTS)
    return parser


def main(argv=None):
    """Train one encoder; returns the result that ``result.json`` holds."""
    task, args = own.parse_unimodal(get_args_parser(), argv, own.DEMO)
    data = open_splits(task, args, ("train", "dev", "test"))
    if args.estimate:
        return estimate_unimodal(task, args, data)

    with start_run(args, f"unimodal-{args.modality}", args.out_dir) as run:
        net = build_unimodal_net(task, args).to(run.device)
        own.keep_inputs(run, task, args, net)  # for `tasks.loading.load_found`
        loss = task.loss  # by the kind of label, as the metric
        metric = task.metric(args)
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

        best = BestEpoch(args.select_on, metric.name, flags.PROTOCOLS[args.select_on], task.later_wins_ties)
        facts = describe(task, run, data, net, metric) | own.facts(args, net)
        result = train_network(run, net, weight_update, loaders, metric, best, modality=args.modality, **facts)
        run.save("backbone.pth", net.backbone.state_dict())
        return result


if __name__ == "__main__":
    run_cli(main)
