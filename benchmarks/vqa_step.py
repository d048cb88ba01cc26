"""Time a step of MMNas on VQA: the originals' way of working against ours, in one run.

  python benchmarks/vqa_step.py                                       # batch 16, for two cores
  python benchmarks/vqa_step.py --batchsize 64 --device cuda          # as published

Three kinds of steps are timed: a training step of arch/mmnas_vqa.json at width 512, and two steps of the search at
width 256: a network step on one sampled path, and an architecture step in mode full. Each consists of forward pass,
loss, backward pass, clipping (of weights) and optimiser. Synthetic batches have VQA v2's shapes: 10 to 100 regions of
width 2048 (mean about 40), 3 to 14 words, 3129 answers, already on the device. The originals' way, see `original_way`:
padded to 100 regions and 14 words in float32, with relations between boxes already in the batch, so this side does not
pay for computing and moving them. Ours: padded to the longest sample of the batch, features in float16, relations
computed within the step. Both sides alternate on the same batches and paths. The first step of each is discarded, and
the median of the others is reported. Before that, both sides get the same weights, and their logits and gradients are
compared in float32 without dropout.
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

TRAIN, NETWORK, ARCHITECTURE = "training step", "search, network step", "search, architecture step"
REGIONS, TOKENS, FEATURES, ANSWERS, WORDS = 100, 14, 2048, 3129, 20000
# Flags of both scripts: the published values.
FLAGS = ()
# Largest difference of logits, and of gradients as a share of their norm.
TOLERANCE = 1e-3


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--batchsize", type=number(int, 2), default=16, help="questions of a batch")
    parser.add_argument("--repeats", type=positive_int, default=5, help="timed steps of each kind; their median counts")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision of both sides")
    return parser


def main(argv=None):
    """Measure every step and print the table."""
    args = get_args_parser().parse_args(argv)
    import torch

    from benchmarks.ntu_data import processor
    from engine.report import git_commit
    from util.distributed import init_distributed

    device = init_distributed(args.device)
    rows = {kind: measure(args, kind, device) for kind in (TRAIN, NETWORK, ARCHITECTURE)}
    cuda, cores = device.type == "cuda", f"{processor()}, {torch.get_num_threads()} threads"
    print(
        f"\n{torch.cuda.get_device_name(device) if cuda else cores}; torch {torch.__version__}; synthetic batches of "
        f"{args.batchsize} questions with {region_counts(args).mean():.1f} regions on average, amp {args.amp}; "
        f"median of {args.repeats}; {datetime.date.today()}; commit {git_commit()}\n"
    )
    print("Same weights on both sides; differences before timing, in evaluation mode on two questions in float32.\n")
    print("| step | originals' way | ours | times faster | logits differ by | gradients differ by |")
    print("|---|---|---|---|---|---|")
    for kind, row in rows.items():
        faster = row["originals"] / row["ours"]
        print(
            f"| {kind} | {row['originals']:.3f} s | {row['ours']:.3f} s | {faster:.2f} | {row['logits']:.1e} | "
            f"{row['gradients']:.1e} of their norm |"
        )
    return rows


def measure(args, kind, device):
    """dict of the median seconds of both sides, and of their differences in logits and gradients before timing."""
    import numpy as np

    from engine.updates import Precision
    from util.nested import to_device
    from util.progress import progress

    draw = np.random.default_rng(0)
    differences = compare(*build_sides(args, kind, device, Precision("off", device)), draw, device)
    sides = dict(zip(("originals", "ours"), build_sides(args, kind, device, Precision(args.amp, device)), strict=True))
    paths = sides["ours"].draw_paths(args.repeats + 1)
    seconds = {name: [] for name in sides}
    for path, counts in zip(progress(paths, kind, unit="step"), region_counts(args), strict=True):
        for (name, side), batch in zip(sides.items(), draw_batch(draw, counts), strict=True):
            batch = to_device(batch, device)
            side.net.train()
            side.choose(path)
            started = now(device)
            side.step(batch)
            seconds[name].append(now(device) - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()} | differences


def now(device):
    """Time in seconds, after the device has finished all its work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def build_sides(args, kind, device, precision):
    """(`OriginalSteps`, `OurSteps`) with the same weights and the published settings."""
    import torch

    import search_vqa
    import train_vqa
    from benchmarks.original_way import OriginalNet, OriginalSteps
    from engine.updates import OptimizerStep
    from models.mmnas.architecture import load_architecture
    from models.mmnas.heads import AnswerHead
    from models.mmnas.published import from_published
    from search.gates import SampledGates
    from tasks import vqa
    from tasks.mmnas import networks
    from util.schedules import WarmupStepDecay

    torch.manual_seed(0)
    values = (train_vqa if kind == TRAIN else search_vqa).get_args_parser().parse_args([*FLAGS])
    architecture = load_architecture(ROOT / "arch" / "mmnas_vqa.json") if kind == TRAIN else None
    names = None if architecture is None else [[n for (n,) in side] for side in (architecture.enc, architecture.dec)]
    theirs = OriginalNet(values.hsize, WORDS, ANSWERS, FEATURES, names)
    head = AnswerHead(values.hsize, values.drpt, ANSWERS)
    words = {"words": ["PAD", "UNK", "CLS", *map(str, range(WORDS - 3))]}
    metadata = {"vocabulary": words, "feature_size": FEATURES}
    ours = networks.build_net(values, architecture, head, metadata, trained=True)
    ours.load_state_dict(from_published(theirs.state_dict()))
    theirs, ours, loss = theirs.to(device), ours.to(device), vqa.TASK.loss(values)
    options = {"reduction": vqa.TASK.loss_reduction, "min_part": 1, "precision": precision}
    gates = None
    if kind == ARCHITECTURE:
        original = OriginalSteps(theirs, precision, values.alpha_lr, architecture=True)
        gates = SampledGates(torch.Generator()).attach(ours)
        adam = torch.optim.Adam([choice.logits for choice in ours.choices()], values.alpha_lr, betas=(0.0, 0.999))
        step = OptimizerStep(ours, loss, adam, parameters=gates.gradient_parameters(), **options)
    else:
        original = OriginalSteps(theirs, precision, values.lr)
        adam = torch.optim.Adam(ours.weights(), values.lr, betas=(0.9, 0.98), eps=1e-9)
        schedule = WarmupStepDecay(values.lr, args.repeats + 1, values.lr_decay_epochs, values.lr_decay)
        options |= {"clip": values.clip, "step_unused": kind == NETWORK, "schedule": schedule}
        step = OptimizerStep(ours, loss, adam, **options)
    return original, OurSteps(ours, step, gates)


