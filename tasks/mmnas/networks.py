"""Networks and architectures of every MMNas task from the scripts' arguments."""

from __future__ import annotations

import logging
import random
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from datasets.text.vocabulary import Vocabulary
from datasets.text.word_vectors import AUTO, LINK, NONE, ORIGINAL, find_word_vectors, load_word_vectors
from engine.arguments import run_folder_of
from engine.identity import search_identity
from engine.resuming import kept_genotype
from engine.training import Evaluation
from engine.updates import Precision
from models.mmnas import fast
from models.mmnas.architecture import load_architecture, random_architecture, repeated
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.net import MultimodalNet
from models.mmnas.operations import OPERATIONS
from models.mmnas.recurrent import lstm_runs
from models.mmnas.space import DECODER_CANDIDATES, ENCODER_CANDIDATES
from tasks.mmnas.data import build_loaders
from util.checkpoint import load_checkpoint
from util.cli import UserError
from util.hashes import short_hash

if TYPE_CHECKING:
    from torch import nn

    from engine.run import Run
    from engine.updates import Loss, Parallel
    from models.mmnas.architecture import Architecture
    from tasks.task import Metric, QuestionData

logger = logging.getLogger("mdarts")

# Width of random word vectors.
WORD_SIZE = 300
ROOT = Path(__file__).resolve().parent.parent.parent
# Warn if at most this share of the decoder operations attends across modalities.
MIN_GUIDED = 0.05


def build_encoder_decoder(args: Namespace, architecture: Architecture | None) -> EncoderDecoder:
    """The encoder-decoder of an architecture; without one, the supernet that the flags describe."""
    if architecture is not None:
        return EncoderDecoder.fixed(architecture, args.hsize, args.drpt)
    sizes = {"num_enc": args.enc_blocks, "num_dec": args.dec_blocks, "start": args.alpha_init}
    enc, dec = candidates(args)
    return EncoderDecoder.searched(args.hsize, args.drpt, enc_candidates=enc, dec_candidates=dec, **sizes)


