"""Time an evaluation and a mining pass of image-text matching: the originals' way against ours, in one run.

  python benchmarks/itm_eval.py --device cuda                               # 100 images x 500 captions, width 512
  python benchmarks/itm_eval.py --hsize 256 --originals_images 4            # for two cores
  python benchmarks/itm_eval.py --small                                     # a quick test that it runs

Both sides score the same synthetic data with the same weights in float32: arch/mmnas_itm.json, 36 regions of width
2048, captions of 5 to 50 words (12 on average, as in Flickr30K). The originals' way: every pair is a forward pass of
the whole network, padded to 50 words. The evaluation repeats each image for 128 captions at a time. Mining repeats each
of 50 images for its 64 random captions, then each of 50 captions for its 64 random images. Features and relations
between boxes are already in memory, so this side does not pay for computing and moving them. Ours: `tasks.itm_pairs`
and `tasks.itm_mining`.

With --originals_images N the originals' way is run only for the first N images and their captions; its seconds are
multiplied accordingly, which the table notes. Scores of the two sides must agree to 1e-5.
"""

import datetime
import sys
import time
from argparse import Namespace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, non_negative_int, number, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402

REGIONS, TOKENS, FEATURES, WORDS = 36, 50, 2048, 8000
EVALUATION_BATCH, MINING_ROWS, CANDIDATES, HARDEST = 128, 50, 64, 5
KEY = (0, 0)
TOLERANCE = 1e-5


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--images", type=number(int, 2), default=100, help="images, with five captions each")
    parser.add_argument("--hsize", type=positive_int, default=512, help="width of the network")
    parser.add_argument(
        "--originals_images", type=non_negative_int, default=0, help="images that the originals' way is run for; 0: all"
    )
    parser.add_argument(
        "--mining_rows", type=positive_int, default=MINING_ROWS, help="rows of an original mining batch"
    )
    parser.add_argument("--eval_pairs", type=positive_int, default=256, help="pairs that our side scores together")
    parser.add_argument("--eval_captions", type=positive_int, default=30000, help="captions that it keeps encoded")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to test that it runs")
    return parser


def main(argv=None):
    """Measure both sides and print the table; returns its rows."""
    args = get_args_parser().parse_args(argv)
    if args.small:
        args.images, args.originals_images, args.hsize, args.eval_pairs, args.mining_rows = 3, 1, 64, 64, 5
    import torch

    from benchmarks.ntu_data import processor
    from engine.report import git_commit
    from engine.updates import Precision
    from tasks.itm_pairs import PairScorer
    from util.distributed import init_distributed

    device = init_distributed(args.device)
    # Products in reduced precision would hide differences between the two sides.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    theirs, ours = build_nets(args.hsize, device)
    data = SyntheticPairs(args.images)
    original = OriginalWay(theirs, data, device, args.mining_rows, args.originals_images or args.images)
    scorer = PairScorer(ours, data, device, Precision("off", device), pairs=args.eval_pairs, hold=args.eval_captions)
    rows = measure(original, scorer, device)
    cuda, cores = device.type == "cuda", f"{processor()}, {torch.get_num_threads()} threads"
    print(
        f"\n{torch.cuda.get_device_name(device) if cuda else cores}; torch {torch.__version__}; synthetic data: "
        f"{args.images} images x {5 * args.images} captions, width {args.hsize}, float32; ours scores "
        f"{args.eval_pairs} pairs together; {datetime.date.today()}; commit {git_commit()}"
    )
    if original.share != 1:
        print(f"Originals' way: measured on {original.images} of {args.images} images, seconds multiplied accordingly.")
    print("\n| pass | pairs | originals' way | ours | times faster | peak memory, theirs | ours | scores differ by |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['pairs']:,} | {row['originals']:.2f} s | {row['ours']:.2f} s | {row['faster']:.1f} | "
            f"{row['originals_mb']:.0f} MB | {row['ours_mb']:.0f} MB | {row['difference']:.1e} |"
        )
    return rows


def build_nets(hsize, device):
    """Both networks with the same weights, in evaluation mode."""
    import torch

    from benchmarks.original_way import OriginalMatchingNet
    from models.mmnas.architecture import load_architecture
    from models.mmnas.published import from_published
    from tasks import itm

    torch.manual_seed(0)
    architecture = load_architecture(ROOT / "arch" / "mmnas_itm.json")
    names = [[name for (name,) in side] for side in (architecture.enc, architecture.dec)]
    theirs = OriginalMatchingNet(hsize, WORDS, FEATURES, names)
    with torch.no_grad():  # with the initial weights, all pairs would have nearly the same score
        theirs.proj.weight.mul_(10)
        theirs.embedding.weight.mul_(3)
    values = Namespace(hsize=hsize, drpt=0.1, word_vectors="none")
    words = {"vocabulary": {"words": ["PAD", "UNK", "CLS", *map(str, range(WORDS - 3))]}, "feature_size": FEATURES}
    ours = itm.build_net(values, words, architecture, trained=True)
    ours.load_state_dict(from_published(theirs.state_dict()))
    return theirs.to(device).eval(), ours.to(device).eval()


