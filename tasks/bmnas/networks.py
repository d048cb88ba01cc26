"""Networks of every BM-NAS task from the scripts' arguments: supernet, found networks, baselines, updaters."""

import dataclasses
import random
from pathlib import Path

from engine.arguments import run_folder_of
from tasks.bmnas.flags import CELL_SIZES
from util.cli import UserError


def build_search_net(task, args, weights=None):
    """The supernet: frozen backbones and a fusion cell with every edge and operation."""
    from models.bmnas.cells import FusionCell

    backbones = task.build_backbones(args, weights)
    operations = {"step_ops": step_operations(args)}
    fusion = FusionCell.mixed(task.NUM_FEATURES, args.C, args.L, args.drpt, **cell_sizes(args), **operations)
    options = {"backbone_mode": args.backbone_mode, "train_reshape": args.reshape_layers == "trained"}
    return build_net(task, args, backbones, fusion, range(task.NUM_FEATURES), **options)


def cell_sizes(args):
    """Steps and multipliers of the cell and its nodes."""
    return {name: getattr(args, name) for name in CELL_SIZES}


def build_net(task, args, backbones, fusion, used, **kwargs):
    """The complete network around ``fusion``; further arguments go to `FusionNet`."""
    from models.bmnas.fusion_net import FusionNet

    return FusionNet(
        backbones,
        fusion,
        used,
        channels=args.C,
        pool=task.pool(args),
        dropout=args.drpt,
        num_outputs=args.num_outputs,
        input_names=task.INPUT_NAMES,
        backbone_batch=_part(args),
        **kwargs,
    )


def _part(args):
    """Samples that a backbone in evaluation mode computes at a time: never more than there are in a batch."""
    from engine.loading import total_batch

    return min(args.backbone_batch, total_batch(args))


def build_unimodal_net(task, args, weights=None):
    """One backbone with its own head."""
    from models.backbone_net import UnimodalNet

    backbone = task.build_unimodal_backbone(args, weights)
    frozen = args.freeze_backbones and task.MODALITIES[args.modality]
    return UnimodalNet(args.modality, backbone, task.pool(args), frozen=frozen, backbone_batch=_part(args))


def build_updater(task, args, run, net, precision, num_train):
    """The updater of the network's weights: Adam under the cosine schedule."""
    import torch

    from engine.loading import total_batch
    from engine.updates import Updater, data_parallel
    from util.schedules import CosineRestarts

    parameters = net.weights()
    optimizer = torch.optim.Adam(parameters, lr=args.eta_max, weight_decay=args.weight_decay)
    schedule = CosineRestarts(
        args.eta_max, args.eta_min, args.Ti, args.Tm, num_train / total_batch(args), restarts=args.lr_restarts
    )
    parallel = data_parallel(run, precision, find_unused=not net.uses_all_weights())
    options = {"schedule": schedule, "precision": precision, "parallel": parallel, "micro_batch": args.micro_batch}
    return Updater(net, parameters, task.criterion, optimizer, **options)


def step_operations(args):
    """Names of the candidate operations of ``--step_ops``.

    Raises:
        UserError: one of them is unknown, or named twice.
    """
    from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS, STEP_OPERATIONS

    names = tuple(args.step_ops or PUBLISHED_STEP_OPERATIONS)
    if unknown := [name for name in names if name not in STEP_OPERATIONS]:
        raise UserError(f"--step_ops: there is no operation {unknown[0]!r}; known: {', '.join(STEP_OPERATIONS)}")
    if len(set(names)) < len(names):
        raise UserError(f"--step_ops {' '.join(names)}: an operation is named twice; name each once")
    return names


def build_relaxation(args):
    """The search strategy of ``--strategy``; published: a softmax mixture."""
    from search.mixture import SoftmaxMixture
    from search.strategies import build_strategy

    return build_strategy(args.strategy, lambda generator: SoftmaxMixture(), args.seed, args.strategy_option)


def build_alpha_updater(task, args, run, net, precision, relaxation):
    """The updater of the architecture parameters, by the gradients that ``relaxation`` gives them."""
    from engine.updates import Updater, data_parallel
    from search.loops import alpha_optimizer

    optimizer = alpha_optimizer(net.arch_parameters().values(), args.arch_learning_rate, args.arch_weight_decay)
    parallel = data_parallel(run, precision)
    options = {"precision": precision, "parallel": parallel, "micro_batch": args.micro_batch}
    return Updater(net, relaxation.gradient_parameters(), task.criterion, optimizer, **options)


