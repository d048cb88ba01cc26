"""Checkpoints of every MMNas task: what ours hold, reading them and the originals', and where predictions go."""

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import torch

from engine.arguments import read_arguments
from models.mmnas.architecture import Architecture, check_architecture
from models.mmnas.operations import operation_class
from models.mmnas.published import current_keys, from_published
from tasks.mmnas.networks import WORD_SIZE, find_architecture
from util.checkpoint import load_checkpoint, load_weights
from util.cli import UserError

# Arguments that say which data a run used.
DATA = ("data", "features", "DATASET", "FEAT", "min_answer_count", "skip_missing")
# Arguments that say what a score means, of any task.
METRIC = ("metric", "iou", "padded_regions", "scores_loss")


class Checkpoint(NamedTuple):
    """A trained network's file, ours or the original's.

    state: State dict in our names.
    architecture: `Architecture`: the file's, or for the original's that of ``--ARCH_PATH``.
    arguments: Arguments of the network that it was trained with; {} where the file has none.
    metadata: What the task keeps with it, see `tasks.task.AttentionTask`, or None.
    path: The file.
    """

    state: dict
    architecture: Architecture
    arguments: dict
    metadata: dict | None
    path: Path


def checkpoint_extras(task, args, metadata):
    """What ``best.pth`` holds beside the weights, so that it can be used by itself."""
    names = ("hsize", "drpt", "save", *DATA, *task.checkpoint_args)
    arguments = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {"task": _task_name(task), "arguments": arguments, "tables": metadata}


def _task_name(task):
    return f"tasks.{task.name}"


def read_checkpoint(task, args):
    """The network of ``--CKPT_PATH``: a run folder or checkpoint of ours, or a file of the original.

    Raises:
        UserError: it is none of these, or of another task, or the original's comes without ``--ARCH_PATH``.
    """
    return _checkpoint(task, args, *_content(args.CKPT_PATH))


def _checkpoint(task, args, path, content):
    if "state_dict" in content:
        if not getattr(args, "ARCH_PATH", None):
            raise UserError(f"--CKPT_PATH {path} is the original's and holds no architecture; pass --ARCH_PATH as well")
        return Checkpoint(from_published(content["state_dict"]), find_architecture(args), {}, None, path)
    _check_task(task, path, content)
    architecture = _architecture(path, content)
    if getattr(args, "ARCH_PATH", None) and find_architecture(args) != architecture:
        raise UserError(
            f"--ARCH_PATH {args.ARCH_PATH} is not the architecture of {path}, {architecture}; leave the flag out"
        )
    return Checkpoint(current_keys(content["net"]), architecture, content["arguments"], content["tables"], path)


def _check_task(task, path, content):
    if content["task"] != _task_name(task):
        raise UserError(f"--CKPT_PATH {path} is a network of {_name(content['task'])}, not of {task.name}")


def arguments_of(task, source, fixed):
    """The arguments that a checkpoint brings along; sizes of its architecture are put into ``fixed``.

    Args:
        task: The `AttentionTask`.
        source: Value of ``--CKPT_PATH``.
        fixed: dict that takes the sizes.
    """
    path, content = _content(source)
    if "state_dict" in content:
        return {}
    _check_task(task, path, content)
    fixed.update(_architecture(path, content).sizes())
    return content["arguments"]


def _architecture(path, content):
    try:
        architecture = Architecture.from_dict(content["genotype"])
    except ValueError as error:
        raise UserError(f"--CKPT_PATH {path} holds no architecture: {error}; restore the file") from None
    check_architecture(architecture, path)
    return architecture


def _content(name):
    path = Path(name)
    path = path / "best.pth" if path.is_dir() else path
    content = load_checkpoint(path)
    ours = {"net", "genotype", "task", "arguments", "tables"}
    if not isinstance(content, dict) or not (ours <= set(content) or "state_dict" in content):
        raise UserError(
            f"--CKPT_PATH {path} is no checkpoint of a training; expected a run folder of the training script, its "
            "best.pth, or a file of the original code with state_dict"
        )
    for name, good in _entries(content).items():
        if not good:
            raise UserError(f"--CKPT_PATH {path} misstates {name}; restore the file")
    saved = path.parent / "args.json"
    if "state_dict" not in content and saved.is_file():
        # An older version's checkpoint says less of what its scores mean than the run around it.
        around = read_arguments(saved)
        content["arguments"] = {name: around[name] for name in METRIC if name in around} | content["arguments"]
    return path, content


