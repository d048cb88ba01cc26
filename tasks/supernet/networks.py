"""Networks, loaders and updaters of every MMNas task from the scripts' arguments, and what a checkpoint carries."""

import random
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.vqa_text import Vocabulary
from datasets.word_vectors import load_word_vectors
from engine.loading import build_loader
from engine.training import Evaluation
from engine.updates import Precision, Updater, data_parallel
from models.architectures import Architecture, add_epoch, load_architecture, random_architecture
from models.supernet.encoder_decoder import EncoderDecoder
from models.supernet.net import MultimodalNet
from models.supernet.operations import DECODER_CANDIDATES, ENCODER_CANDIDATES, operation_class
from models.supernet.published import from_published
from util.checkpoint import load_checkpoint, load_weights
from util.cli import UserError
from util.distributed import world_size
from util.schedules import WarmUp

# Width of word vectors where none are given.
WORD_SIZE = 300
ROOT = Path(__file__).resolve().parent.parent.parent
# Adam of the weights and of the alphas, as published.
BETAS, EPS = (0.9, 0.98), 1e-9
ALPHA_BETAS = (0.0, 0.999)
# An architecture of which less than this share of the blocks attends across modalities hardly reads the regions.
LEAST_GUIDED = 0.05


class PathGenerator:
    """Random numbers of the sampled paths: a stream of its own, equal on every rank and kept in checkpoints."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self):
        """Position in the stream."""
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state):
        """Continue at a saved position."""
        self.generator.set_state(state["state"])


class Checkpoint(NamedTuple):
    """A trained network's file, ours or the original's.

    state: State dict in our names.
    architecture: `Architecture`, or None where the file has none (the original's).
    tables: What the task keeps with it, or None.
    path: The file.
    """

    state: dict
    architecture: Architecture | None
    tables: dict | None
    path: Path


def build_backbone(args, architecture):
    """The encoder-decoder of an architecture, or with None the supernet of the flags."""
    if architecture is not None:
        return EncoderDecoder.fixed(architecture, args.hsize, args.drpt)
    return EncoderDecoder.searched(
        args.hsize,
        args.drpt,
        num_enc=args.enc_blocks,
        num_dec=args.dec_blocks,
        enc_candidates=tuple(args.enc_ops or ENCODER_CANDIDATES),
        dec_candidates=tuple(args.dec_ops or DECODER_CANDIDATES),
        start=args.alpha_init,
    )


def build_net(args, architecture, head, tables, trained, kind=MultimodalNet):
    """The complete network around ``head``.

    Args:
        args, architecture, tables, trained: See ``build_net`` of a task.
        head: One of `models.supernet.heads`.
        kind: `MultimodalNet` or a class derived from it.
    """
    words = Vocabulary.from_dict(tables["vocabulary"])
    vectors = None if trained else load_word_vectors(args.word_vectors, words.words)
    embedding = (len(words), WORD_SIZE) if vectors is None else torch.from_numpy(vectors.matrix)
    return kind(build_backbone(args, architecture), head, embedding, tables["feature_size"])


def set_padding(net, data):
    """Pad batches of the data sets (name -> data) to the official lengths where results of ``net`` depend on them."""
    if net.needs_full_padding:
        for dataset in data.values():
            dataset.options["padding"] = "full"


def build_precision(args, device):
    """The `Precision` of ``--amp``.

    Raises:
        UserError: float16 on a CPU, which torch's LSTM does not have.
    """
    if args.amp == "fp16" and device.type == "cpu":
        raise UserError("--amp fp16: torch's LSTM has no float16 on a CPU; use --amp bf16 or off, or a GPU")
    return Precision(args.amp, device)


def build_loaders(args, run, data, *, shuffle=True, drop_last=False):
    """Loaders of the splits in ``data``; ``--batchsize`` counts for each process."""
    size = args.batchsize * world_size()
    shared = {"seed": args.seed, "num_workers": args.num_workers, "device": run.device, "drop_last": drop_last}
    return {split: build_loader(dataset, size, shuffle=shuffle, **shared) for split, dataset in data.items()}


def scorer(args, run, data, precision, title, criterion, metric):
    """An `Evaluation` of one split."""
    loader = build_loaders(args, run, {title: data}, shuffle=False)[title]
    options = {"device": run.device, "precision": precision, "description": title}
    return Evaluation(loader, criterion, metric, **options)


def build_updater(task, args, run, net, precision, steps, idle_move=False):
    """The updater of the weights: Adam with warm-up, clipped gradient.

    Args:
        task, args, run, net, precision: As everywhere.
        steps: Batches of an epoch.
        idle_move: See `Updater`.
    """
    parameters = net.weights()
    optimizer = torch.optim.Adam(parameters, lr=args.lr, betas=BETAS, eps=EPS)
    schedule = WarmUp(args.lr, steps, args.lr_decay_epochs, args.lr_decay)
    parallel = data_parallel(run, precision, find_unused=not net.uses_all_weights())
    if getattr(args, "compile", False):
        parallel = _compiled(net, parallel)
    options = {"summed": task.SUMMED, "clip": args.clip, "idle_move": idle_move, "micro_batch": args.micro_batch}
    options |= {"schedule": schedule, "precision": precision, "parallel": parallel}
    return Updater(net, parameters, task.criterion(args), optimizer, **options)


def _compiled(net, parallel):
    """What an `Updater` wraps a network in to run it compiled, within ``parallel`` if there is one."""
    # Which rows are padding is data: leaving them out would cut the graph in pieces.
    net.pack = False

    def wrap(net):
        compiled = torch.compile(net, dynamic=True)
        return parallel(compiled) if parallel else compiled

    return wrap


def build_alpha_updater(task, args, run, net, precision):
    """The updater of the architecture parameters, which get their gradients through the gates."""
    gates = [gated.alpha_gate for gated in net.backbone.gated()]
    optimizer = torch.optim.Adam(net.backbone.alphas(), lr=args.alpha_lr, betas=ALPHA_BETAS)
    options = {"summed": task.SUMMED, "micro_batch": args.micro_batch, "parallel": data_parallel(run, precision)}
    return Updater(net, gates, task.criterion(args), optimizer, precision=precision, **options)


def find_architecture(args):
    """The architecture that ``--ARCH_PATH`` and ``--ARCH_EPOCH`` name.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    if args.ARCH_PATH == "random":
        rng = random.Random(args.seed)
        return random_architecture(rng, ENCODER_CANDIDATES, DECODER_CANDIDATES, args.enc_blocks, args.dec_blocks)
    if args.ARCH_PATH == "mcan":
        whole = load_architecture(ROOT / "arch" / "mcan.json")
        return Architecture(whole.enc[: args.enc_blocks], whole.dec[: args.dec_blocks])
    return load_architecture(args.ARCH_PATH, args.ARCH_EPOCH)


def save_history(run, architecture, epoch):
    """Add the architecture of ``epoch`` (from 0) to the run's ``arch.json``, where the first is ``epoch1``."""
    if run.is_main:
        path = run.folder / "arch.json"
        if epoch == 0 and path.exists():  # begun, and killed before its first epoch counted
            path.unlink()
        add_epoch(path, epoch + 1, architecture)


def collapse(architecture, probabilities):
    """Warnings, in words, about an architecture that reads little of its inputs."""
    names = [name for block in architecture.dec for name in block]
    guided = sum(name.startswith(("guided_att", "uniimg_att")) for name in names)
    if guided <= LEAST_GUIDED * len(names):
        return ["hardly any decoder block reads the words: the search may have collapsed"]
    return []


def describe(args, data):
    """What a result says of its data."""
    first = next(iter(data.values()))
    return {
        "data": {
            "folder": str(args.data),
            "description": first.description,
            "synthetic": first.synthetic,
            "samples": {split: len(dataset) for split, dataset in data.items()},
        }
    }


def kept(task, args, tables):
    """What ``best.pth`` holds beside the weights, so that it can be used by itself."""
    return {"sizes": {name: getattr(args, name) for name in ("hsize", "drpt", *task.KEPT)}, "tables": tables}


def read_checkpoint(args):
    """The network of ``--CKPT_PATH``: a run folder or checkpoint of ours, or a file of the original.

    The arguments that ours was built with are put into ``args``.

    Raises:
        UserError: it is none of these, or the original's comes without ``--ARCH_PATH``.
    """
    path = Path(args.CKPT_PATH)
    path = path / "best.pth" if path.is_dir() else path
    content = load_checkpoint(path)
    if isinstance(content, dict) and {"net", "genotype", "tables"} <= set(content):
        architecture = Architecture.from_dict(content["genotype"])
        for name, value in content["sizes"].items():
            setattr(args, name, value)
        return Checkpoint(content["net"], architecture, content["tables"], path)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(
            f"--CKPT_PATH {path} is no checkpoint of a training; expected a run folder of the training script, its "
            "best.pth, or a file of the original code with state_dict"
        )
    if not args.ARCH_PATH:
        raise UserError(f"--CKPT_PATH {path} is the original's and holds no architecture; pass --ARCH_PATH as well")
    return Checkpoint(from_published(content["state_dict"]), find_architecture(args), None, path)


def read_own_checkpoint(args):
    """A `Checkpoint` to be asked about a user's own images; its arguments are put into ``args``.

    Raises:
        UserError: it does not say how features are made of an image, or has operations that need padding.
    """
    checkpoint = read_checkpoint(args)
    found = checkpoint.architecture
    names = [name for block in (*found.enc, *found.dec) for name in block]
    if needy := [name for name in names if operation_class(name).depends_on_padding]:
        raise UserError(
            f"{checkpoint.path}: results of {needy[0]} depend on padding, which a single question does not have; ask a "
            "network without such operations, or score a data set"
        )
    if not checkpoint.tables or not checkpoint.tables.get("extraction"):
        raise UserError(
            f"{checkpoint.path} does not say how features are made of an image; train on features of "
            "`python datasets/extract_features.py`"
        )
    return checkpoint


def load_net(task, args, checkpoint, data):
    """The network of a `Checkpoint`, for ``data``.

    Raises:
        UserError: the weights do not fit.
    """
    net = task.build_net(args, checkpoint.tables or task.tables(data), checkpoint.architecture, trained=True)
    known, words = len(checkpoint.state.get("embedding.weight", ())), net.embedding.num_embeddings
    if known != words:
        raise UserError(
            f"{checkpoint.path} knows {known:,} words, but the data have {words:,}; the originals' checkpoints hold no "
            "vocabulary: score them on the very files that they were trained with, all official ones"
        )
    load_weights(net, checkpoint.state, checkpoint.path)
    return net


def prediction_files(args, run):
    """Where predictions go: the run folder, and for test the documented place."""
    places = [run.folder / "predictions.json"]
    if args.RUN == "test":
        places.append(Path("logs/ckpts/result_test") / f"result_train_{args.save}.json")
    return places
