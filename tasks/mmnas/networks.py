"""Networks, loaders and updaters of every MMNas task from the scripts' arguments."""

import functools
import logging
import random
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.vqa_text import Vocabulary
from datasets.word_vectors import AUTO, LINK, NONE, ORIGINAL, find_word_vectors, load_word_vectors
from engine.arguments import run_folder_of
from engine.estimate import seconds_to_read
from engine.loading import build_loader, total_batch
from engine.training import Evaluation
from engine.updates import Precision, Updater, data_parallel
from models.mmnas import fast_cpu
from models.mmnas.architecture import add_epoch, load_architecture, random_architecture, repeated
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.net import MultimodalNet
from models.mmnas.operations import OPERATIONS
from models.mmnas.recurrent import lstm_runs
from models.mmnas.space import DECODER_CANDIDATES, ENCODER_CANDIDATES
from search.gates import SampledGates
from search.monitor import save_architecture
from search.strategies import build_strategy
from util.checkpoint import load_checkpoint
from util.cli import UserError
from util.distributed import world_size
from util.schedules import WarmUp

logger = logging.getLogger("mdarts")

# Width of word vectors where none are given.
WORD_SIZE = 300
ROOT = Path(__file__).resolve().parent.parent.parent
# Adam of the weights and of the alphas, as published.
BETAS, EPS = (0.9, 0.98), 1e-9
ALPHA_BETAS = (0.0, 0.999)
# An architecture of which less than this share of the blocks attends across modalities hardly reads the regions.
LEAST_GUIDED = 0.05


def build_relaxation(args):
    """The search strategy of ``--strategy``; published: sampled gates."""
    published = functools.partial(SampledGates, mode=args.alpha_mode)
    return build_strategy(args.strategy, published, args.seed, args.strategy_option)


class Pass(NamedTuple):
    """Forwards without updates, for an estimate.

    title: What they are for.
    like: A real batch dict of some samples.
    size: Samples of a batch.
    samples: Samples of the pass.
    seconds: What one process takes to read them all.
    """

    title: str
    like: dict
    size: int
    samples: int
    seconds: float


def passes(args, data, scored):
    """A `Pass` over every split in ``scored``, where an evaluation is that."""
    return [
        Pass(
            f"evaluation on {split}",
            data[split].read(range(min(total_batch(args), len(data[split])))),
            total_batch(args),
            len(data[split]),
            len(data[split]) * seconds_to_read(data[split], ["regions", "tokens"]),
        )
        for split in scored
    ]


def build_backbone(args, architecture):
    """The encoder-decoder of an architecture, or with None the supernet of the flags."""
    if architecture is not None:
        return EncoderDecoder.fixed(architecture, args.hsize, args.drpt)
    sizes = {"num_enc": args.enc_blocks, "num_dec": args.dec_blocks, "start": args.alpha_init}
    enc, dec = candidates(args)
    return EncoderDecoder.searched(args.hsize, args.drpt, enc_candidates=enc, dec_candidates=dec, **sizes)


def candidates(args):
    """Candidates of encoder and decoder blocks, as ``--enc_ops`` and ``--dec_ops`` say: two tuples of names.

    Raises:
        UserError: there is no such operation.
    """
    enc, dec = tuple(args.enc_ops or ENCODER_CANDIDATES), tuple(args.dec_ops or DECODER_CANDIDATES)
    for flag, names in (("--enc_ops", enc), ("--dec_ops", dec)):
        if unknown := [name for name in names if name not in OPERATIONS]:
            raise UserError(f"{flag}: there is no operation {unknown[0]!r}; known: {', '.join(OPERATIONS)}")
    return enc, dec


def build_net(args, architecture, head, tables, trained, kind=MultimodalNet):
    """The complete network around ``head``.

    Args:
        args, architecture, tables, trained: See ``build_net`` of a task. ``args.word_size``, if there, is the width
            of the word vectors of the checkpoint that follows.
        head: One of `models.mmnas.heads`.
        kind: `MultimodalNet` or a class derived from it.
    """
    words = Vocabulary.from_dict(tables["vocabulary"]).words
    size = getattr(args, "word_size", WORD_SIZE) if trained else _resumed_word_size(args)
    embedding = (len(words), size) if size else _word_vectors(args.word_vectors, words)
    return fast_cpu.speed_up(kind(build_backbone(args, architecture), head, embedding, tables["feature_size"]))


def _word_vectors(source, words):
    """What the embedding of ``words`` starts from: float (V, E), or the sizes (V, E) of random vectors; logged."""
    chosen = find_word_vectors() if source == AUTO else source
    vectors = load_word_vectors(chosen or NONE, words)
    if vectors is not None:
        logger.info("word vectors: %s", vectors.description)
        return torch.from_numpy(vectors.matrix)
    if source == AUTO:
        logger.warning(
            "no word vectors: words start from RANDOM vectors, but the published results from GloVe; put %s "
            "(unpacked from %s) into data/glove/ or checkpoints/, or name another file with --word_vectors FILE; "
            "--word_vectors none says that random ones are meant",
            ORIGINAL,
            LINK,
        )
    else:
        logger.info("word vectors: random, trained with the rest (--word_vectors none)")
    return len(words), WORD_SIZE


def _resumed_word_size(args):
    """Width of the word vectors in the checkpoint that a resumed run goes on from; None where there is none yet."""
    path = Path(getattr(args, "resume", None) or "") / "last.pth"
    if not path.is_file():
        return None
    net = load_checkpoint(path).get("objects", {}).get("net", {})
    return net["embedding.weight"].shape[1] if "embedding.weight" in net else None