class SyntheticPairs:
    """Synthetic images and captions in memory, with the interface of `datasets.itm.ITM`.

    Args:
        num_images: Number n of images, with five captions each.
    """

    def __init__(self, num_images):
        import numpy as np

        draw = np.random.default_rng(0)
        self.num_images, self.negatives = num_images, Namespace(size=HARDEST)
        self.features = draw.standard_normal((num_images, REGIONS, FEATURES), dtype=np.float32).astype(np.float16)
        corners = draw.uniform(0, 300, (num_images, REGIONS, 2))
        sizes = draw.uniform(1, 180, (num_images, REGIONS, 2))
        self.boxes = np.concatenate([corners, corners + sizes], axis=2).astype(np.float32)
        self._lengths = np.ceil(draw.gamma(6, 2, 5 * num_images)).clip(5, TOKENS).astype(np.int64)
        self.tokens = draw.integers(3, WORDS, (5 * num_images, TOKENS))
        self.tokens[np.arange(TOKENS) >= self._lengths[:, None]] = 0

    def lengths(self):
        """Number of words of each caption: int64 (5 n,)."""
        return self._lengths

    def images(self, rows):
        """Batch dict of the images ``rows``: regions, boxes, counts."""
        import torch

        features, boxes = torch.from_numpy(self.features[rows]), torch.from_numpy(self.boxes[rows])
        return {"regions": features, "boxes": boxes, "counts": torch.full((len(rows),), REGIONS)}

    def captions(self, rows):
        """Tokens of the captions ``rows``: int64 (captions, longest caption)."""
        import torch

        return torch.from_numpy(self.tokens[rows][:, : self._lengths[rows].max()])


class OriginalWay:
    """Evaluation and mining with a forward pass of the whole network for every pair.

    Args:
        net: `OriginalMatchingNet`.
        data: `SyntheticPairs`.
        device: Device of the network.
        rows: Images or captions of a mining batch.
        images: Number of images to process, with their captions.
    """

    def __init__(self, net, data, device, rows, images):
        import torch

        from models.mmnas.regions import box_relations

        self.net, self.rows, self.images = net, rows, min(images, data.num_images)
        self.total, self.share = data.num_images, self.images / data.num_images
        counts = torch.full((data.num_images,), REGIONS)
        self._features = torch.from_numpy(data.features).to(device).float()
        self._relations = box_relations(torch.from_numpy(data.boxes), counts).to(device)
        self._tokens = torch.from_numpy(data.tokens).to(device)

    def _scores(self, images, captions):
        return self.net(self._features[images], self._relations[images], self._tokens[captions])

    def matrix(self):
        """Scores of the images with all captions: (images, 5 n)."""
        import torch

        rows = []
        for image in range(self.images):
            batches = torch.arange(len(self._tokens)).split(EVALUATION_BATCH)
            rows.append(torch.cat([self._scores(torch.full_like(batch, image), batch) for batch in batches]))
        return torch.stack(rows).cpu().numpy()

    def mine(self):
        """Scores of the random candidates of images and of captions: two arrays (rows, 64)."""
        import numpy as np

        from datasets.itm.negatives import other_captions, other_images

        found = []
        for draw, count in ((other_captions, self.images), (other_images, 5 * self.images)):
            candidates, parts = draw(KEY, np.arange(count), CANDIDATES, self.total), []
            for start in range(0, count, self.rows):
                others = candidates[start : start + self.rows]
                own = np.repeat(np.arange(start, start + len(others)), CANDIDATES)
                pair = (own, others.ravel()) if draw is other_captions else (others.ravel(), own)
                scores = self._scores(*pair).view(others.shape)
                scores.topk(HARDEST)
                parts.append(scores.cpu().numpy())
            found.append(np.concatenate(parts))
        return found


def measure(original, scorer, device):
    """A row of the table for each pass."""
    import numpy as np
    import torch

    from tasks.itm_mining import mine

    images = scorer.data.num_images
    with torch.no_grad():
        original.net(original._features[:2], original._relations[:2], original._tokens[:2])
        scorer.matrix(np.arange(1), None)
        theirs = {"evaluation": timed(original.matrix, device), "mining": timed(original.mine, device)}
    ours = {
        "evaluation": timed(lambda: scorer.matrix(np.arange(images), None), device),
        "mining": timed(lambda: mine(scorer, KEY, candidates=CANDIDATES), device),
    }
    matrix = ours["evaluation"][0]
    differences = {"evaluation": np.abs(matrix[: original.images] - theirs["evaluation"][0]).max()}
    differences["mining"] = compare_mined(original, matrix, theirs["mining"][0], ours["mining"][0][0])
    if not max(differences.values()) <= TOLERANCE:
        raise RuntimeError(f"the two sides do not score the same: {differences}")
    rows, pairs = {}, {"evaluation": 5 * images**2, "mining": 6 * images * CANDIDATES}
    for name, (_, seconds, peak) in theirs.items():
        row = {"pairs": pairs[name], "originals": seconds / original.share, "ours": ours[name][1]}
        row |= {"originals_mb": peak, "ours_mb": ours[name][2], "difference": float(differences[name])}
        rows[name] = row | {"faster": row["originals"] / row["ours"]}
    return rows


def compare_mined(original, matrix, theirs, tables):
    """Largest difference between the two sides' scores of the negatives that they kept, in descending order."""
    import numpy as np

    kept = [
        np.take_along_axis(side[: len(scores)], table[: len(scores)], axis=1)
        for side, table, scores in ((matrix, tables[0], theirs[0]), (matrix.T, tables[1], theirs[1]))
    ]
    return max(
        np.abs(np.sort(ours, axis=1)[:, ::-1] - np.sort(scores, axis=1)[:, ::-1][:, :HARDEST]).max()
        for ours, scores in zip(kept, theirs, strict=True)
    )


def timed(action, device):
    """Run ``action``; returns (its result, seconds, largest growth of the memory in MB)."""
    import torch

    from engine.report import peak_memory_mb

    before = reset_peak(device)
    started = time.perf_counter()
    found = action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, time.perf_counter() - started, peak_memory_mb(device) - before


def reset_peak(device):
    """Reset the record of the peak memory; returns the memory in use now, in MB."""
    import torch

    from engine.report import peak_memory_mb

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory_mb(device)


if __name__ == "__main__":
    run_cli(main)