def candidates(args: Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the candidates of encoder and of decoder blocks, from ``--enc_ops`` and ``--dec_ops``.

    Raises:
        UserError: An operation does not exist.
    """
    enc, dec = tuple(args.enc_ops or ENCODER_CANDIDATES), tuple(args.dec_ops or DECODER_CANDIDATES)
    for flag, names in (("--enc_ops", enc), ("--dec_ops", dec)):
        if unknown := [name for name in names if name not in OPERATIONS]:
            known = ", ".join(OPERATIONS)
            raise UserError(f"{flag}: there is no operation {unknown[0]!r}; known: {known}, and module:Class")
    return enc, dec


def build_net(
    args: Namespace,
    architecture: Architecture | None,
    head: nn.Module,
    metadata: dict[str, Any],
    trained: bool,
    kind: type[MultimodalNet] = MultimodalNet,
) -> MultimodalNet:
    """The complete network around ``head``.

    Args:
        args, architecture, metadata, trained: See `tasks.task.AttentionTask`. An optional ``args.word_size`` is
            the width of the word vectors in the checkpoint to be loaded.
        head: One of `models.mmnas.heads`.
        kind: `MultimodalNet` or a subclass.
    """
    words = Vocabulary.from_dict(metadata["vocabulary"]).words
    size = getattr(args, "word_size", WORD_SIZE) if trained else _resumed_word_size(args)
    embedding = (len(words), size) if size else _word_vectors(args.word_vectors, words)
    net = kind(build_encoder_decoder(args, architecture), head, embedding, metadata["feature_size"])
    # The compiler fuses operations itself and cannot trace the hand-written ones.
    return net if getattr(args, "compile", False) else fast.speed_up(net)


def _word_vectors(source, words):
    """Initial embedding of ``words``: a float tensor (V, E), or its sizes (V, E) for random vectors; logs which."""
    chosen = find_word_vectors() if source == AUTO else source
    vectors = load_word_vectors(chosen or NONE, words)
    if vectors is not None:
        logger.info("word vectors: %s", vectors.description)
        return torch.from_numpy(vectors.matrix)
    if source == AUTO:
        logger.warning(
            "no word vectors: words start from RANDOM vectors, but the published results start from GloVe; put %s "
            "(unpacked from %s) into data/glove/ or checkpoints/, or name another file with --word_vectors FILE; "
            "--word_vectors none confirms random vectors",
            ORIGINAL,
            LINK,
        )
    else:
        logger.info("word vectors: random, trained with the rest (--word_vectors none)")
    return len(words), WORD_SIZE


def _resumed_word_size(args):
    """Width of the word vectors in the checkpoint of a resumed run; None if there is no checkpoint yet."""
    path = Path(getattr(args, "resume", None) or "") / "last.pth"
    if not path.is_file():
        return None
    net = load_checkpoint(path).get("objects", {}).get("net", {})
    return net["embedding.weight"].shape[1] if "embedding.weight" in net else None


def log_step_counts(args: Namespace, steps: int) -> None:
    """Log the numbers of weight and architecture steps of a search; warn if there are no architecture steps.

    Args:
        args: Arguments of the search.
        steps: Weight steps of an epoch.
    """
    count = max(0, args.epochs - args.alpha_start) * (steps // args.alpha_every)
    if count:
        logger.info("%s weight steps, %s architecture steps", f"{args.epochs * steps:,}", f"{count:,}")
        return
    logger.warning(
        "no architecture step: %d epochs of %d weight steps, --alpha_start %d, --alpha_every %d; the result is the "
        "architecture that the search starts with",
        args.epochs,
        steps,
        args.alpha_start,
        args.alpha_every,
    )


def set_padding(net: MultimodalNet, data: Mapping[str, Any]) -> None:
    """Pad batches of the data sets (name -> data) to the official lengths if results of ``net`` depend on padding."""
    if net.needs_full_padding:
        for dataset in data.values():
            dataset.options["padding"] = "full"


def build_precision(args: Namespace, device: torch.device) -> Precision:
    """The `Precision` of ``--amp``; warns if the LSTM has to stay in float32 on this machine."""
    precision = Precision(args.amp, device)
    if precision.dtype is not None and not lstm_runs(device.type, precision.dtype):
        logger.warning(
            "--amp %s: torch has no LSTM in this precision on this %s; only the LSTM runs in float32",
            args.amp,
            "processor" if device.type == "cpu" else "device",
        )
    return precision


def scorer(
    args: Namespace, run: Run, data: QuestionData, precision: Precision, title: str, loss: Loss, metric: Metric
) -> Evaluation:
    """An `Evaluation` of one split."""
    loader = build_loaders(args, run, {title: data}, shuffle=False)[title]
    options: dict[str, Any] = {"device": run.device, "precision": precision, "description": title}
    return Evaluation(loader, loss, metric, **options)


def compiled(net: MultimodalNet, parallel: Parallel | None) -> Parallel:
    """A wrapper for `OptimizerStep` that compiles a network (``--compile``), and then applies ``parallel`` if given."""
    # torch does not compile an LSTM. (Importing the compiler takes seconds, so it is only imported here.)
    net.embed_words = torch.compiler.disable(net.embed_words)  # type: ignore[method-assign]

    def wrap(net, find_unused):
        fast: Any = torch.compile(net, dynamic=True)
        return parallel(fast, find_unused) if parallel else fast

    return wrap


def find_architecture(args: Namespace) -> Architecture:
    """The architecture that ``--ARCH_PATH`` and ``--ARCH_EPOCH`` name.

    A resumed run keeps its architecture, also if its search has changed or is not there any more.

    Raises:
        UserError: There is no architecture, or it cannot be built.
    """
    if args.ARCH_PATH == "random":
        return random_architecture(random.Random(args.seed), *candidates(args), args.enc_blocks, args.dec_blocks)
    if args.ARCH_PATH == "mcan":
        return repeated(load_architecture(ROOT / "arch" / "mcan.json"), args.enc_blocks, args.dec_blocks)
    if kept := kept_genotype(args, ("ARCH_PATH", "ARCH_EPOCH")):
        return load_architecture(kept)
    return load_architecture(args.ARCH_PATH, args.ARCH_EPOCH)


def note_architecture(run: Run, architecture: Architecture) -> None:
    """Draw the architecture into the run folder and record it as an input of the run."""
    run.depends_on("architecture", short_hash(architecture.blocks()), "--ARCH_PATH")
    run.write("architecture.svg", architecture.to_svg())


def architecture_facts(args: Namespace) -> dict[str, Any]:
    """Facts for a result: the origin of the architecture, and for a random one the space that it was drawn from."""
    facts = {"from": args.ARCH_PATH}
    if args.ARCH_PATH != "random":
        facts |= search_identity(args.ARCH_PATH, args.resume)
        return facts | ({"epoch": args.ARCH_EPOCH} if args.ARCH_EPOCH is not None else {})
    enc, dec = candidates(args)
    space = {"enc_ops": list(enc), "dec_ops": list(dec), "enc_blocks": args.enc_blocks, "dec_blocks": args.dec_blocks}
    folder = run_folder_of(args.search_exp_dir) if args.search_exp_dir else None
    searched = folder is not None and (folder / "args.json").is_file()
    return facts | {"seed": args.seed, "space": space, "space_from": str(folder) if searched else "flags"}


def collapse_warnings(architecture: Architecture, probabilities: Mapping[str, Any]) -> list[str]:
    """Warnings about an architecture that hardly reads the words."""
    names = [name for block in architecture.dec for name in block]
    guided = sum(name.startswith(("guided_att", "uniimg_att")) for name in names)
    if guided <= MIN_GUIDED * len(names):
        return ["hardly any decoder block reads the words: the search may have collapsed"]
    return []


# The former name, for recipes of your own.
collapse = collapse_warnings