def build_found_net(task, args, frozen, weights=None, genotype=None):
    """The network that the found script's flags name: a genotype's, a random one's, or late fusion.

    Args:
        task, args: The task's module and the found script's arguments.
        frozen: Backbones get no gradients and stay in evaluation mode.
        weights: See `build_backbones`.
        genotype: The genotype to build, instead of what the flags name.

    Returns:
        (network, genotype or None).
    """
    from models.bmnas.cells import FusionCell, LateFusion

    # What a typing mistake can spoil is checked before weights are fetched.
    task.pool(args)
    genotype = None if args.fusion == "late" else genotype or find_genotype(task, args)
    backbones = task.build_backbones(args, weights)
    if genotype is None:
        fusion, used = LateFusion(task.LAST_INPUTS, args.C, args.L), task.LAST_INPUTS
    else:
        fusion, used = FusionCell.fixed(genotype, task.NUM_FEATURES, args.C, args.L, args.drpt), genotype.used_inputs()
    return build_net(task, args, backbones, fusion, used, frozen=frozen), genotype


def find_genotype(task, args):
    """The genotype that ``--genotype`` or ``--search_exp_dir`` names (a file or a run folder), checked.

    Raises:
        UserError: there is none, or it does not fit.
    """
    from models.bmnas.operations import STEP_OPERATIONS
    from models.genotypes import check_genotype, load_genotype, random_genotype

    if args.genotype == "random":
        rng = random.Random(args.seed)
        return random_genotype(
            rng, step_operations(args), num_inputs=task.NUM_FEATURES, inputs=task.INPUT_NAMES, **cell_sizes(args)
        )
    path = args.genotype or args.search_exp_dir
    genotype = dataclasses.replace(load_genotype(path), inputs=task.INPUT_NAMES)
    check_genotype(genotype, STEP_OPERATIONS, task.NUM_FEATURES, path)
    return genotype


def genotype_facts(args):
    """Where the trained genotype comes from, for the result; of a random one the space that it was drawn from."""
    if args.fusion == "late":
        return {"from": "late fusion"}
    if args.genotype != "random":
        return {"from": str(args.genotype or args.search_exp_dir)}
    from models.bmnas.operations import STEP_OPERATIONS

    folder = run_folder_of(args.search_exp_dir) if args.search_exp_dir else None
    searched = folder is not None and (folder / "args.json").is_file()
    space = {"operations": list(STEP_OPERATIONS), **cell_sizes(args)}
    return {"from": "random", "seed": args.seed, "space": space, "space_from": str(folder) if searched else "flags"}


def load_found_net(task, args):
    """The trained network of ``--eval_exp_dir``: a run folder of ours or of the original code.

    Raises:
        UserError: its files are missing or do not fit.
    """
    from models.bmnas.operations import STEP_OPERATIONS
    from models.bmnas.published import from_published
    from models.genotypes import FusionGenotype, check_genotype, load_genotype
    from util.checkpoint import load_checkpoint, load_state_dict_file, load_weights

    path = _first_existing(args.eval_exp_dir, "best.pth", "best/best_test_model.pt")
    if path.name == "best.pth":
        best = load_checkpoint(path)
        if not isinstance(best, dict) or not {"net", "genotype"} <= set(best):
            raise UserError(f"{path} was not written by the found script; name the folder of a finished found training")
        state = best["net"]
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise UserError(f"{path} holds no weights under net; restore the file")
        try:
            genotype = FusionGenotype.from_dict(best["genotype"]) if best["genotype"] else None
        except ValueError as error:
            raise UserError(f"{path} holds no genotype: {error}; restore the file") from None
    else:
        genotype = load_genotype(_first_existing(args.eval_exp_dir, "best/best_test_genotype.pkl"))
        state = from_published(load_state_dict_file(path), task.PUBLISHED_NAMES, genotype)
    if genotype is not None:
        check_genotype(genotype, STEP_OPERATIONS, task.NUM_FEATURES, args.eval_exp_dir)
    net, _ = build_found_net(task, args, frozen=True, weights="random", genotype=genotype)
    load_weights(net, state, path)
    return net


def _first_existing(folder, *names):
    for name in names:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise UserError(f"{folder} has no {' or '.join(names)}; name the folder of a finished run")