def _entries(content):
    """For each entry of a checkpoint whether it is of the right form."""
    if "state_dict" in content:
        return {"state_dict": _is_state(content["state_dict"])}
    tables, arguments = content["tables"], content["arguments"]
    good = {"net": _is_state(content["net"]), "task": isinstance(content["task"], str)}
    good |= {"arguments": isinstance(arguments, dict), "tables": isinstance(tables, dict)}
    if not all(good.values()):
        return good
    size, dropout = arguments.get("hsize"), arguments.get("drpt")
    good |= {
        "hsize": type(size) is int and size > 0,
        "drpt": isinstance(dropout, (int, float)) and 0 <= dropout < 1,
        "vocabulary": "vocabulary" in tables,
        "feature_size": type(tables.get("feature_size")) is int and tables["feature_size"] > 0,
        "extraction": tables.get("extraction") is None or isinstance(tables["extraction"], dict),
        "dataset": isinstance(tables.get("dataset", ""), str),
    }
    return good


def _is_state(value):
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(one, torch.Tensor) for key, one in value.items()
    )


def _name(module):
    return module.rsplit(".", 1)[-1]


def read_own_checkpoint(task, args):
    """A `Checkpoint` to be asked about a user's own images; its arguments are put into ``args``.

    Raises:
        UserError: it does not say how features are made of an image, or has operations that need padding.
    """
    path, content = _content(args.CKPT_PATH)
    if not (content.get("tables") or {}).get("extraction"):
        raise UserError(
            f"{path} does not say how features are made of an image; train on features of "
            "`python datasets/extract_features.py`"
        )
    checkpoint = _checkpoint(task, args, path, content)
    found = checkpoint.architecture
    names = [name for block in (*found.enc, *found.dec) for name in block]
    if needy := [name for name in names if operation_class(name).depends_on_padding]:
        raise UserError(
            f"{path}: results of {needy[0]} depend on padding, which a single text does not have; ask a network without"
            " such operations, or score a data set"
        )
    for name, value in checkpoint.arguments.items():
        setattr(args, name, value)
    return checkpoint


def load_net(task, args, checkpoint, data):
    """The network of a `Checkpoint`, for ``data``.

    Raises:
        UserError: the weights do not fit.
    """
    known, word_size = checkpoint.state.get("embedding.weight", torch.empty(0, WORD_SIZE)).shape
    own = Namespace(**{**vars(args), "word_size": word_size})
    net = task.build_net(own, checkpoint.metadata or task.metadata(data), checkpoint.architecture, trained=True)
    words = net.embedding.num_embeddings
    if known != words:
        raise UserError(
            f"{checkpoint.path} knows {known:,} words, but the data have {words:,}; the originals' checkpoints hold no "
            "vocabulary: score them on the very files that they were trained with, all official ones"
        )
    load_weights(net, checkpoint.state, checkpoint.path)
    return net


def write_predicted(args, run, write, part=""):
    """Call ``write(path)`` for a file in the run folder, and for test for the documented place; returns the paths.

    Where only the latter cannot be written, the run still ends as it should, and then says so.

    Args:
        args, run, write: As said.
        part: What else the file's name must say, where a test has several parts.
    """
    places = [run.folder / "predictions.json"]
    if run.is_main:
        write(places[0])
    if args.RUN == "test":
        second = Path("logs/ckpts/result_test") / f"result_train_{args.save}{part}.json"
        try:
            if run.is_main:
                write(second)
            places.append(second)
        except UserError as error:
            run.fail_later(f"{error}; the predictions are in {places[0]}")
    return [str(place) for place in places]
