"""Networks of every BM-NAS task from the scripts' arguments: the supernet, found networks, baselines."""

from __future__ import annotations

import dataclasses
import random
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.arguments import run_folder_of
from engine.identity import search_identity
from engine.loading import total_batch
from engine.resuming import kept_genotype
from models.backbone_net import UnimodalNet
from models.bmnas.baselines import ConcatFusion
from models.bmnas.cells import FusionCell
from models.bmnas.fusion_net import FusionNet
from models.bmnas.late_fusion import LateFusion
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS, STEP_OPERATIONS
from models.bmnas.published import from_published
from models.genotypes import FusionGenotype, check_genotype, load_genotype, random_genotype
from tasks.bmnas.inheritance import CELL_SIZES
from tasks.task import Backbone, check_parts
from util.checkpoint import load_checkpoint, load_state_dict_file, load_weights
from util.cli import UserError
from util.hashes import short_hash

if TYPE_CHECKING:
    from engine.run import Run
    from tasks.task import FusionTask


def build_search_net(task: FusionTask, args: Namespace, backbones: Mapping[str, Any]) -> FusionNet:
    """The supernet: frozen backbones, and a fusion cell with every edge and candidate operation."""
    space: dict[str, Any] = {**cell_sizes(args), "step_ops": step_operations(args), "chain": args.chain_cells}
    cell = FusionCell.mixed(task.num_features, args.C, args.L, args.drpt, **space)
    options = {"backbone_mode": args.backbone_mode, "train_reshape": args.reshape_layers == "trained"}
    return build_net(task, args, backbones, cell, range(task.num_features), **options)


def cell_sizes(args: Namespace) -> dict[str, int]:
    """Steps and multipliers of the cell and its nodes: name of the flag -> value."""
    return {name: getattr(args, name) for name in CELL_SIZES}


def build_net(
    task: FusionTask,
    args: Namespace,
    backbones: Mapping[str, Any],
    fusion: FusionCell | LateFusion,
    used: Iterable[int],
    frozen: bool = True,
    **options: Any,
) -> FusionNet:
    """The complete network around a fusion part.

    Args:
        task, args: As in the recipes.
        backbones: Name -> `tasks.task.Backbone`.
        fusion: The fusion part.
        used: Indices of the features that it reads.
        frozen: Whether to freeze the backbones, except those that are ``trained``.
        options: Further arguments of `FusionNet`.

    Raises:
        UserError: A backbone lacks attributes or methods.
    """
    # Without the flag, or with 0, only inputs that may be missing in the data have learned replacements.
    dropout = getattr(args, "modality_dropout", 0.0)
    for name, backbone in backbones.items():
        check_parts(backbone, Backbone, f"the backbone {name} of {task.name}")
    return FusionNet(
        backbones,
        fusion,
        used,
        channels=args.C,
        pool=task.pool(args),
        dropout=args.drpt,
        num_outputs=args.num_outputs,
        input_names=task.feature_names,
        backbone_batch=min(args.backbone_batch, total_batch(args)),
        frozen=[name for name, backbone in backbones.items() if frozen and not getattr(backbone, "trained", False)],
        optional=task.modalities if dropout else task.optional,
        modality_dropout=dropout,
        **options,
    )


def build_unimodal_net(task: FusionTask, args: Namespace, weights: str | None = None) -> UnimodalNet:
    """The network of ``--modality``: one backbone with its head; ``weights`` as in `tasks.task.FusionTask`."""
    backbone = task.build_unimodal_backbone(args, weights)
    frozen = args.freeze_backbones and task.modalities[args.modality].head_only
    size = min(args.backbone_batch, total_batch(args))
    return UnimodalNet(args.modality, backbone, task.pool(args), frozen=frozen, backbone_batch=size)


def step_operations(args: Namespace) -> tuple[str, ...]:
    """Names of the candidate operations of ``--step_ops``.

    Raises:
        UserError: A name is unknown or given twice.
    """
    names = tuple(args.step_ops or PUBLISHED_STEP_OPERATIONS)
    if unknown := [name for name in args.step_ops or () if name not in STEP_OPERATIONS]:
        known = ", ".join(STEP_OPERATIONS)
        raise UserError(f"--step_ops: there is no operation {unknown[0]!r}; known: {known}, and module:Class")
    if len(set(names)) < len(names):
        raise UserError(f"--step_ops {' '.join(names)}: an operation is named twice; name each operation once")
    return names


