"""Time the plain network and its fast form (`models.mmnas.fast`), in one run.

  python benchmarks/mmnas_fast_cpu.py                            # published widths, batch 16, for two cores
  python benchmarks/mmnas_fast_cpu.py --batchsize 64 --device cuda
  python benchmarks/mmnas_fast_cpu.py --small                    # a quick test that it runs

Both sides have the same weights and read the same synthetic batches. Training and evaluation of arch/mmnas_vqa.json and
both steps of its search use VQA v2's shapes (see `vqa_step`). For matching, arch/mmnas_itm.json scores all pairs of 16
images of 36 regions and 32 captions of 5 to 50 words. A step consists of forward pass, loss and backward pass; clipping
and optimiser are the same on both sides, so they are not timed. The sides alternate. The first round is discarded, and
the median of the others is reported.
"""

import copy
import datetime
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, number, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402

WIDTH, SEARCH_WIDTH, RATE = 512, 256, 0.1
IMAGES, CAPTIONS, REGIONS, WORDS, VOCABULARY = 16, 32, 36, 50, 8000
# Largest difference between the outputs of both sides in evaluation mode.
TOLERANCE = 1e-3


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--batchsize", type=number(int, 2), default=16, help="questions of a batch")
    parser.add_argument("--repeats", type=positive_int, default=7, help="timed rounds; their median counts")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=positive_int, help="threads of torch (default: its own choice)")
    parser.add_argument("--small", action="store_true", help="a quarter of the widths, only to test that it runs")
    return parser


