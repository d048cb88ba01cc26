"""Imports checkpoints of the original MMNas: trained networks, and the state of their optimiser."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from datasets.text.vocabulary import SPECIAL_WORDS
from models.mmnas.architecture import load_architecture
from models.mmnas.published import from_published
from tasks.importing import Original, read_original, write_run
from tasks.mmnas.checkpoints import checkpoint_extras
from util.checkpoint import load_weights, save_checkpoint
from util.cli import UserError, quoted
from util.files import json_text, write_json, write_text
from util.random_state import random_state, seed_everything

if TYPE_CHECKING:
    from models.mmnas.architecture import Architecture
    from models.mmnas.net import MultimodalNet
    from tasks.task import AttentionTask

NETWORK = "a training of the original: train_*.py saves ./logs/ckpts/train_<task>-full_epoch<N>.pkl"


def import_attention(
    task: AttentionTask, args: Namespace, file: Path, architecture: str | None, folder: Path
) -> tuple[Original, list[str]]:
    """Convert the checkpoint of an original training into a run folder.

    Args:
        task: The `AttentionTask`.
        args: Arguments of the training script.
        file: The checkpoint.
        architecture: The architecture file; ``args.ARCH_EPOCH`` selects one of its epochs.
        folder: The run folder to write.

    Returns:
        (The file, commands that can use the folder.)

    Raises:
        UserError: The file does not belong to this task, or is incomplete.
    """
    original = read_original(file)
    if any(key.endswith("alpha_prob") for key in original.state):
        raise UserError(
            f"--file {file} is the supernet of a search; its architectures are in the arch/*.json of the search: train "
            f"one with train_{task.name}.py --ARCH_PATH FILE --ARCH_EPOCH N"
        )
    if architecture is None:
        raise UserError(f"{file} does not contain its architecture; pass --arch FILE (arch/ has the released ones)")
    structure = load_architecture(architecture, args.ARCH_EPOCH)
    state = original.translate(from_published)
    vars(args).update({**structure.sizes(), "ARCH_PATH": str(folder / "genotype.json"), "ARCH_EPOCH": None})
    net = _network(task, args, original, structure, state)
    epoch = original.entries.pop("epoch", None)
    best: dict[str, Any] = {"net": net.state_dict(), "genotype": structure.to_dict(), "imported_from": str(file)}
    best |= {"epoch": epoch - 1 if _is_epoch(epoch) else None, "score": None}
    resumable = _keep_optimiser(task, args, original, net, epoch, folder)
    original.drop(list(original.entries), "which are not needed")
    save_checkpoint(folder / "best.pth", best | checkpoint_extras(task, args, None))
    write_json(folder / "genotype.json", structure.to_dict())
    write_text(folder / "architecture.svg", structure.to_svg())
    facts = {"genotype": structure.to_dict(), "architecture": {"from": str(architecture)}, "epochs": epoch}
    write_run(folder, args, {**original.facts(), **facts, "parameters": net.count_parameters()})
    script = f"python train_{task.name}.py"
    usable = [f"{script} --RUN val --CKPT_PATH {quoted(folder)}", f"{script} --RUN test --CKPT_PATH {quoted(folder)}"]
    return original, [*usable, f"{script} --RUN train --RESUME --CKPT_PATH {quoted(folder)}"] if resumable else usable


def _is_epoch(value):
    return type(value) is int and value > 0


def _network(
    task: AttentionTask, args: Namespace, original: Original, structure: Architecture, state: dict[str, Any]
) -> MultimodalNet:
    """The network with its weights; its sizes follow from the shapes of the tensors.

    The file does not contain words and answers. Since only their numbers matter here, placeholders are made up.
    """
    needed = ("region_linear.weight", "embedding.weight")
    if missing := [name for name in needed if name not in state]:
        raise UserError(f"{original.path} lacks the tensors of {', '.join(missing)}; expected {NETWORK}")
    (args.hsize, width), (words, size) = (state[name].shape for name in needed)
    answers = len(state.get("head.proj.weight", ()))
    metadata: dict[str, Any] = {"feature_size": width, "dataset": getattr(args, "DATASET", None)}
    metadata["vocabulary"] = {"words": [*SPECIAL_WORDS, *(f"word {n}" for n in range(words - len(SPECIAL_WORDS)))]}
    metadata["answers"] = {"answers": [f"answer {n}" for n in range(answers)]}
    net = task.build_net(Namespace(**{**vars(args), "word_size": size}), metadata, structure, trained=True)
    load_weights(net, original.fit(state, net.state_dict()), original.path)
    return net


def _keep_optimiser(task, args, original, net, epoch, folder):
    """Write ``last.pth`` if the file has the state of Adam; returns whether it did."""
    saved = original.entries.pop("net_optim", None)
    if not saved:
        return False
    state, reason = _adam(args, original, net, saved)
    if not _is_epoch(epoch):
        reason = "because the file has no epoch"
    if args.select_on != "last":
        reason = f"because --select_on {args.select_on} needs the scores of earlier epochs"
    if getattr(args, "neg_every", 1) != 1:
        reason = "because --neg_every would need tables of negatives, which the file lacks"
    if state is None or reason:
        original.drop(["net_optim"], reason)
        return False
    steps = max(int(one["step"]) for one in state["state"].values())
    if steps % epoch:
        original.drop(["net_optim"], f"because {steps} steps are not a multiple of {epoch} epochs")
        return False
    schedule = {"counter": steps, "batches_per_epoch": steps // epoch}
    weights = {
        "optimizer": state,
        "schedule": schedule,
        "scaler": torch.amp.GradScaler("cpu", enabled=False).state_dict(),
    }
    objects = {"net": net.state_dict(), "weights": weights, "selection": {"epoch": epoch - 1, "score": None}}
    if task.name == "itm":
        objects["before_epoch"] = {}  # the tables of negatives, which the next epoch mines
    seed_everything(args.seed)
    about = {"epoch": epoch, "stopped": False, "epochs": args.epochs, "device": "cpu", "seconds": 0.0}
    save_checkpoint(folder / "last.pth", {**about, "objects": objects, "random": [random_state()]})
    record = {"epoch": epoch - 1, "train": {}, "best": False, "seconds": 0.0, "imported": str(original.path)}
    write_text(folder / "log.jsonl", json_text(record) + "\n")
    return True


def _adam(args, original, net, saved):
    """(state dict of our Adam, ""), or (None, why the file's state cannot be used)."""
    keys = list(original.state)
    entries, groups = (saved.get(name) if isinstance(saved, dict) else None for name in ("state", "param_groups"))
    if not isinstance(entries, dict) or not isinstance(groups, list) or len(groups) != 1:
        return None, "because it is not the state of Adam with one group"
    if len(groups[0].get("params", ())) != len(keys):
        return None, f"because it has {len(groups[0].get('params', ()))} parameters, but the network has {len(keys)}"
    # The original gives Adam all parameters in the order of the network, which is that of the state dict.
    moments = dict(zip(keys, map(entries.get, groups[0]["params"]), strict=True))
    wrong = [key for key, one in moments.items() if one is not None and not _fits(one, original.state[key])]
    if wrong or not any(moments.values()):
        return None, f"because its moments do not fit the parameters, first {(wrong or keys)[0]}"
    theirs = {name: key for key in keys for name in _our_name(key)}
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    weights = net.weights()
    adam = torch.optim.Adam(weights, lr=args.lr, betas=(0.9, 0.98), eps=1e-9).state_dict()
    for name in ("lr", "betas", "eps", "weight_decay"):
        adam["param_groups"][0][name] = groups[0].get(name, adam["param_groups"][0][name])
    for number, parameter in enumerate(weights):
        moment = moments.get(theirs.get(names[id(parameter)], ""))
        if moment is not None:
            step = torch.as_tensor(moment["step"], dtype=torch.float32)
            adam["state"][number] = {"step": step, **{name: moment[name] for name in ("exp_avg", "exp_avg_sq")}}
    return adam, ""


def _our_name(key):
    try:
        return list(from_published({key: torch.empty(0)}))
    except UserError:
        return []


def _fits(moment, tensor):
    if not isinstance(moment, dict) or not {"step", "exp_avg", "exp_avg_sq"} <= set(moment):
        return False
    return all(getattr(moment[name], "shape", None) == tensor.shape for name in ("exp_avg", "exp_avg_sq"))