def find_genotype(task: FusionTask, args: Namespace) -> FusionGenotype | None:
    """The genotype that the found script's flags name (a file, a run folder, random); None for a baseline.

    A resumed run keeps its genotype, also if its search has changed or is not there any more.

    Raises:
        UserError: There is no genotype, or it does not fit the task.
    """
    # Checks --L, so that a wrong value is reported before weights are downloaded.
    task.pool(args)
    if args.fusion != "genotype":
        return None
    if args.genotype == "random":
        rng = random.Random(args.seed)
        space: dict[str, Any] = {**cell_sizes(args), "chain": args.chain_cells, "inputs": task.feature_names}
        return random_genotype(rng, step_operations(args), num_inputs=task.num_features, **space)
    path = kept_genotype(args, ("genotype", "search_exp_dir")) or args.genotype or args.search_exp_dir
    genotype = dataclasses.replace(load_genotype(path), inputs=task.feature_names)
    check_genotype(genotype, STEP_OPERATIONS, task.num_features, path)
    return genotype


def build_found_net(
    task: FusionTask, args: Namespace, backbones: Mapping[str, Any], genotype: FusionGenotype | None, frozen: bool
) -> FusionNet:
    """The network of a genotype; without a genotype, that of the baseline that ``--fusion`` names.

    Args:
        task, args: The `FusionTask` and the found script's arguments.
        backbones: Name -> `tasks.task.Backbone`.
        genotype: See `find_genotype`.
        frozen: Whether backbones receive no gradients and stay in evaluation mode, except those that are ``trained``.
    """
    fusion: FusionCell | LateFusion
    used: Sequence[int]
    if genotype is None:
        used = task.last_features
        late = args.fusion != "concat"
        fusion = LateFusion(used, args.C, args.L) if late else ConcatFusion(used, args.C, args.L, args.drpt)
    else:
        fusion, used = FusionCell.fixed(genotype, task.num_features, args.C, args.L, args.drpt), genotype.used_inputs()
    return build_net(task, args, backbones, fusion, used, frozen=frozen)


def keep_genotype(run: Run, genotype: FusionGenotype | None) -> None:
    """Write a picture of the genotype into the run folder, and record it as an input of the run, if there is one."""
    if genotype is not None:
        run.write("genotype.svg", genotype.to_svg())
        structure = {part: genotype.to_dict()[part] for part in ("edges", "steps", "concat")}
        run.depends_on("genotype", short_hash(structure), "--genotype or --search_exp_dir")


def genotype_facts(args: Namespace) -> dict[str, Any]:
    """Facts for a result: the origin of the genotype, and for a random one the space that it was drawn from."""
    if args.fusion != "genotype":
        return {"from": f"{args.fusion} fusion"}
    if args.genotype != "random":
        source = args.genotype or args.search_exp_dir
        return {"from": str(source), **search_identity(source, args.resume)}
    folder = run_folder_of(args.search_exp_dir) if args.search_exp_dir else None
    searched = folder is not None and (folder / "args.json").is_file()
    space: dict[str, Any] = {"operations": list(step_operations(args)), **cell_sizes(args)}
    space |= {"chain_cells": True} if args.chain_cells else {}
    return {"from": "random", "seed": args.seed, "space": space, "space_from": str(folder) if searched else "flags"}


def load_found_net(task: FusionTask, args: Namespace) -> FusionNet:
    """The trained network of ``--eval_exp_dir``, a run folder of ours or of the original code.

    Raises:
        UserError: Files of the run folder are missing or do not fit.
    """
    path = _first_existing(args.eval_exp_dir, "best.pth", "best/best_test_model.pt")
    if path.name == "best.pth":
        best = load_checkpoint(path)
        if not isinstance(best, dict) or not {"net", "genotype"} <= set(best):
            raise UserError(f"{path} was not written by the found script; name the folder of a finished found training")
        state = best["net"]
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise UserError(f"{path} has no weights under net; restore the file")
        try:
            genotype = FusionGenotype.from_dict(best["genotype"]) if best["genotype"] else None
        except ValueError as error:
            raise UserError(f"{path} has no valid genotype: {error}; restore the file") from None
    else:
        genotype = load_genotype(_first_existing(args.eval_exp_dir, "best/best_test_genotype.pkl"))
        state = from_published(load_state_dict_file(path), task.published_names, genotype)
    task.pool(args)
    if genotype is not None:
        check_genotype(genotype, STEP_OPERATIONS, task.num_features, args.eval_exp_dir)
    net = build_found_net(task, args, task.build_backbones(args, weights="random"), genotype, frozen=True)
    load_weights(net, state, path)
    return net


def _first_existing(folder, *names):
    for name in names:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise UserError(f"{folder} has no {' or '.join(names)}; name the folder of a finished run")