class OurSteps:
    """Steps as `search.loops.InterleavedSearch` and training do them.

    Args:
        net: `MultimodalNet`.
        step: `OptimizerStep` of its weights, or of its architecture parameters.
        gates: `SampledGates` of the net for architecture steps; None for weight steps.
    """

    def __init__(self, net, step, gates=None):
        self.net, self.updates, self.gates = net, step, gates

    def draw_paths(self, count):
        """Draw ``count`` paths with the current probabilities: lists of the active candidate of every block."""
        import torch

        from search.gates import draw_path

        generator, found = torch.Generator().manual_seed(0), []
        for _ in range(count):
            draw_path(self.net.choices(), generator)
            found.append([choice.running()[0] for choice in self.net.choices()])
        return found

    def choose(self, path):
        """Set the active candidate of every block; a fixed network has no choices, so ``path`` is empty."""
        from search.choice import Draw

        for choice, active in zip(self.net.choices(), path, strict=True):
            others = tuple(k for k in range(len(choice.candidates)) if k != active)
            choice.drawn = Draw((active,), (others,), gated=True) if self.gates else Draw((active,))

    def outputs(self, batch):
        """Logits for a batch dict."""
        return self.net(batch)

    def step(self, batch):
        """One step; see `OptimizerStep.step`."""
        self.updates.activate()
        if self.gates is None:
            self.updates.step(batch)
            return
        self.updates.begin()
        self.updates.backward(batch)
        self.gates.finish_backward()
        self.updates.apply()