def tell_turns(args, loader):
    """Say how many architecture steps a search has; a warning where there are none.

    Args:
        args: Arguments of the search.
        loader: That of the weight steps.

    Returns:
        Weight steps of an epoch.
    """
    steps = len(loader.batch_sampler)
    count = max(0, args.epochs - args.alpha_start) * (steps // args.alpha_every)
    if count:
        logger.info("%s weight steps, %s architecture steps", f"{args.epochs * steps:,}", f"{count:,}")
        return steps
    logger.warning(
        "no architecture step: %d epochs of %d weight steps, --alpha_start %d, --alpha_every %d; the result is the "
        "architecture that the search starts with",
        args.epochs,
        steps,
        args.alpha_start,
        args.alpha_every,
    )
    return steps


def set_padding(net, data):
    """Pad batches of the data sets (name -> data) to the official lengths where results of ``net`` depend on them."""
    if net.needs_full_padding:
        for dataset in data.values():
            dataset.options["padding"] = "full"


def build_precision(args, device):
    """The `Precision` of ``--amp``; the log says if the LSTM has to stay in float32 on this machine."""
    precision = Precision(args.amp, device)
    if precision.dtype is not None and not lstm_runs(device.type, precision.dtype):
        logger.warning(
            "--amp %s: torch has no such LSTM on this %s; the LSTM runs in float32, everything else as asked",
            args.amp,
            "processor" if device.type == "cpu" else "device",
        )
    return precision


def build_loaders(args, run, data, *, shuffle=True, drop_last=False):
    """Loaders of the splits in ``data``."""
    shared = {"seed": args.seed, "num_workers": args.num_workers, "device": run.device, "drop_last": drop_last}
    # Without batch norm a single sample will do.
    shared |= {"shuffle": shuffle, "min_share": 1}
    return {split: build_loader(dataset, total_batch(args), **shared) for split, dataset in data.items()}


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
    options |= {"min_part": 1, "schedule": schedule, "precision": precision, "parallel": parallel}
    return Updater(net, parameters, task.criterion(args), optimizer, **options)


def _compiled(net, parallel):
    """What an `Updater` wraps a network in to run it compiled, within ``parallel`` if there is one."""
    # Which rows are padding is data: leaving them out would cut the graph in pieces.
    net.pack = False

    def wrap(net):
        compiled = torch.compile(net, dynamic=True)
        return parallel(compiled) if parallel else compiled

    return wrap


def build_alpha_updater(task, args, run, net, precision, relaxation):
    """The updater of the architecture parameters, by the gradients that ``relaxation`` gives them."""
    optimizer = torch.optim.Adam([choice.logits for choice in net.choices()], lr=args.alpha_lr, betas=ALPHA_BETAS)
    options = {"summed": task.SUMMED, "micro_batch": args.micro_batch, "min_part": 1}
    options |= {"precision": precision, "parallel": data_parallel(run, precision)}
    return Updater(net, relaxation.gradient_parameters(), task.criterion(args), optimizer, **options)


def find_architecture(args):
    """The architecture that ``--ARCH_PATH`` and ``--ARCH_EPOCH`` name.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    if args.ARCH_PATH == "random":
        return random_architecture(random.Random(args.seed), *candidates(args), args.enc_blocks, args.dec_blocks)
    if args.ARCH_PATH == "mcan":
        return repeated(load_architecture(ROOT / "arch" / "mcan.json"), args.enc_blocks, args.dec_blocks)
    return load_architecture(args.ARCH_PATH, args.ARCH_EPOCH)


def architecture_facts(args):
    """Where the trained architecture comes from, for the result; of a random one the space that it was drawn from."""
    facts = {"from": args.ARCH_PATH}
    if args.ARCH_PATH != "random":
        return facts | ({"epoch": args.ARCH_EPOCH} if args.ARCH_EPOCH is not None else {})
    enc, dec = candidates(args)
    space = {"enc_ops": list(enc), "dec_ops": list(dec), "enc_blocks": args.enc_blocks, "dec_blocks": args.dec_blocks}
    folder = run_folder_of(args.search_exp_dir) if args.search_exp_dir else None
    searched = folder is not None and (folder / "args.json").is_file()
    return facts | {"seed": args.seed, "space": space, "space_from": str(folder) if searched else "flags"}


def keep_architecture(run, architecture, epoch):
    """Draw the architecture of ``epoch`` (from 0), and add it to ``arch.json``, where the first is ``epoch1``."""
    save_architecture(run, architecture, epoch, f"epoch {epoch} (--ARCH_EPOCH {epoch + 1})")
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


def note_data(run, data):
    """Note of which data a run is."""
    for split, dataset in data.items():
        run.depends_on(f"{split} data", dataset.identity, "--data or --features")


def log_metric(task, args):
    """Say in the log what the scores of this run mean."""
    logger.info("scores: %s", task.describe_metric(args))


def describe(task, args, data):
    """What a result says of its scores and data."""
    first = next(iter(data.values()))
    return {
        "metric": task.describe_metric(args),
        "batch": {"samples": total_batch(args), "processes": world_size()},
        "data": {
            "folder": str(args.data),
            "description": first.description,
            "synthetic": first.synthetic,
            "samples": {split: len(dataset) for split, dataset in data.items()},
            "identity": {split: dataset.identity for split, dataset in data.items()},
        },
    }
