"""Trains many found networks with the same operations together: the recipe of the found scripts on `StackedNets`."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from engine.loading import total_batch
from engine.training import Evaluation, train_one_epoch
from engine.updates import OptimizerStep, Precision
from models.bmnas.stacked import StackedAccuracy, StackedNets, summed_cross_entropy
from tasks.bmnas import networks
from util.random_state import seed_everything
from util.schedules import CosineRestarts

if TYPE_CHECKING:
    from engine.loading import BatchLoader
    from models.bmnas.fusion_net import FusionNet
    from models.genotypes import FusionGenotype
    from tasks.task import FusionTask


def initial_nets(task: FusionTask, args: Namespace, genotypes: Sequence[FusionGenotype]) -> list[FusionNet]:
    """The network of each genotype, with the initial weights of a found script with this ``--seed``."""
    seed_everything(args.seed)
    backbones = task.build_backbones(args)
    state, nets = torch.get_rng_state(), []
    for genotype in genotypes:
        torch.set_rng_state(state)
        nets.append(networks.build_found_net(task, args, backbones, genotype, frozen=True))
    return nets


def train_stacked(
    nets: Sequence[FusionNet], args: Namespace, loaders: Mapping[str, BatchLoader]
) -> list[dict[str, Any]]:
    """Train networks that classify samples into one class for ``args.epochs`` epochs, and score every epoch.

    Args:
        nets: See `StackedNets`. Their own weights do not change.
        args: A found script's arguments.
        loaders: ``train``, ``dev`` and ``test``.

    Returns:
        For each network ``dev``, its correct samples after each epoch, ``epoch``, the first with the most, ``test``,
        the correct samples then, and its share of the ``seconds``.

    Raises:
        engine.training.DivergedError: A loss is not finite.
    """
    started, stacked = time.perf_counter(), StackedNets(nets)
    metric, precision = StackedAccuracy(), Precision()
    adam = torch.optim.Adam(stacked.parameters(), lr=args.eta_max, weight_decay=args.weight_decay)
    count: Any = loaders["train"].dataset
    batches = len(count) / total_batch(args)
    schedule = CosineRestarts(args.eta_max, args.eta_min, args.Ti, args.Tm, batches, restarts=args.lr_restarts)
    weights = OptimizerStep(stacked, summed_cross_entropy, adam, schedule=schedule)
    device = next(stacked.parameters()).device
    scorers = {
        split: Evaluation(
            loaders[split], summed_cross_entropy, metric, device=device, precision=precision, description=split, order=0
        )
        for split in ("dev", "test")
    }
    correct: dict[str, list[torch.Tensor]] = {"dev": [], "test": []}
    for epoch in range(args.epochs):
        train_one_epoch(weights, loaders["train"], metric, epoch=epoch, device=device)
        for split, scorer in scorers.items():
            scores: Any = scorer(stacked)
            correct[split].append(scores["correct"])
    dev, test = (torch.stack(correct[split], dim=1) for split in ("dev", "test"))  # (G, epochs)
    seconds = (time.perf_counter() - started) / len(nets)
    results = []
    for own, tested in zip(dev.tolist(), test.tolist(), strict=True):
        epoch = own.index(max(own))
        results.append({"dev": own, "epoch": epoch, "test": tested[epoch], "seconds": round(seconds, 4)})
    return results
