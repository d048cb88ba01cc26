"""Measure time and peak memory of a search step on NTU RGB+D: the originals' way of working against ours, in one run.

  python benchmarks/ntu_search.py                                     # batch 4, for two cores
  python benchmarks/ntu_search.py --batchsize 96 --device cuda        # as published; the originals' way needs 128 GB

It uses the default architecture and full-size inputs (8 frames of 256x256, 32 skeleton frames) with random content and
weights. The originals' way: backbones in training mode, with gradients that are never used, and a second forward pass
in the dev phase. Ours: frozen backbones, --backbone_batch samples at a time, no second pass; with --augment_views,
steps after the first epoch run only the fusion, on cached features. Each side runs in its own process, so that its peak
memory can be measured.
"""

import datetime
import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, number, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402

ORIGINAL, OURS, KEPT = "originals' way", "ours", "ours, kept features"


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--batchsize", type=number(int, 2), default=4, help="samples of a batch")
    parser.add_argument("--backbone_batch", type=positive_int, default=8, help="ours: backbone's samples at a time")
    parser.add_argument("--frames", type=positive_int, default=8, help="video frames of a sample")
    parser.add_argument("--size", type=number(int, 32), default=256, help="height and width of a frame")
    parser.add_argument("--repeats", type=positive_int, default=3, help="steps of each kind; their median counts")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision of every side")
    return parser


def main(argv=None):
    """Measure every side in a fresh process and print the table."""
    args = get_args_parser().parse_args(argv)
    import torch

    from engine.report import git_commit

    spawn = torch.multiprocessing.get_context("spawn")
    rows = {}
    for side in (ORIGINAL, OURS, KEPT):
        receiver, sender = spawn.Pipe(duplex=False)
        process = spawn.Process(target=measure, args=(args, side, sender))
        process.start()
        sender.close()
        try:
            rows[side] = receiver.recv()
        except EOFError:
            rows[side] = None
        process.join()
    cuda = args.device != "cpu" and torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"\n{name}; torch {torch.__version__}; batch {args.batchsize}, {args.frames} frames {args.size}x{args.size}, "
        f"amp {args.amp}; {datetime.date.today()}; commit {git_commit()}\n"
    )
    print("| way of working | weight step | architecture step | both | peak memory |\n|---|---|---|---|---|")
    for side, row in rows.items():
        if row is None:
            print(f"| {side} | - | - | - | ran out of memory |")
            continue
        print(
            f"| {side} | {row['weights']:.3f} s | {row['alphas']:.3f} s | {_versus(rows, side, 'total', ' s')} | "
            f"{_versus(rows, side, 'memory', ' MiB')} |"
        )
    return rows


def _versus(rows, side, key, unit):
    value, first = rows[side][key], rows[ORIGINAL]
    share = f" ({value / first[key]:.2f} of the originals')" if first and side != ORIGINAL else ""
    return f"{value:,.3f}{unit}{share}" if unit == " s" else f"{value:,.0f}{unit}{share}"


def measure(args, side, sender):
    """Send the seconds of both kinds of step, and their memory in MiB without that of the libraries themselves."""
    import torch

    from engine.report import peak_memory_mb
    from engine.updates import Precision
    from tasks import ntu
    from util.distributed import init_distributed
    from util.nested import to_device

    device = init_distributed(args.device)
    torch.manual_seed(0)
    # A first operation makes the library load everything that it loads only once, so that no side is charged for it.
    torch.nn.functional.conv3d(torch.zeros(1, 3, 8, 32, 32, device=device), torch.zeros(8, 3, 3, 3, 3, device=device))
    idle = 0.0 if device.type == "cuda" else peak_memory_mb(device)
    net = build_net(args, frozen=side != ORIGINAL).to(device)
    weights, alphas = build_steps(net, ntu.TASK.loss, Precision(args.amp, device), side == ORIGINAL)
    count, seconds = args.batchsize, {"weights": [], "alphas": []}
    batch = {
        "rgb": torch.randint(0, 256, (count, args.frames, args.size, args.size, 3), dtype=torch.uint8),
        "skeleton": torch.randn(count, 3, 32, 25, 2),
        "label": torch.randint(0, 60, (count,)),
    }
    batch = to_device(batch, device)
    if side == KEPT:
        net.eval()
        with torch.no_grad():
            features = {f"{name}_features": net.extract(batch, name) for name in ("rgb", "skeleton")}
        batch = {**features, "label": batch["label"]}
    for _ in range(args.repeats):
        for name, step in (("weights", weights), ("alphas", alphas)):
            step.activate()
            net.train()
            started = time.perf_counter()
            step.step(batch)
            if side == ORIGINAL and name == "alphas":
                step.predict(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    sender.send({**medians, "total": sum(medians.values()), "memory": peak_memory_mb(device) - idle})


def build_steps(net, loss, precision, originals_way):
    """`OptimizerStep`s of weights and of architecture; in the original all parameters get gradients in both phases."""
    import torch

    from engine.updates import OptimizerStep

    alpha = list(net.arch_parameters().values())
    trained, everything = net.weights(), list(net.parameters())
    trained = [p for p in trained if not originals_way or all(p is not b for b in net.backbones.parameters())]
    of_alphas = torch.optim.Adam(alpha, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    optimizers = torch.optim.Adam(trained, 1e-3), of_alphas
    return [
        OptimizerStep(net, loss, optimizer, parameters=everything if originals_way else own, precision=precision)
        for own, optimizer in zip((trained, alpha), optimizers, strict=True)
    ]


def build_net(args, frozen):
    """The default search network with random weights."""
    from models.bmnas.cells import FusionCell
    from tasks import ntu
    from tasks.bmnas import networks

    values = Namespace(**ntu.PUBLISHED_SEARCH, visual_pool="7x7", backbone_batch=args.backbone_batch)
    count = ntu.TASK.num_features
    fusion = FusionCell.mixed(count, values.C, values.L, values.drpt, **networks.cell_sizes(values))
    backbones = ntu.build_backbones(values, weights="random")
    return networks.build_net(ntu.TASK, values, backbones, fusion, range(count), frozen=frozen, train_reshape=False)


if __name__ == "__main__":
    run_cli(main)
