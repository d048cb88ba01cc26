"""Checkpoints of every MMNas task: writing ours, reading ours and the originals', and writing predictions."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from engine.arguments import read_arguments
from models.mmnas.architecture import Architecture, check_architecture
from models.mmnas.operations import operation_class
from models.mmnas.published import current_keys, from_published
from tasks.mmnas.networks import WORD_SIZE, find_architecture
from util.checkpoint import load_checkpoint, load_weights
from util.cli import UserError

if TYPE_CHECKING:
    from engine.run import Run
    from models.mmnas.net import MultimodalNet
    from tasks.task import AttentionTask

# Arguments that select the data of a run.
DATA = ("data", "features", "DATASET", "FEAT", "min_answer_count", "skip_missing")
# Arguments of any task that affect what a score means.
METRIC = ("metric", "iou", "padded_regions", "scores_loss")
# Arguments that a val or test run inherits, but that checkpoints of earlier versions do not have.
LATER = (*METRIC, "small_dataset")


class Checkpoint(NamedTuple):
    """A trained network's file, ours or the original's.

    state: State dict in our names.
    architecture: `Architecture` in the file; for a file of the original that of ``--ARCH_PATH``.
    arguments: Arguments that the network was trained with; {} if the file has none.
    metadata: See `tasks.task.AttentionTask`; None if the file has none.
    path: The file.
    """

    state: dict
    architecture: Architecture
    arguments: dict
    metadata: dict | None
    path: Path


def checkpoint_extras(task: AttentionTask, args: Namespace, metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Further entries of ``best.pth``, so that the file can be used on its own; for imports ``metadata`` is None."""
    names = ("hsize", "drpt", "save", "small_dataset", *DATA, *task.checkpoint_args)
    arguments = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {"task": _task_name(task), "arguments": arguments, "tables": metadata}


def _task_name(task):
    return f"tasks.{task.name}"


def read_checkpoint(task: AttentionTask, args: Namespace) -> Checkpoint:
    """The network of ``--CKPT_PATH``: a run folder or checkpoint of ours, or a file of the original.

    Raises:
        UserError: It is none of these, belongs to another task, or is a file of the original without ``--ARCH_PATH``.
    """
    return _checkpoint(task, args, *_content(args.CKPT_PATH))


def _checkpoint(task, args, path, content):
    if "state_dict" in content:
        if not getattr(args, "ARCH_PATH", None):
            raise UserError(
                f"--CKPT_PATH {path} is a file of the original and has no architecture; pass --ARCH_PATH as well"
            )
        return Checkpoint(from_published(content["state_dict"]), find_architecture(args), {}, None, path)
    _check_task(task, path, content)
    architecture = _architecture(path, content)
    if getattr(args, "ARCH_PATH", None) and find_architecture(args) != architecture:
        raise UserError(
            f"--ARCH_PATH {args.ARCH_PATH} is not the architecture of {path}, {architecture}; drop the flag"
        )
    return Checkpoint(current_keys(content["net"]), architecture, content["arguments"], content["tables"], path)


def _check_task(task, path, content):
    if content["task"] != _task_name(task):
        raise UserError(f"--CKPT_PATH {path} is a network of {_name(content['task'])}, not of {task.name}")


def arguments_of(task: AttentionTask, source: Path | str, fixed: dict[str, Any]) -> dict[str, Any]:
    """The arguments in a checkpoint; sizes of its architecture are added to ``fixed``.

    Args:
        task: The `AttentionTask`.
        source: Value of ``--CKPT_PATH``.
        fixed: dict to which the sizes are added.
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
        raise UserError(f"--CKPT_PATH {path} has no valid architecture: {error}; restore the file") from None
    check_architecture(architecture, path)
    return architecture


def _content(name):
    path = Path(name)
    path = path / "best.pth" if path.is_dir() else path
    content = load_checkpoint(path)
    ours = {"net", "genotype", "task", "arguments", "tables"}
    if not isinstance(content, dict) or not (ours <= set(content) or "state_dict" in content):
        raise UserError(
            f"--CKPT_PATH {path} is not a checkpoint of a training; expected a run folder of the training script, its "
            "best.pth, or a file of the original code with state_dict"
        )
    for name, good in _entries(content).items():
        if not good:
            raise UserError(f"--CKPT_PATH {path} has no valid {name}; restore the file")
    saved = path.parent / "args.json"
    if "state_dict" not in content and saved.is_file():
        # Checkpoints of older versions lack some arguments that affect the scores; they are in the run folder.
        around = read_arguments(saved)
        content["arguments"] = {name: around[name] for name in LATER if name in around} | content["arguments"]
    return path, content


def _entries(content):
    """Entry of a checkpoint -> whether it has the right form."""
    if "state_dict" in content:
        return {"state_dict": _is_state(content["state_dict"])}
    tables, arguments = content["tables"], content["arguments"]
    if tables is None and "imported_from" in content:  # files of the originals have no vocabulary
        tables = {"vocabulary": None, "feature_size": 1}
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


def read_own_checkpoint(task: AttentionTask, args: Namespace) -> Checkpoint:
    """The `Checkpoint` of a prediction script, for a user's own images; its arguments are copied to ``args``.

    Raises:
        UserError: It does not record how features are extracted, or has operations whose results depend on padding.
    """
    path, content = _content(args.CKPT_PATH)
    if not (content.get("tables") or {}).get("extraction"):
        raise UserError(
            f"{path} does not record how features are extracted from images; train on features of "
            "`python datasets/extract_features.py`"
        )
    checkpoint = _checkpoint(task, args, path, content)
    architecture = checkpoint.architecture
    names = [name for block in (*architecture.enc, *architecture.dec) for name in block]
    if needy := [name for name in names if operation_class(name).depends_on_padding]:
        raise UserError(
            f"{path}: results of {needy[0]} depend on padding, which a single text does not have; use a network without"
            " such operations, or score a data set"
        )
    for name, value in checkpoint.arguments.items():
        setattr(args, name, value)
    return checkpoint


def load_net(task: AttentionTask, args: Namespace, checkpoint: Checkpoint, data: Any) -> MultimodalNet:
    """Build the network of a `Checkpoint` and load its weights; ``data`` provides the metadata that the file lacks.

    Raises:
        UserError: The weights do not fit.
    """
    known, word_size = checkpoint.state.get("embedding.weight", torch.empty(0, WORD_SIZE)).shape
    own = Namespace(**{**vars(args), "word_size": word_size})
    net = task.build_net(own, checkpoint.metadata or task.metadata(data), checkpoint.architecture, trained=True)
    words = net.embedding.num_embeddings
    if known != words:
        raise UserError(
            f"{checkpoint.path} knows {known:,} words, but the data have {words:,}; checkpoints of the originals have "
            "no vocabulary: score them on the complete official files that they were trained with"
        )
    load_weights(net, checkpoint.state, checkpoint.path)
    return net


def write_predicted(args: Namespace, run: Run, write: Callable[[Path], None], part: str = "") -> list[str]:
    """Write predictions into the run folder, and for test also to the documented path; returns both paths.

    If only the second file cannot be written, the run is completed and reports the error at its end.

    Args:
        args, run: The arguments and the `Run`.
        write: Writes the predictions to a path.
        part: Part of the file's name that distinguishes several parts of a test.
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
