"""Imports files of the original BM-NAS: backbones, found networks, and genotypes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bmnas.operations import STEP_OPERATIONS
from models.bmnas.published import from_published
from models.genotypes import FusionGenotype, check_genotype, load_genotype
from tasks.bmnas.networks import build_found_net
from tasks.importing import Original, read_original, write_run
from util.checkpoint import load_weights, save_checkpoint
from util.cli import UserError, quoted
from util.files import write_text

if TYPE_CHECKING:
    from tasks.task import FusionTask

# Files to import from a run folder of the original; names of the genotype next to a network.
NETWORKS = ("best/best_test_model.pt", "best/best_genotype.pkl", "best/best_test_genotype.pkl")
GENOTYPES = ("best_test_genotype.pkl", "best_genotype.pkl")
MAX_GENOTYPE_BYTES = 2**20

# Kind of run (search, found, unimodal) -> arguments of its script, parsed from the command line.
Arguments = Callable[[str], Namespace]


def import_fusion(
    task: FusionTask, arguments: Arguments, file: Path, genotype: str | None, folder: Path
) -> tuple[Original | None, list[str]]:
    """Convert a file of the original into a run folder.

    Args:
        task: The `FusionTask`.
        arguments: See `Arguments`.
        file: A checkpoint, a genotype, or a run folder of the original.
        genotype: File with the genotype of a network; None: the one next to the network.
        folder: The run folder to write.

    Returns:
        (The file, or None for a genotype; commands that can use the folder.)

    Raises:
        UserError: The file does not belong to this task, or is incomplete.
    """
    if file.is_dir():
        names = [name for name in NETWORKS if (file / name).is_file()]
        if not names:
            raise UserError(f"--file {file} is a folder without {' or '.join(NETWORKS)}; name a file")
        file = file / names[0]
    is_genotype = file.suffix == ".json" or (file.suffix == ".pkl" and file.stat().st_size < MAX_GENOTYPE_BYTES)
    if is_genotype:
        _refuse(genotype, file, "a genotype itself")
        return None, _import_genotype(task, arguments("search"), file, folder)
    original = read_original(file)
    if not any(key.startswith("fusion_net.") for key in original.state):
        _refuse(genotype, file, "a backbone, which has no genotype")
        original.drop(list(original.entries), "which a backbone does not need")
        return original, _import_backbone(task, arguments("unimodal"), original, folder)
    original.drop(list(original.entries), "which a test does not need")
    return original, _import_network(task, arguments("found"), original, genotype, folder)


def _refuse(genotype, file, what):
    if genotype is not None:
        raise UserError(f"--genotype {genotype}: --file {file} is {what}; drop --genotype")


def _keep_genotype(task, genotype, source, folder):
    check_genotype(genotype, STEP_OPERATIONS, task.num_features, source)
    named = FusionGenotype(genotype.edges, genotype.steps, genotype.concat, task.feature_names)
    named.save(folder / "genotype.json")
    write_text(folder / "genotype.svg", named.to_svg())
    return named


def _import_genotype(task, args, file, folder):
    genotype = _keep_genotype(task, load_genotype(file), file, folder)
    vars(args).update(genotype.sizes())
    original = Original(file, {}, {})
    write_run(folder, args, {**original.facts(), "genotype": genotype.to_dict()})
    return [f"python main_darts_found_{task.name}.py --search_exp_dir={quoted(folder)}"]


def _import_network(task, args, original, genotype, folder):
    if any("._ops." in key for key in original.state):
        raise UserError(
            f"--file {original.path} is the supernet of a search, which does not contain the architecture that was "
            "found; pass the search's best_genotype.pkl as --file instead, and train that"
        )
    found = _genotype_beside(original.path) if genotype is None else Path(genotype)
    structure = load_genotype(found)
    check_genotype(structure, STEP_OPERATIONS, task.num_features, found)
    state = original.translate(lambda one: from_published(one, task.published_names, structure))
    sizes = _sizes(original, state, structure)
    vars(args).update({**sizes, "genotype": str(folder / "genotype.json")})
    net = build_found_net(task, args, task.build_backbones(args, weights="random"), structure, frozen=True)
    load_weights(net, original.fit(state, net.state_dict()), original.path)
    named = _keep_genotype(task, structure, found, folder)
    best = {"net": net.state_dict(), "genotype": named.to_dict(), "epoch": None, "score": None}
    save_checkpoint(folder / "best.pth", best)
    facts = {"genotype": named.to_dict(), "architecture": {"from": str(found)}, "parameters": net.count_parameters()}
    write_run(folder, args, {**original.facts(), **facts})
    return [f"python main_darts_found_{task.name}.py --eval_exp_dir={quoted(folder)}"]


def _genotype_beside(path):
    for name in GENOTYPES:
        if (path.parent / name).is_file():
            return path.parent / name
    raise UserError(
        f"{path} does not contain its architecture, and there is no {' or '.join(GENOTYPES)} next to it; pass "
        "--genotype FILE"
    )


def _sizes(original, state, genotype):
    """The flags that follow from the shapes of the tensors and from the genotype."""
    needed = ("fusion.norm.weight", "classifier.weight")
    if missing := [name for name in needed if name not in state]:
        raise UserError(f"{original.path} lacks the tensors of {', '.join(missing)}; expected a complete network")
    rows, length = state[needed[0]].shape
    sizes = {"C": rows // len(genotype.concat), "L": length, "num_outputs": len(state[needed[1]])}
    return sizes | genotype.sizes()


def _import_backbone(task, args, original, folder):
    faults = []
    for name in task.modalities:
        args.modality = name
        net = task.build_unimodal_backbone(args, "random")
        classes = _classes(net.state_dict(), original.state, args.num_outputs)
        if classes is None:
            missing = [key for key in net.state_dict() if key not in original.state]
            faults.append(f"it lacks {len(missing)} tensors of the {name} network, or some have another shape")
            continue
        if classes != args.num_outputs:
            args.num_outputs = classes
            net = task.build_unimodal_backbone(args, "random")
        load_weights(net, original.fit(original.state, net.state_dict()), original.path)
        save_checkpoint(folder / "backbone.pth", net.state_dict())
        write_run(folder, args, {**original.facts(), "modality": name})
        flag = {"skeleton": "ske"}.get(name, name)
        return [f"python main_darts_searchable_{task.name}.py --{flag}_cp {quoted(folder)}"]
    raise UserError(f"{original.path} is not a backbone of {task.name}: {'; '.join(faults)}")


def _classes(own: dict[str, Any], state: dict[str, Any], classes: int) -> int | None:
    """Number of classes of the head in ``state``; None if the state dict differs from ``own`` in anything else."""
    rows = set()
    for key, tensor in own.items():
        if key.endswith(".num_batches_tracked"):
            continue
        if key not in state:
            return None
        ours, theirs = tuple(tensor.shape), tuple(state[key].shape)
        if ours != theirs:
            if not theirs or ours[1:] != theirs[1:] or ours[0] != classes:
                return None
            rows.add(theirs[0])
    return rows.pop() if len(rows) == 1 else None if rows else classes
