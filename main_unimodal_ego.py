"""EgoGesture with one modality: the papers' unimodal rows, and the backbones that a search starts from.

  python main_unimodal_ego.py --modality rgb
  python main_unimodal_ego.py --modality depth

Trains a 3-D ResNeXt-101 from scratch, or from a checkpoint (--rgb_cp, --depth_cp). It writes backbone.pth into the
run folder, in the format of the released checkpoints: pass that folder as --rgb_cp or --depth_cp.
BM-NAS, Table 3: accuracy 93.75 (RGB) and 94.03 (depth) on test.
Values: tasks/ego.py; network: models/backbone_net.py. Only data, backbones and values differ from
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
from tasks import ego
from tasks.bmnas import flags
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.estimates import estimate_unimodal
from tasks.bmnas.networks import build_unimodal_net
from util.schedules import CosineRestarts

TASK = ego.TASK
DEMO = {**ego.DEMO, "epochs": 12, "Ti": 12, "eta_max": 1e-3, "augment_views": 0}


def get_args_parser():
    """Flags of this recipe, with the values of the found recipe."""
    parser, backbones = ego.recipe_parser(__doc__, choice=False)
    flags.add_unimodal_flags(parser, backbones, TASK.modalities)
    arguments.set_defaults_of(parser, {**ego.PUBLISHED_FOUND, "freeze_backbones": False})
    return parser


def main(argv=None):
    """Train one backbone; returns the result that ``result.json`` holds."""
    args = flags.parse_unimodal(TASK, get_args_parser(), argv, DEMO)
    data = open_splits(TASK, args, ("train", "dev", "test"))
    if args.estimate:
        return estimate_unimodal(TASK, args, data)

    with start_run(args, f"unimodal-{args.modality}", args.out_dir) as run:
        # A 3-D ResNeXt-101 from scratch, or from --rgb_cp or --depth_cp.
        net = build_unimodal_net(TASK, args).to(run.device)
        loss = TASK.loss  # cross-entropy
        metric = TASK.metric(args)  # accuracy
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