def compare(original, ours, draw, device):
    """Differences of logits and gradients between both sides on one path.

    Raises:
        RuntimeError: They are larger than `TOLERANCE`.
    """
    import torch

    from models.mmnas.published import from_published
    from util.nested import to_device

    (path,), logits = ours.draw_paths(1), []
    # Reduced precision would differ between lengths of padding.
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        for side, batch in zip((original, ours), draw_batch(draw, [30, 60]), strict=True):
            batch = to_device(batch, device)
            side.net.eval()
            side.net.lstm.train()  # it has no dropout, and cuDNN computes its gradients only in this mode
            side.choose(path)
            with torch.no_grad():
                logits.append(side.outputs(batch))
            side.step(batch)
    theirs = from_published({name: value.grad for name, value in original.net.named_parameters()})
    gradients = {name: value.grad for name, value in ours.net.named_parameters()}
    if original.architecture:  # the originals also compute gradients of the weights, which they do not use
        theirs = {name: value for name, value in theirs.items() if name.endswith("alpha_logits")}
    squares = [
        torch.stack([(value if gradients[name] is None else value - gradients[name]).norm(), value.norm()]).square()
        for name, value in theirs.items()
    ]
    difference, whole = torch.stack(squares).sum(0).sqrt().tolist()
    found = {"logits": (logits[0] - logits[1]).abs().max().item(), "gradients": difference / whole}
    if not max(found.values()) <= TOLERANCE:
        raise RuntimeError(f"the two sides do not compute the same: {found}")
    return found


def region_counts(args):
    """Number of regions of each image in each step: int (repeats + 1, batchsize)."""
    from benchmarks.vqa_data import region_counts

    return region_counts((args.repeats + 1) * args.batchsize).reshape(-1, args.batchsize)


def draw_batch(draw, counts):
    """Draw a synthetic batch, in the form of the originals and in ours.

    Args:
        draw: numpy generator.
        counts: Number of regions of each image.

    Returns:
        Two batch dicts: the fully padded ``features``, ``relations``, ``tokens``, ``label``; and that of
        `MultimodalNet`.
    """
    import numpy as np
    import torch

    from benchmarks.vqa_data import box_relations, padded

    size, counts = len(counts), np.array(counts)
    lengths = np.ceil(draw.gamma(6, 1, size)).clip(3, TOKENS).astype(int)
    padding = np.arange(REGIONS) >= counts[:, None]
    features = draw.standard_normal((size, REGIONS, FEATURES), dtype=np.float32).astype(np.float16)
    corners = draw.uniform(0, 300, (size, REGIONS, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(1, 180, (size, REGIONS, 2))], axis=2).astype(np.float32)
    features[padding], boxes[padding] = 0, 0
    tokens = draw.integers(1, WORDS, (size, TOKENS))
    tokens[np.arange(TOKENS) >= lengths[:, None]] = 0
    label = np.zeros((size, ANSWERS), dtype=np.float32)
    np.put_along_axis(label, draw.integers(0, ANSWERS, (size, 3)), np.float32([[1, 0.3, 0.3]]), axis=1)
    pairs = [
        padded(box_relations(rows[:count]), (REGIONS, REGIONS, 4)) for rows, count in zip(boxes, counts, strict=True)
    ]
    longest, words = counts.max(), lengths.max()
    original = {"features": features.astype(np.float32), "relations": np.stack(pairs), "tokens": tokens, "label": label}
    ours = {"regions": features[:, :longest], "boxes": boxes[:, :longest], "counts": counts}
    ours |= {"tokens": tokens[:, :words], "label": label}
    return [
        {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}
        for batch in (original, ours)
    ]


if __name__ == "__main__":
    run_cli(main)
