"""Time a search epoch on MM-IMDB shapes: the original method against ours, in one run.

  python benchmarks/mmimdb_search.py [--train 32 --dev 16 --device cpu]

The data are synthetic films of the official shapes (3x256x160 posters, 300-d text); default architecture, batch 8,
random weights. The original method: backbones in training mode, with gradients that are never used, and a second
forward pass in the dev phase. Ours: frozen backbones without gradients, no second pass; with the feature cache, the
first epoch computes the features and later ones run only the fusion.
"""

import datetime
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, number, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402

ORIGINAL = "original method"


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--train", type=number(int, 2), default=32, help="synthetic train films")
    parser.add_argument("--dev", type=number(int, 2), default=16, help="synthetic dev films")
    parser.add_argument("--batchsize", type=number(int, 2), default=8, help="films of a batch")
    parser.add_argument("--repeats", type=positive_int, default=3, help="epochs per row; the median is reported")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision of every row")
    parser.add_argument("--num_workers", type=int, default=0, help="reading processes")
    parser.add_argument("--out", default="demo/benchmark", help="folder of the synthetic films")
    return parser


def main(argv=None):
    """Measure all rows and print them as a table."""
    args = get_args_parser().parse_args(argv)
    import torch

    from engine.report import git_commit
    from util.distributed import init_distributed

    device = init_distributed(args.device)
    folder = Path(args.out) / f"mmimdb-{args.train}-{args.dev}"
    if not (folder / "dataset" / "meta.json").exists():
        from datasets.make_demo import main as make_demo

        sizes = ["--train", str(args.train), "--dev", str(args.dev), "--test", "2"]
        make_demo(["mmimdb", "--source", "synthetic", "--out", str(folder), *sizes])
    original = measure(args, folder, device, originals_way=True, cache="off")
    rows = {
        ORIGINAL: statistics.median(original),
        "ours, no cache": statistics.median(measure(args, folder, device, originals_way=False, cache="off")),
    }
    first, *later = measure(args, folder, device, originals_way=False, cache="ram")
    rows["ours, first epoch (fills the cache)"] = first
    rows["ours, later epochs"] = statistics.median(later)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"\n{name}; torch {torch.__version__}; {args.train} + {args.dev} synthetic films, batch {args.batchsize}, "
        f"amp {args.amp}; {datetime.date.today()}; commit {git_commit()}\n"
    )
    print("| method | seconds per search epoch | speed-up |\n|---|---|---|")
    for row, seconds in rows.items():
        print(f"| {row} | {seconds:.3f} | {rows[ORIGINAL] / seconds:.1f} |")
    return rows


def measure(args, folder, device, *, originals_way, cache):
    """Seconds of each epoch, a list; with a cache, the first epoch includes computing the features."""
    import torch

    from datasets.mmimdb import open_mmimdb
    from engine.features import FeatureCache
    from engine.loading import build_loaders
    from engine.updates import OptimizerStep, Precision
    from metrics.classification import MultilabelF1
    from search.loops import EpochwiseSearch
    from search.relaxation import SoftmaxMixture
    from tasks import mmimdb

    torch.manual_seed(0)
    net = build_net(frozen=not originals_way).to(device)
    precision = Precision(args.amp, device)
    alpha = list(net.arch_parameters().values())
    fusion = [p for m in (net.reshape, net.fusion, net.classifier) for p in m.parameters()]
    fusion = [p for p in fusion if all(p is not a for a in alpha)]
    # In the original all parameters require gradients in both phases, whichever ones the optimiser updates.
    everything = list(net.parameters())
    loss = mmimdb.TASK.loss
    weights = OptimizerStep(
        net,
        loss,
        torch.optim.Adam(fusion, 1e-3),
        parameters=everything if originals_way else fusion,
        precision=precision,
    )
    alphas = OptimizerStep(
        net,
        loss,
        torch.optim.Adam(alpha, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
        parameters=everything if originals_way else alpha,
        precision=precision,
    )
    times, search = [], None
    for epoch in range(args.repeats + (cache != "off")):
        started = time.perf_counter()
        if search is None:
            keep = FeatureCache(net, cache, folder / "features", device, precision, args.num_workers)
            shared = {"shuffle": True, "seed": 0, "num_workers": args.num_workers, "device": device}
            data = keep({split: open_mmimdb(folder / "dataset", split) for split in ("train", "dev")})
            loaders = build_loaders(data, args.batchsize, **shared)
            metric = MultilabelF1()
            mixture, pair = SoftmaxMixture().attach(net), (loaders["train"], loaders["dev"])
            scored = {"metric": metric, "second_forward": originals_way}
            search = EpochwiseSearch(mixture, weights, alphas, pair, device, epochs=1, **scored)
        search(epoch)
        times.append(time.perf_counter() - started)
    return times


def build_net(frozen):
    """The default search network with random weights."""
    from argparse import Namespace

    from models.bmnas.cells import FusionCell
    from tasks import mmimdb
    from tasks.bmnas import networks

    values = Namespace(**mmimdb.PUBLISHED, backbone_batch=8)
    count = mmimdb.TASK.num_features
    fusion = FusionCell.mixed(count, values.C, values.L, values.drpt, **networks.cell_sizes(values))
    backbones = mmimdb.build_backbones(values, weights="random")
    return networks.build_net(mmimdb.TASK, values, backbones, fusion, range(count), frozen=frozen)


if __name__ == "__main__":
    run_cli(main)
