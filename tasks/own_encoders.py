"""The encoders for your own data: their flags, and the networks that the flags describe."""

from __future__ import annotations

import dataclasses
from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from engine import arguments
from models.encoders.build import ENCODERS, Plan, build_encoder
from util.cli import UserError

if TYPE_CHECKING:
    from datasets.own import Manifest
    from models.encoders.base import Encoder
    from tasks.own_split import Split

# Flags that trainings inherit from a search; flags that end in _weights are inherited anyway.
INHERITED = frozenset({"encoder", "taps", "max_tokens", "max_seconds", "word_vectors", "train_encoders"})


def add_encoder_flags(group: _ArgumentGroup) -> None:
    """Add the choice of encoders, their weights and taps."""
    kinds = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in ENCODERS.items())
    group.add_argument(
        "--encoder",
        action=arguments.Assignments,
        metavar="NAME=ENCODER",
        help=f"encoders; by default the first of each kind. {kinds}. mlp, conv, words and logmel accept widths, e.g. "
        "mlp:128,64; your own encoder is module:Class",
    )
    group.add_argument(
        "--encoder_weights",
        "--weights",
        action=arguments.Assignments,
        metavar="NAME=WEIGHTS",
        help="a run folder of main_unimodal_own.py, a file with weights of the library, default (the library's "
        "published weights) or none (random)",
    )
    group.add_argument(
        "--taps",
        action=arguments.Assignments,
        metavar="NAME=0,2,4",
        help="layers whose features the fusion may read (default: up to four, spread over the depth)",
    )
    group.add_argument(
        "--max_tokens", type=arguments.positive_int, default=128, help="words of a text; more are cut off"
    )
    group.add_argument(
        "--max_seconds", type=arguments.positive, default=10.0, help="seconds of a sound; more are cut off"
    )
    group.add_argument(
        "--word_vectors",
        metavar="FILE",
        help="GloVe .txt, .npz or spaCy package for the encoder words (default: random)",
    )


def add_training_flag(group: _ArgumentGroup) -> None:
    """Add the choice of the encoders that are trained with the fusion."""
    group.add_argument(
        "--train_encoders",
        choices=("auto", "all", "none"),
        default="auto",
        help="train encoders with the fusion; auto: those that start with random weights",
    )


def plans(args: Namespace, manifest: Manifest) -> dict[str, Plan]:
    """Modality -> `Plan` of its encoder, from the flags. Weights from a run folder also set the encoder and the taps.

    Raises:
        UserError: A flag names an unknown modality or encoder, or invalid taps.
    """
    flags = {name: arguments.as_dict(getattr(args, name)) for name in ("encoder", "encoder_weights", "taps")}
    for flag, given in flags.items():
        if unknown := sorted(set(given) - set(manifest.modalities)):
            raise UserError(
                f"--{flag} {unknown[0]}={given[unknown[0]]}: {args.datadir} has no modality {unknown[0]}, but "
                f"{', '.join(manifest.modalities)}"
            )
    made = {}
    for name, modality in manifest.modalities.items():
        plan = Plan(name, modality.kind, modality.size, ENCODERS[modality.kind][0])
        plan = dataclasses.replace(plan, weights=flags["encoder_weights"].get(name, plan.weights))
        values = {**_earlier(plan), **{flag: flags[flag][name] for flag in ("encoder", "taps") if name in flags[flag]}}
        if "taps" in values:
            values["taps"] = _taps(name, values["taps"])
        limits = {"max_tokens": args.max_tokens, "max_seconds": args.max_seconds}
        made[name] = dataclasses.replace(plan, **values, **limits)
        made[name].check()
    return made


def _earlier(plan):
    """Encoder and taps of the unimodal training whose weights a plan uses; {} if they are not from a run folder."""
    folder = arguments.run_folder_of(plan.file) if plan.file is not None else None
    saved = arguments.earlier_arguments(folder) if folder else {}
    given = {flag: arguments.as_dict(saved.get(flag)) for flag in ("encoder", "taps")}
    return {flag: values[plan.modality] for flag, values in given.items() if plan.modality in values}


def _taps(name, text):
    parts = text.split(",")
    if not all(part.isdigit() for part in parts):
        raise UserError(f"--taps {name}={text}: expected numbers of layers, such as {name}=0,2,4")
    return tuple(map(int, parts))


def build_encoders(
    args: Namespace,
    made: Mapping[str, Plan],
    split: Split,
    names: Iterable[str],
    *,
    pool: tuple[int, int],
    follows: bool = False,
) -> dict[str, Encoder]:
    """Build the encoders of the named modalities.

    Args:
        args: The script's arguments.
        made: From `plans`.
        split: Facts about the train split.
        names: Modalities.
        pool: (rows, columns) of features with positions.
        follows: Whether a checkpoint of the complete network is loaded next.
    """
    encoders = {}
    for name in names:
        plan = made[name]
        words = split.words(plan) if plan.name == "words" else None
        options: dict[str, Any] = {"num_outputs": args.num_outputs, "dropout": args.drpt, "pool": pool}
        encoders[name] = build_encoder(plan, words=words, follows=follows, **options)
        encoders[name].trained = is_trained(args, plan)
    return encoders


def is_trained(args: Namespace, plan: Plan) -> bool:
    """Whether an encoder is trained with the fusion."""
    return {"all": True, "none": False, "auto": not plan.starts_trained}[getattr(args, "train_encoders", "auto")]
