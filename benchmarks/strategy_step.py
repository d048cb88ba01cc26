"""Time a search step (one weight and one architecture step) of every strategy, on MM-IMDB's sizes.

  python benchmarks/strategy_step.py [--rounds 40 --batchsize 8 --device cpu]

Random features of the official shapes replace those that a search would have cached, so that only the fusion runs:
C 192, L 16, two cells of one step, as published. The strategies alternate round by round, so that a busy machine slows
all of them equally. A row shows the median over the rounds, and the median over the rounds of the ratio to published.
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

PUBLISHED = "published"
# Row -> --strategy and its options.
ROWS = {
    PUBLISHED: (PUBLISHED,),
    "gdas": ("gdas",),
    "gdas, pairs": ("gdas", "pairs=True"),
    "gdas, pairs, 8 Gumbel samples": ("gdas", "pairs=True", "gumbel_samples=8"),
    "drnas": ("drnas",),
    "random-shared": ("random-shared",),
    "second-order": ("second-order",),
}


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--rounds", type=positive_int, default=40, help="steps of each strategy")
    parser.add_argument("--batchsize", type=number(int, 2), default=8, help="films of a batch")
    parser.add_argument("--steps", type=positive_int, default=2, help="cells (published: 2)")
    parser.add_argument("--node_steps", type=positive_int, default=1, help="steps of a cell (published: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def main(argv=None):
    """Measure all rows and print them as a table; returns row -> (milliseconds, ratio to published)."""
    args = get_args_parser().parse_args(argv)
    import torch

    from engine.report import git_commit
    from tasks import mmimdb
    from util.distributed import init_distributed

    device = init_distributed(args.device)
    values = Namespace(**{**mmimdb.PUBLISHED, "steps": args.steps, "node_steps": args.node_steps}, backbone_batch=8)
    values.multiplier = min(values.multiplier, args.steps)
    backbones = mmimdb.build_backbones(values, weights="random")
    batch = make_batch(values, backbones, args.batchsize, device)
    searches = {name: make_search(values, backbones, row, batch, device) for name, row in ROWS.items()}
    times = {name: [] for name in ROWS}
    for turn in range(args.rounds + 2):  # the first two rounds warm up
        for name, search in searches.items():
            seconds = timed(search, batch, device)
            if turn >= 2:
                times[name].append(seconds)
    ratios = {n: [own / base for own, base in zip(t, times[PUBLISHED], strict=True)] for n, t in times.items()}
    rows = {name: (1e3 * statistics.median(t), statistics.median(ratios[name])) for name, t in times.items()}
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"\n{place}; torch {torch.__version__}; batch {args.batchsize}, {args.steps} cells of {args.node_steps} steps; "
        f"{args.rounds} rounds; {datetime.date.today()}; commit {git_commit()}\n"
    )
    print("| strategy | milliseconds per step | share of published |\n|---|---|---|")
    for name, (milliseconds, ratio) in rows.items():
        print(f"| {name} | {milliseconds:.2f} | {ratio:.2f} |")
    return rows


def make_batch(values, backbones, size, device):
    """A batch dict of random features, in the form in which the cache stores them, and labels."""
    import torch

    from tasks import mmimdb

    pool = mmimdb.pool(values)
    generator, batch = torch.Generator().manual_seed(0), {}
    for name, backbone in backbones.items():
        shapes = [(size, width, *pool) if name == "image" else (size, width) for width in backbone.channels]
        batch[f"{name}_features"] = [torch.rand(shape, generator=generator).to(device) for shape in shapes]
    labels = torch.rand(size, values.num_outputs, generator=generator) < 0.1
    return batch | {"label": labels.float().to(device)}


def make_search(values, backbones, row, batch, device):
    """The search loop of one strategy, built as in the recipe, that always reads the given batch."""
    import torch

    from engine.updates import OptimizerStep
    from models.bmnas.cells import FusionCell
    from search.loops import EpochwiseSearch
    from search.relaxation import SoftmaxMixture
    from search.strategies import build_strategy
    from tasks import mmimdb
    from tasks.bmnas import networks

    torch.manual_seed(0)
    count = mmimdb.TASK.num_features
    cell = FusionCell.mixed(count, values.C, values.L, values.drpt, **networks.cell_sizes(values))
    net = networks.build_net(mmimdb.TASK, values, backbones, cell, range(count), frozen=True).to(device)
    strategy = build_strategy(row[0], SoftmaxMixture, 0, row[1:]).attach(net)
    adam = torch.optim.Adam(net.weights(), lr=1e-3, weight_decay=1e-4)
    weights = OptimizerStep(net, mmimdb.TASK.loss, adam)
    adam = torch.optim.Adam(net.arch_parameters().values(), lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    alphas = OptimizerStep(net, mmimdb.TASK.loss, adam, parameters=strategy.gradient_parameters())
    net.train()

    class OneBatch(EpochwiseSearch):
        def next_training_batch(self):
            return len(batch["label"]), batch

    metric = mmimdb.TASK.metric(Namespace(f1_type="weighted"))
    return OneBatch(strategy, weights, alphas, (None, None), device, 1, metric=metric)


def timed(search, batch, device):
    """Seconds of a weight step and an architecture step, without the work that a search does once per pass."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    total = 0.0
    steps = [(search.weights, search.weight_step), (search.alphas, search.architecture_step)]
    for part, step in steps if search.relaxation.learns else steps[:1]:
        part.activate()
        wait()
        started = time.perf_counter()
        step(batch)
        wait()
        total += time.perf_counter() - started
    return total


if __name__ == "__main__":
    run_cli(main)