def main(argv=None):
    """Measure and print the table; returns its rows: name -> dict of seconds and the largest difference."""
    args = get_args_parser().parse_args(argv)
    import torch

    from benchmarks.ntu_data import processor
    from engine.report import git_commit
    from util.distributed import init_distributed

    device = init_distributed(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = {}
    for name, build in (
        ("VQA, training step", training),
        ("VQA, evaluation of a batch", evaluation),
        ("VQA search, weight step", lambda *given: searching(*given, gated=False)),
        ("VQA search, architecture step", lambda *given: searching(*given, gated=True)),
        ("matching, evaluation", matching),
    ):
        net, step = build(args, device)
        rows[name] = measure(net.to(device), step, args.repeats, device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    print(
        f"\n{where}, {torch.get_num_threads()} threads; torch {torch.__version__}; synthetic batches of "
        f"{args.batchsize}; median of {args.repeats}; {datetime.date.today()}; commit {git_commit()}\n"
    )
    print("| | plain | fast | speed-up | outputs differ by |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        faster = row["plain"] / row["fast"]
        print(f"| {name} | {row['plain']:.3f} s | {row['fast']:.3f} s | {faster:.2f} | {row['difference']:.1e} |")
    return rows


def measure(net, step, repeats, device):
    """dict of the median seconds of ``step(net)``, plain and fast, and the largest difference of its outputs.

    Raises:
        RuntimeError: The outputs differ by more than `TOLERANCE`.
    """
    from models.mmnas import fast as fast_forms

    fast = fast_forms.speed_up(copy_of(net))
    sides = {"plain": net, "fast": fast}
    outputs = [step(side.eval(), False) for side in sides.values()]
    difference = (outputs[0] - outputs[1]).abs().max().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the two sides do not compute the same: they differ by {difference}")
    seconds = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, side in sides.items():
            started = now(device)
            step(side, True)
            seconds[name].append(now(device) - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()} | {"difference": difference}


def copy_of(net):
    """A deep copy of the network with the same paths drawn."""
    twin = copy.deepcopy(net)
    for mine, other in zip(twin.choices(), net.choices(), strict=True):
        mine.drawn = other.drawn
    return twin


def now(device):
    """Time in seconds, after the device has finished all its work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def training(args, device):
    """A network and its training step: function (net, whether to train) -> outputs."""
    return build(args, ROOT / "arch" / "mmnas_vqa.json"), stepping(args, device)


def searching(args, device, gated):
    """A supernet with a drawn path, and its weight or architecture step."""
    import torch

    from search.gates import SampledGates
    from search.relaxation import ARCHITECTURE, WEIGHTS

    net = build(args, None)
    SampledGates(torch.Generator().manual_seed(0)).attach(net).draw(ARCHITECTURE if gated else WEIGHTS)
    return net, stepping(args, device)


def evaluation(args, device):
    """A network and its forward pass without gradients."""
    import torch

    batch = question_batch(args, device)

    def step(net, train):
        with torch.no_grad():
            return net.eval()(batch)

    return build(args, ROOT / "arch" / "mmnas_vqa.json"), step


def matching(args, device):
    """A matching network, and the scores of all pairs of some images and captions."""
    import torch

    images, tokens = matching_batch(args, device)
    every = torch.arange(CAPTIONS, device=device)
    rows = torch.arange(IMAGES, device=device).expand(CAPTIONS, IMAGES)

    def step(net, train):
        with torch.no_grad():
            return net.eval().match(net.project(images), net.encode(tokens), rows, every)

    return build(args, ROOT / "arch" / "mmnas_itm.json", matching=True), step


def build(args, path, matching=False):
    """The network of an architecture file; the supernet if ``path`` is None."""
    import torch

    from benchmarks.vqa_step import ANSWERS, FEATURES
    from benchmarks.vqa_step import WORDS as QUESTION_WORDS
    from models.mmnas.architecture import load_architecture
    from models.mmnas.encoder_decoder import EncoderDecoder
    from models.mmnas.heads import AnswerHead, MatchingHead
    from models.mmnas.matching import MatchingNet
    from models.mmnas.net import MultimodalNet

    torch.manual_seed(0)
    width = (WIDTH if path else SEARCH_WIDTH) // (4 if args.small else 1)
    if path is None:
        encoder_decoder = EncoderDecoder.searched(width, RATE, num_enc=12, num_dec=18)
    else:
        encoder_decoder = EncoderDecoder.fixed(load_architecture(path), width, RATE)
    if matching:
        return MatchingNet(encoder_decoder, MatchingHead(width, RATE), (VOCABULARY, 300), FEATURES)
    return MultimodalNet(encoder_decoder, AnswerHead(width, RATE, ANSWERS), (QUESTION_WORDS, 300), FEATURES)


def question_batch(args, device):
    """A batch dict of questions, padded to the longest sample."""
    import numpy as np

    from benchmarks.vqa_step import draw_batch, region_counts
    from util.nested import to_device

    return to_device(draw_batch(np.random.default_rng(0), region_counts(args)[0])[1], device)


def stepping(args, device):
    """A step: function (net, whether to train) -> outputs, with forward pass, loss and backward pass on one batch."""
    import torch
    from torch.nn import functional as F

    batch = question_batch(args, device)

    def step(net, train):
        net.zero_grad()
        outputs = net.train(train)(batch)
        if train:
            F.binary_cross_entropy_with_logits(outputs, batch["label"], reduction="sum").backward()
        torch.manual_seed(0)
        return outputs.detach()

    return step


def matching_batch(args, device):
    """Images as a batch dict, and captions int64 (C, T)."""
    import torch

    from benchmarks.vqa_step import FEATURES

    draw = torch.Generator().manual_seed(0)
    corners = 300 * torch.rand(IMAGES, REGIONS, 2, generator=draw)
    images = {
        "regions": torch.randn(IMAGES, REGIONS, FEATURES, generator=draw),
        "boxes": torch.cat([corners, corners + 1 + 180 * torch.rand(IMAGES, REGIONS, 2, generator=draw)], dim=-1),
        "counts": torch.full((IMAGES,), REGIONS),
    }
    lengths = torch.poisson(torch.full((CAPTIONS,), 12.0), generator=draw).clamp(5, WORDS).sort().values
    tokens = torch.randint(1, VOCABULARY, (CAPTIONS, int(lengths.max())), generator=draw)
    tokens = tokens.masked_fill(torch.arange(tokens.shape[1]) >= lengths[:, None], 0)
    return {name: value.to(device) for name, value in images.items()}, tokens.to(device)


if __name__ == "__main__":
    run_cli(main)
