"""Defaults that a found script inherits from the search or the training that its flags name."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from engine import arguments
from engine.arguments import RecipeParser
from engine.identity import identity_of, parsed_script
from engine.scripts import FAMILIES, stage_of
from models.genotypes import has_genotype, load_genotype
from util.cli import UserError, quoted

# Flags that a found training inherits from the search, in addition to those with INHERITED_ENDINGS.
INHERITED = {"demo", "seed", "device", "amp", "datadir", "small_dataset", "cache_dir"}
INHERITED |= {"backbone_batch", "C", "L", "num_outputs", "step_ops", "chain_cells"}
INHERITED_ENDINGS = ("_cp", "_weights")
# Sizes of the cell. A genotype fixes them; a random genotype inherits them from the search that it is drawn from.
CELL_SIZES = ("steps", "multiplier", "node_steps", "node_multiplier")

# Task of BM-NAS -> a flag that only its scripts have; identifies the task of runs that do not record their script.
SIGNS = {"own": "encoder", "ntu": "ske_cp", "ego": "depth_cp", "mmimdb": "text_cp"}
# The tasks whose scripts are the suite's.
SUITE = {*SIGNS, "vqa", "vgd", "itm"}


def genotype_source(args: Namespace) -> str | None:
    """The file or run folder with the genotype; None for ``--genotype random`` and the baselines."""
    if args.eval_exp_dir:
        return args.eval_exp_dir
    if args.genotype == "random" or args.fusion != "genotype":
        return None
    return args.genotype or args.search_exp_dir


def inherited_defaults(
    inherited: frozenset[str], parser: RecipeParser, args: Namespace, fixed: dict[str, Any]
) -> dict[str, Any]:
    """Defaults from the run that the flags name: dict flag name -> value.

    Args:
        inherited: Flags of the task that are inherited, see `tasks.task.FusionTask`.
        parser, args: The found script's parser, and its arguments so far.
        fixed: Output: the sizes that a genotype fixes are added to this dict.

    Raises:
        UserError: A run folder is missing or of another kind or task, or contradicts ``--recipe``.
    """
    source, recipe = genotype_source(args), getattr(args, "recipe", None)  # not every task has recipes
    if source is not None and has_genotype(source):
        fixed.update(load_genotype(source).sizes())
    run = args.eval_exp_dir or args.search_exp_dir or source
    folder = arguments.run_folder_of(run) if run else None
    if folder is None:
        if args.eval_exp_dir or (args.search_exp_dir and not Path(args.search_exp_dir).exists()):
            raise UserError(f"the run folder {run} does not exist; name the folder that the run printed")
        _check_recipe(parser, recipe, fixed, run)
        return fixed
    saved = arguments.earlier_arguments(folder)
    _check_run_folder(args, folder, saved)
    _check_task(args, folder, saved)
    if saved and args.genotype == "random" and not saved.keys() >= set(CELL_SIZES):
        raise UserError(
            f"--search_exp_dir {run} is not the run of a BM-NAS search; name a run folder of a search script"
        )
    if args.eval_exp_dir:
        own = {"resume", "save", "eval_exp_dir", "search_exp_dir", "device", "num_workers", "parallel", "estimate"}
        defaults = {k: v for k, v in saved.items() if k not in own}
    else:
        names = INHERITED | inherited | set(CELL_SIZES)
        defaults = {k: v for k, v in saved.items() if k in names or k.endswith(INHERITED_ENDINGS)}
    defaults |= fixed
    if recipe != saved.get("recipe"):
        _check_recipe(parser, recipe, defaults, folder)
    # A run that uses another run is written into that run's folder.
    return {**defaults, "out_dir": str(folder)}


def _check_run_folder(args, folder, saved):
    """Check the folder that ``--eval_exp_dir`` or ``--search_exp_dir`` names; ``saved`` are its arguments.

    Raises:
        UserError: It is not a run folder, or a search is named as a training.
    """
    flag = "eval_exp_dir" if args.eval_exp_dir else "search_exp_dir" if args.search_exp_dir else None
    if flag and not saved and not (folder / "best").is_dir():  # runs of the original code have best/
        kind = "training" if args.eval_exp_dir else "search"
        raise UserError(
            f"--{flag} {folder} is not a run folder: it has no args.json; name the folder that the {kind} printed"
        )
    if args.eval_exp_dir and "arch_learning_rate" in saved and "fusion" not in saved:
        raise UserError(
            f"--eval_exp_dir {folder} is a search, whose network contains every candidate; train what it found with "
            f"--search_exp_dir {quoted(folder)}, and name that run folder"
        )


def _check_task(args, folder, saved):
    """Check that the run that ``--eval_exp_dir`` or ``--search_exp_dir`` names is not one of another task of the suite.

    Tasks of users are not checked: their scripts can share runs under any name.

    Raises:
        UserError: It is.
    """
    now = stage_of(parsed_script() or "")
    if now is None or now[2] not in SUITE or not (args.eval_exp_dir or args.search_exp_dir):
        return
    script = identity_of(folder).get("script")
    place = stage_of(script or "")
    family, stage = FAMILIES[0], "training" if "fusion" in saved else "search"
    if place is not None:
        family, stage, task = place
    else:
        task = "" if script else next((name for name, sign in SIGNS.items() if sign in saved), "")
    if task in SUITE and task != now[2]:
        flag = "--eval_exp_dir" if args.eval_exp_dir else "--search_exp_dir"
        kind = "training of one encoder" if stage == "unimodal" else stage
        raise UserError(
            f"{flag} {folder} is a {kind} of {getattr(family, stage).format(task)}; use {family.training.format(task)}"
        )


def _check_recipe(parser, recipe, inherited, source):
    """Check that inherited values do not contradict a recipe: they would override it, but the result would name it.

    Raises:
        UserError: A value differs.
    """
    values = parser.recipes.get(recipe, {})
    names = [name for name in values if name in inherited and inherited[name] != values[name]]
    if names:
        differs = ", ".join(f"--{name} {inherited[name]} (recipe: {values[name]})" for name in names)
        raise UserError(f"--recipe {recipe} does not fit {source}, which was made with {differs}; drop --recipe")
