"""Time a small training step, alone and next to competing processes, with and without our OpenMP setting.

  python benchmarks/busy_machine.py [--competitors 2 --steps 200]

The step is that of a small convolutional network (64 x 64 x 16, Adam). Each row has its own processes: "ours" imports
`util` before torch, as every script does; "torch's defaults" imports only torch. The rows are measured alternately, and
the median over all steps is reported. Competitors are processes that run an endless loop.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, non_negative_int, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402
from util.processors import usable_processors  # noqa: E402
from util.threads import SHORT_SPIN, WAITING  # noqa: E402

SETTINGS = {"torch's defaults": "", "ours": "import util"}
STEPS = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
{first}
import torch
from torch import nn
torch.manual_seed(0)
layers = [layer for _ in range(6) for layer in (nn.Conv1d(64, 64, 3, padding=1), nn.BatchNorm1d(64), nn.ReLU())]
net, x, times = nn.Sequential(*layers), torch.randn(64, 64, 16), []
optimizer = torch.optim.Adam(net.parameters())
end = time.perf_counter() + float(sys.argv[3])
for step in range(int(sys.argv[2]) + 5):
    started = time.perf_counter()
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()
    times.append(time.perf_counter() - started)
    if times[-1] + started > end and step >= 9:
        break
print(json.dumps(times[5:]))
"""


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--competitors", type=non_negative_int, default=2, help="competing processes of the busy rows")
    parser.add_argument("--steps", type=positive_int, default=200, help="steps per process")
    parser.add_argument("--repeats", type=positive_int, default=5, help="processes per row")
    parser.add_argument("--seconds", type=positive_int, default=20, help="longest time of a process; at least 5 steps")
    return parser


def main(argv=None):
    """Measure and print the table; returns {(setting, competitors): median milliseconds}."""
    args = get_args_parser().parse_args(argv)
    times = {(setting, count): [] for count in (0, args.competitors) for setting in SETTINGS}
    for count in (0, args.competitors):
        competitors = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            for _ in range(args.repeats):
                for setting in SETTINGS:
                    times[setting, count] += measure(setting, args)
        finally:
            for competitor in competitors:
                competitor.kill()
    rows = {key: 1000 * statistics.median(values) for key, values in times.items()}
    print_table(args, rows, {key: len(values) for key, values in times.items()})
    return rows


def measure(setting, args):
    """Seconds of every step of one process, without the first five."""
    environment = {k: v for k, v in os.environ.items() if k not in (*WAITING, "OMP_NUM_THREADS", "PYTHONPATH")}
    words = ["-c", STEPS.format(first=SETTINGS[setting]), str(ROOT), str(args.steps), str(args.seconds)]
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def print_table(args, rows, counts):
    """Print the table as Markdown, and how much our setting changes the time of a process that runs alone."""
    import torch

    from engine.report import git_commit

    spin = ", ".join(f"{name}={value}" for name, value in SHORT_SPIN.items())
    print(
        f"\n{usable_processors()} cores, {platform.machine()}; torch {torch.__version__}; ours: {spin}; "
        f"{datetime.date.today()}; commit {git_commit()}\n"
    )
    print(f"| setting | alone, ms | next to {args.competitors} busy processes, ms | times slower | steps measured |")
    print("|---|---|---|---|---|")
    for setting in SETTINGS:
        alone, busy = rows[setting, 0], rows[setting, args.competitors]
        measured = f"{counts[setting, 0]}, {counts[setting, args.competitors]}"
        print(f"| {setting} | {alone:.2f} | {busy:.2f} | {busy / alone:.1f} | {measured} |")
    defaults, ours = rows["torch's defaults", 0], rows["ours", 0]
    print(f"\nalone, ours against torch's defaults: {100 * (ours / defaults - 1):+.1f} %")


if __name__ == "__main__":
    run_cli(main)
