"""Loads trained networks from run folders: for notebooks, predictions and export.

from tasks.loading import load_found
model = load_found("final_exp/own/eval-EXP-...")
model.predict({"image": "photo.jpg", "text": "a few words"})
"""

from __future__ import annotations

import importlib
import importlib.util
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.arguments import RecipeParser, earlier_arguments, run_folder_of
from engine.scripts import stage_of
from tasks import own, own_encoders
from tasks.bmnas import flags
from tasks.bmnas.inheritance import SIGNS
from tasks.bmnas.networks import build_unimodal_net, load_found_net
from tasks.found_models import AttentionModel, FusionModel, OwnModel
from tasks.mmnas import checkpoints
from tasks.task import AttentionTask, FusionTask
from util.checkpoint import load_checkpoint, load_weights
from util.cli import UserError, quoted
from util.files import read_json
from util.registry import import_class

_NO_MODULE = (
    "is in no module of tasks/; pass the module that defines its TASK as --task MODULE, or in Python "
    "load_found(run, task=TASK)"
)


def load_found(
    run: Path | str,
    device: str | torch.device = "cpu",
    *,
    task: FusionTask | AttentionTask | None = None,
    plain: bool = False,
) -> FusionModel | AttentionModel:
    """Load the trained network of a run, in evaluation mode.

    Weights, architecture and the settings of the encoders come from the run folder; data are not needed.

    Args:
        run: Run folder of a found or unimodal training of BM-NAS, or of a training of MMNas; or its ``best.pth``.
        device: Device of the network.
        task: The `FusionTask` or `AttentionTask`, if it is not in a module of ``tasks/``.
        plain: MMNas: load the network without its fast form for CPUs, which cannot be exported.

    Raises:
        UserError: The run folder is not that of a training, or something is missing or damaged.
    """
    folder = run_folder_of(run)
    if folder is None:
        raise UserError(f"the run folder {run} does not exist; name the folder that the training printed")
    saved = earlier_arguments(folder)
    if not saved:
        raise UserError(
            f"{folder} has no args.json; name a run folder of this suite (networks of the original code can be scored: "
            "--eval_exp_dir, --CKPT_PATH)"
        )
    model: FusionModel | AttentionModel
    if "hsize" in saved:
        model = _attention_model(folder, saved, plain, task)
    else:
        _check_is_training(folder, saved)
        model = _fusion_model(folder, saved, task)
    return model.to(device).eval()


def _check_is_training(folder, saved):
    """Raise a `UserError` for runs that have not trained a network: searches, tests, and trainings without an epoch."""
    if "arch_learning_rate" in saved and "fusion" not in saved:
        raise UserError(
            f"{folder} is a search, whose network contains every candidate; train what it found with "
            f"main_darts_found_*.py --search_exp_dir {quoted(folder)}, and name that run folder"
        )
    if saved.get("eval_exp_dir"):
        raise UserError(f"{folder} only tested {saved['eval_exp_dir']}; name that folder")
    if not (folder / "best.pth").is_file():
        raise UserError(f"{folder} has no best.pth: no epoch is finished; continue it with --resume {quoted(folder)}")


def task_name(saved: Mapping[str, Any], folder: Path | str) -> str:
    """Name of the module in ``tasks/`` that defines the BM-NAS task of a run.

    Raises:
        UserError: There is no such module.
    """
    place = stage_of(_script(Path(folder)))
    if place is not None and _is_module(place[2]):
        return place[2]
    for name, sign in SIGNS.items():
        if place is None and sign in saved:
            return name
    raise UserError(f"{folder} is a run of a task{f', {place[2]},' if place is not None else ''} that {_NO_MODULE}")


def _is_module(name):
    return name.isidentifier() and importlib.util.find_spec(f"tasks.{name}") is not None


def import_task(module: str) -> FusionTask | AttentionTask:
    """Import the task that a module defines as ``TASK``.

    Args:
        module: Dotted name of the module.

    Raises:
        UserError: There is no such module, or no task in it.
    """
    task = import_class(f"{module}:TASK", "task")
    if not isinstance(task, (FusionTask, AttentionTask)):
        raise UserError(f"--task {module}: TASK is neither a FusionTask nor an AttentionTask of tasks/task.py")
    return task


