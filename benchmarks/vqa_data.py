"""Measure VQA samples per second and core: the originals' way of reading against ours, in one run.

  python benchmarks/vqa_data.py [--images 300]

The data are synthetic, with VQA v2's shapes: 10 to 100 regions per image (mean about 40) of width 2048, five questions
per image with ten answers each. One process reads batches of 64 in random order on one processor core, with everything
in the page cache. Every batch is then copied into a buffer that is reused, as it would be copied into pinned memory on
its way to a device. The originals' way: for each sample one .npz file, padded to 100 regions in float32, a 100x100x4
relation between boxes, a 14x14x3 relation between words, question and answers processed again each time, default
collation. Ours: batches padded to their longest sample, from the packed float16 store (or directly from the .npz
files); relations between boxes are left to the device, and there are none between words.
"""

import datetime
import json
import math
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, number, positive_int  # noqa: E402
from util.cli import run_cli  # noqa: E402

ORIGINAL = "originals' way: .npz, padded to 100, relations per sample"
BATCH, REGIONS, TOKENS, WIDTH, WORD_WIDTH = 64, 100, 14, 2048, 300
EACH = 5
HEIGHT_WIDTH = (480, 640)
WORDS = [f"word{n}" for n in range(2000)]
ANSWERS = [f"answer{n}" for n in range(3129)]


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--images", type=number(int, 20), default=300, help="synthetic images")
    parser.add_argument("--seconds", type=number(float, 0.1), default=6.0, help="minimum time per row")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes that pack the store")
    parser.add_argument("--out", default="demo/benchmark", help="folder of the synthetic data")
    return parser


