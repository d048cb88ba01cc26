"""Visual question answering (VQA v2): its `AttentionTask`, its published values, and the flags of its scripts."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.prepare_easy_vqa import main as prepare_easy_vqa
from datasets.prepare_vqa import main as prepare_vqa
from datasets.vqa import open_vqa_parts
from datasets.vqa.answers import AnswerTable
from datasets.vqa.files import VQAFolder
from engine import arguments
from metrics.classification import SoftAccuracy
from metrics.vqa_accuracy import VQAAccuracy, write_results
from models.losses import summed_binary_cross_entropy
from models.mmnas.heads import AnswerHead
from tasks.mmnas import flags, networks
from tasks.mmnas.checkpoints import write_predicted
from tasks.mmnas.data import SEARCH_PARTS, common_metadata, fixed_by
from tasks.task import AttentionTask, Validation
from util.locks import make_once

if TYPE_CHECKING:
    from datasets.vqa import VQA
    from engine.run import Run
    from engine.training import Evaluation
    from engine.updates import Precision
    from models.mmnas.architecture import Architecture
    from models.mmnas.net import MultimodalNet
    from tasks.task import QuestionData

# Published values: shared by both scripts, of the search, and of the training.
PUBLISHED = {**flags.CONSTANTS, "data": "data/vqa", "out_dir": "final_exp/vqa", "batchsize_per_process": 64}
PUBLISHED_SEARCH = {
    **PUBLISHED,
    **flags.SEARCH_CONSTANTS,
    "save": "vqa",
    "seed": 888,
    "hsize": 256,
    "lr": 4e-4,
    "epochs": 100,
}
PUBLISHED_TRAIN = {
    **PUBLISHED,
    "save": "vqa",
    "hsize": 512,
    "lr": 1.2e-4,
    "lr_decay_epochs": (10, 12),
    "epochs": 13,
}
# Small enough for a CPU. The images and questions have no noise, so dropout would only slow training down.
DEMO = {
    "data": "demo/vqa",
    "out_dir": "demo/vqa/runs",
    "hsize": 128,
    "enc_blocks": 2,
    "dec_blocks": 4,
    "drpt": 0.0,
    "lr": 2e-3,
    "fused_adam": True,
}


logger = logging.getLogger("mdarts")


def recipe_parser(description: str) -> arguments.RecipeParser:
    """Parser with the flags that both scripts share."""
    parser, data = flags.recipe_parser(description)
    data.add_argument("--data", metavar="DIR", help="folder with annotations/ and store/ or .npz features")
    data.add_argument(
        "--min_answer_count",
        type=arguments.positive_int,
        help="minimum occurrences of an answer class (default: that of the store, or 9)",
    )
    data.add_argument(
        "--metric",
        choices=("original", "official"),
        default="original",
        help="original: the evaluator behind the published numbers; official: the current one, which also normalises "
        "the annotators' answers unless all agree; a checkpoint uses the metric of its training",
    )
    return parser


def open_search(args: Namespace) -> dict[str, QuestionData]:
    """Data of the weight steps and of the architecture steps: the first 80 % of train and the rest."""
    return _open_parts(args, "train", SEARCH_PARTS)


def open_training(args: Namespace) -> dict[str, QuestionData]:
    """``train`` (the splits of --SPLIT), ``val`` unless it is trained on, and ``test`` if it is annotated."""
    train = _open(args, args.SPLIT)
    scored = ["val"] if "val" not in args.SPLIT else []
    scored += ["test"] if _has_test_answers(args) else []
    return {"train": train} | {split: _open(args, split, metadata(train), train) for split in scored}


def open_eval_split(args: Namespace, known: dict[str, Any] | None) -> tuple[str, QuestionData]:
    """Name and data of the split of ``--RUN``, with the vocabulary and answers of a checkpoint's metadata."""
    return args.RUN, _open(args, args.RUN, known)


def _has_test_answers(args):
    return VQAFolder(args.data).has_annotations("test")


def _open(args, split, known=None, beside=None):
    return _open_parts(args, split, {split: None}, known, beside)[split]


def _open_parts(args, split, parts, known=None, beside=None):
    """Parts of a split; the features of data that are open ``beside`` it are not opened again."""
    if args.demo and args.data == DEMO["data"]:
        make_once(Path(args.data) / "store/meta.json", lambda: make_demo_data(Path(args.data)))
    options = {"features": beside.source if beside is not None else args.features, "skip_missing": args.skip_missing}
    options |= {"small": args.small_dataset, "min_answer_count": args.min_answer_count, **fixed_by(known)}
    if known is not None:
        options["answers"] = AnswerTable.from_dict(known.get("answers"))
    return open_vqa_parts(args.data, split, parts, **options)


def make_demo_data(folder: Path) -> None:
    """Make the demo's data: the images and questions of easy-VQA."""
    prepare_easy_vqa(["--out", str(folder)])
    prepare_vqa(["--data", str(folder), "--out", str(folder / "store")])


def metadata(data: VQA) -> dict[str, Any]:
    """Metadata of a checkpoint: `common_metadata` and the answers."""
    return common_metadata(data) | {"answers": data.answers.to_dict()}


def build_net(
    args: Namespace, metadata: dict[str, Any], architecture: Architecture | None, trained: bool = False
) -> MultimodalNet:
    """The network; ``trained``: a checkpoint is loaded next, so no word vectors are needed."""
    head = AnswerHead(args.hsize, args.drpt, len(AnswerTable.from_dict(metadata.get("answers"))))
    return networks.build_net(args, architecture, head, metadata, trained)


def metric_text(args: Namespace) -> str:
    """Description of the accuracy."""
    ways = {"original": "as the original's evaluator does", "official": "as the toolkit's current version does"}
    return f"VQA accuracy against ten annotators, computed {ways[args.metric]} (--metric {args.metric})"


def build_scorer(args: Namespace, run: Run, data: VQA, precision: Precision, split: str) -> Evaluation:
    """`Evaluation` of the VQA accuracy on one split, a function net -> scores."""
    metric = VQAAccuracy(data.answers.names, data.question_ids, data.ground_truth(), args.metric)
    return networks.scorer(args, run, data, precision, split, summed_binary_cross_entropy, metric)


def write_predictions(args: Namespace, run: Run, data: VQA, scorer: Evaluation) -> list[str]:
    """Write the answers of the split in the format of the evaluation server; returns the paths.

    A warning is logged if questions are unanswered, since the server rejects such files.
    """
    ids, answers = scorer.metric.results()
    if len(ids) < data.num_questions:
        logger.warning(
            "the answers are incomplete: %s of the %s questions of %s; the evaluation server only accepts files that "
            "answer every question; provide the missing features, and drop --skip_missing and pass --no-small_dataset",
            f"{len(ids):,}",
            f"{data.num_questions:,}",
            data.split,
        )
    return write_predicted(args, run, lambda place: write_results(place, ids, answers))


TASK = AttentionTask(
    name="vqa",
    open_search=open_search,
    open_training=open_training,
    open_eval_split=open_eval_split,
    metadata=metadata,
    build_net=build_net,
    # Summed over the answers and, as in the original, over the questions of a batch.
    loss=lambda args: summed_binary_cross_entropy,
    loss_reduction="sum",
    training_metric=lambda args, data: SoftAccuracy(),
    metric_text=metric_text,
    build_scorer=build_scorer,
    validation=Validation("val", "accuracy"),
    write_predictions=write_predictions,
    checkpoint_args=("metric",),
    demo=DEMO,
)