def _script(folder):
    """Path of the script that made a run; "" if it is not recorded."""
    path = folder / "run.json"
    about = read_json(path) if path.is_file() else {}
    return str(about.get("script") or "") if isinstance(about, dict) else ""


def _fusion_model(folder, saved, task):
    name = "" if task is not None else task_name(saved, folder)
    if name not in ("", "own"):
        task = import_task(f"tasks.{name}")
    if isinstance(task, AttentionTask):
        raise UserError(f"{folder} is a run of BM-NAS, but the task {task.name} is one of MMNas; name another task")
    args = Namespace(**{**_defaults(name, saved), **saved, "eval_exp_dir": str(folder), "resume": None})
    split = None
    if name == "own":
        task, split = own.saved_task(args, folder)
    # The checkpoint replaces the random weights; the generator is restored, so that loading changes no later draws.
    with torch.random.fork_rng(devices=[]):
        net = load_found_net(task, args) if "fusion" in saved else _unimodal_net(task, args, folder)
    facts = (net, task, args, folder)
    return FusionModel(*facts, classes=_classes(folder)) if split is None else OwnModel(*facts, split=split)


def _defaults(name, saved):
    """Defaults of all flags, for those that an older version did not record."""
    if not name:
        return {}
    module = importlib.import_module(f"tasks.{name}")
    parser, backbones = module.recipe_parser("")
    if "fusion" in saved:
        if name == "own":
            own_encoders.add_training_flag(backbones)
        flags.add_found_flags(parser, backbones)
    else:
        flags.add_unimodal_flags(parser, backbones, own.ANY_MODALITY if name == "own" else module.TASK.modalities)
    return _values(parser)


def _values(parser: RecipeParser) -> dict[str, Any]:
    return {action.dest: action.default for action in parser._actions if action.dest != "help"}


def _unimodal_net(task, args, folder):
    path = folder / "best.pth"
    best = load_checkpoint(path)
    if not isinstance(best, dict) or not isinstance(best.get("net"), dict):
        raise UserError(f"{path} has no weights under net; restore the file")
    net = build_unimodal_net(task, args, "random")
    load_weights(net, best["net"], path)
    return net


def _classes(folder):
    """Names of the classes in the result of a training; [] without one."""
    path = folder / "result.json"
    result = read_json(path) if path.is_file() else {}
    return list(result.get("classes", ())) if isinstance(result, dict) else []


def _attention_model(folder, saved, plain, task):
    if "alpha_start" in saved:
        raise UserError(
            f"{folder} is a search, whose network contains every candidate; train what it found with train_*.py "
            f"--ARCH_PATH {quoted(folder)}, and name that run folder"
        )
    if saved.get("RUN", "train") != "train":
        raise UserError(f"{folder} only scored {saved.get('CKPT_PATH')}; name that folder")
    content = load_checkpoint(folder / "best.pth")
    name = str(content.get("task") if isinstance(content, dict) else None).rpartition(".")[2]
    if task is None:
        if not _is_module(name):
            raise UserError(f"{folder / 'best.pth'} is not a network of MMNas, or is of a task that {_NO_MODULE}")
        task = import_task(f"tasks.{name}")
    if not isinstance(task, AttentionTask):
        raise UserError(f"{folder} is a run of MMNas, but the task {task.name} is one of BM-NAS; name another task")
    args = Namespace(**{**saved, "CKPT_PATH": str(folder), "ARCH_PATH": None, "compile": plain})
    checkpoint = checkpoints.read_checkpoint(task, args)
    for key, value in checkpoint.arguments.items():
        setattr(args, key, value)
    net = checkpoints.load_net(task, args, checkpoint, None)
    return AttentionModel(net, task, args, folder, checkpoint)


def load_task(name: str, run: Path | str, device: str | torch.device = "cpu") -> FusionModel:
    """Like `load_found`, but only for runs of the BM-NAS task ``name``.

    Raises:
        UserError: The run is of another task.
    """
    model = load_found(run, device)
    own_name = "own" if isinstance(model, OwnModel) else model.task.name
    if own_name != name or not isinstance(model, FusionModel):
        raise UserError(f"--run {run} is a run of {own_name}, not of {name}; use predict_{own_name}.py")
    return model