def main(argv=None):
    """Measure all rows and print them as a table."""
    args = get_args_parser().parse_args(argv)
    data = Path(args.out) / f"vqa-{args.images}"
    if not (data / "store" / "meta.json").is_file():
        make_data(data, args.images)
        from datasets.prepare_vqa import prepare

        prepare(data, data / "store", workers=args.workers, min_answer_count=1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import torch

    from datasets.vqa import open_vqa

    torch.set_num_threads(1)
    store, full = (open_vqa(data, "train", padding=padding) for padding in ("batch", "full"))
    tables = {"vocabulary": store.vocabulary, "answers": store.answers}
    tree = open_vqa(data, "train", features=data / "features", **tables)
    original = Originals(data, tree)
    check_equal(original, tree, store)
    rows = {
        ORIGINAL: rate(args, original.batch, tree),
        "ours, .npz files": rate(args, tree.read, tree),
        "ours, store, padded to 100": rate(args, full.read, full),
        "ours, store": rate(args, store.read, store),
    }
    report(args, data, rows)
    return rows


def report(args, data, rows):
    """Print the table."""
    import numpy
    import torch

    from benchmarks.ntu_data import processor
    from engine.report import git_commit

    megabytes = {
        name: sum(path.stat().st_size for path in data.glob(pattern)) / 1e6
        for name, pattern in ((".npz", "features/*/*.npz"), ("store", "store/regions.bin"))
    }
    print(
        f"\n{processor()}, one core; torch {torch.__version__}, numpy {numpy.__version__}; {args.images} synthetic"
        f" images with {region_counts(args.images).mean():.1f} regions on average; .npz {megabytes['.npz']:,.0f} MB,"
        f" store {megabytes['store']:,.0f} MB; {datetime.date.today()}; commit {git_commit()}\n"
    )
    print("| way of reading | samples per second | ms per sample | times faster |\n|---|---|---|---|")
    for row, value in rows.items():
        print(f"| {row} | {value:,.0f} | {1000 / value:.3f} | {value / rows[ORIGINAL]:.1f} |")


def rate(args, read, dataset):
    """Samples per second of ``read(indices)`` and a copy, after a warm-up round."""
    import numpy as np

    draw = np.random.default_rng(0)
    done, started, kept = 0, None, {}
    while started is None or time.perf_counter() - started < args.seconds:
        order = draw.permutation(len(dataset))
        for begin in range(0, len(order) - BATCH + 1, BATCH):
            hand_over(read(order[begin : begin + BATCH]), kept)
            done += BATCH
        if started is None:
            done, started = 0, time.perf_counter()
    return done / (time.perf_counter() - started)


def hand_over(batch, kept):
    """Copy the tensors of a batch into the buffers in the dict ``kept``, which grow as needed."""
    import torch

    for place, tensor in enumerate(batch.values() if isinstance(batch, dict) else batch):
        flat = tensor.flatten()
        if place not in kept or len(kept[place]) < len(flat):
            kept[place] = torch.empty_like(flat)
        kept[place][: len(flat)].copy_(flat)


class Originals:
    """Reads samples in the originals' way.

    Args:
        data: Data folder.
        dataset: Our data set of the same split, for its vocabulary and answers.
    """

    def __init__(self, data, dataset):
        import numpy as np

        from datasets.vqa.files import ANNOTATION_FILES, QUESTION_FILES
        from util.files import read_json

        questions = read_json(data / "annotations" / QUESTION_FILES["train"])["questions"]
        self.records = read_json(data / "annotations" / ANNOTATION_FILES["train"])["annotations"]
        self.texts = {record["question_id"]: record["question"] for record in questions}
        self.paths = {int(path.name.split("_")[-1].split(".")[0]): path for path in data.glob("features/*/*.npz")}
        self.words = {word: row for row, word in enumerate(dataset.vocabulary.words)}
        self.answers = {answer: row for row, answer in enumerate(dataset.answers.names)}
        self.vectors = np.random.default_rng(0).standard_normal((len(self.words), WORD_WIDTH)).astype(np.float32)

    def batch(self, indices):
        """The samples ``indices``, stacked by torch's default collation."""
        from torch.utils.data import default_collate

        return default_collate([self.sample(index) for index in indices])

    def sample(self, index):
        """Features, box features, box relations, tokens, answer scores and word relations of one question."""
        import numpy as np
        import torch

        record = self.records[index]
        file = np.load(self.paths[record["image_id"]])
        features, boxes = file["x"].transpose(1, 0), file["bbox"]
        shape = float(file["image_h"]), float(file["image_w"])
        tokens = self.tokens(self.texts[record["question_id"]])
        arrays = (
            padded(features, (REGIONS, WIDTH)),
            padded(box_features(boxes, shape), (REGIONS, 5)),
            padded(box_relations(boxes), (REGIONS, REGIONS, 4)),
            tokens,
            self.target(record),
            padded(word_relations(self.vectors[tokens[tokens != 0]]), (TOKENS, TOKENS, 3)),
        )
        return tuple(torch.from_numpy(array) for array in arrays)

    def tokens(self, text):
        """Numbers of the words: int64 (14,)."""
        import numpy as np

        from datasets.text.vocabulary import tokenise

        numbers = np.zeros(TOKENS, dtype=np.int64)
        for place, word in enumerate(tokenise(text)[:TOKENS]):
            numbers[place] = self.words.get(word, 1)
        return numbers

    def target(self, record):
        """Soft scores of the ten answers: float32 (A,)."""
        import numpy as np

        from util.answers import normalise_answer

        target, counts = np.zeros(len(self.answers), dtype=np.float32), {}
        for answer in record["answers"]:
            name = normalise_answer(answer["answer"])
            counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            if name in self.answers:
                target[self.answers[name]] = (0, 0.3, 0.6, 0.9, 1)[min(count, 4)]
        return target


def padded(array, shape):
    """``array``, padded at the end of every axis with zeros to ``shape``, as float32."""
    import numpy as np

    whole = np.zeros(shape, dtype=np.float32)
    whole[tuple(slice(size) for size in array.shape)] = array
    return whole


def box_features(boxes, shape):
    """(n, 5): corners relative to the image's size, and the box's share of its area."""
    import numpy as np

    height, width = shape
    share = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (width * height)
    return np.concatenate([boxes / np.array([width, height, width, height]), share[:, None]], axis=1)


def box_relations(boxes):
    """(n, n, 4): logarithms of the distances between centres and of the ratios of sizes."""
    import numpy as np

    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    distances = np.maximum(np.abs(centres[:, None] - centres[None]) / sizes[:, None], 1e-3)
    ratios = sizes[:, None] / sizes[None]
    return np.concatenate([np.log(distances), np.log(ratios)], axis=2)


def word_relations(vectors):
    """(t, t, 3): distances of the word vectors, the originals' similarity, and distances of the positions."""
    import numpy as np

    distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    lengths = np.sqrt(np.linalg.norm(vectors, axis=1))
    likeness = vectors @ vectors.T / (lengths[:, None] * lengths[None] + 1e-6)
    places = np.arange(len(vectors))
    return np.stack([distance, likeness, np.abs(places[:, None] - places[None]) / max(1, len(vectors))], axis=2)


def check_equal(original, tree, store):
    """Check that both ways give the same numbers, apart from float16 and padding."""
    import torch

    features, _, _, tokens, target, _ = original.batch(range(BATCH))
    for dataset, tolerance in ((tree, 0.0), (store, 1e-2)):
        batch = dataset.read(range(BATCH))
        length, longest = batch["regions"].shape[1], batch["tokens"].shape[1]
        assert torch.allclose(batch["regions"].float(), features[:, :length], atol=tolerance, rtol=0)
        assert not features[:, length:].any() and not tokens[:, longest:].any()
        assert torch.equal(batch["tokens"], tokens[:, :longest]) and torch.equal(batch["label"], target)


def region_counts(images):
    """Number of regions of each image: int (images,)."""
    import numpy as np

    return np.random.default_rng(1).gamma(3.5, 11.5, images).round().clip(10, REGIONS).astype(int)


def make_data(data, images):
    """Write synthetic questions, answers and features in the official format."""
    import numpy as np

    from datasets.vqa.files import ANNOTATION_FILES, QUESTION_FILES
    from util.files import atomic_path, write_text
    from util.progress import progress

    draw, questions, annotations = np.random.default_rng(0), [], []
    for image, count in enumerate(progress(region_counts(images), "making", unit="image"), start=1):
        corners = draw.uniform(0, 300, (count, 2))
        arrays = {
            "x": draw.standard_normal((WIDTH, count)).astype(np.float32),
            "bbox": np.hstack([corners, corners + draw.uniform(1, 180, (count, 2))]).astype(np.float32),
        }
        name = f"COCO_train2014_{image:012d}.jpg.npz"
        with atomic_path(data / "features" / "train2014" / name) as path, open(path, "wb") as file:
            np.savez(file, **arrays, image_h=HEIGHT_WIDTH[0], image_w=HEIGHT_WIDTH[1])
        for place in range(EACH):
            head = {"image_id": image, "question_id": image * 1000 + place}
            words = " ".join(draw.choice(WORDS, math.ceil(draw.gamma(6, 1))))
            questions.append(head | {"question": f"What {words}?"})
            common, *others = draw.choice(ANSWERS, 4).tolist()
            given = [common] * 7 + others
            answers = [{"answer": text, "answer_id": one} for one, text in enumerate(given, start=1)]
            annotations.append(head | {"multiple_choice_answer": common, "answers": answers, "answer_type": "other"})
    info = {"info": {"description": "synthetic data of VQA v2's shapes", "synthetic": True}}
    folder = data / "annotations"
    write_text(folder / QUESTION_FILES["train"], json.dumps(info | {"questions": questions}))
    write_text(folder / ANNOTATION_FILES["train"], json.dumps(info | {"annotations": annotations}))


if __name__ == "__main__":
    run_cli(main)
