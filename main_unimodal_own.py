"""Data of your own with one modality: unimodal results, and encoders that a search starts from (docs/own_data.md).

  python main_unimodal_own.py --datadir data/films --modality text
  python main_unimodal_own.py --datadir data/films --modality image --encoder image=timm:resnet18 --no-freeze_backbones

Encoders with random weights are trained whole; of pretrained ones only the head is trained, on
features that are computed once, unless --no-freeze_backbones is given. The run folder gets backbone.pth: pass that
folder as --encoder_weights NAME=RUN_FOLDER; its encoder and taps come along. There is no --C: that is the width of a
fusion, and the encoder has its own (--encoder text=words:64,128).
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
        loss, metric = task.loss, task.metric(args)  # by the kind of label
        precision = Precision(args.amp, run.device)
        loaders = feature_loaders(args, run, net, data, precision)

        adam = torch.optim.Adam(net.weights(), lr=args.eta_max, weight_decay=args.weight_decay)
        cycle = (args.eta_max, args.eta_min, args.Ti, args.Tm, len(data["train"]) / total_batch(args))
        cosine = CosineRestarts(*cycle, restarts=args.lr_restarts)
        options = {"precision": precision, "parallel": data_parallel(run, precision), "micro_batch": args.micro_batch}
        weights = OptimizerStep(net, loss, adam, schedule=cosine, **options)

        best = BestEpoch(args.select_on, metric.name, flags.PROTOCOLS[args.select_on], task.later_wins_ties)
        facts = {"modality": args.modality, **describe(task, run, data, net, metric), **own.facts(args, net)}
        result = train_network(run, net, weights, loaders, metric, best, **facts)
        run.save("backbone.pth", net.backbone.state_dict())
        return result


if __name__ == "__main__":
    run_cli(main)
