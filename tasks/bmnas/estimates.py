"""``--estimate``: memory and time of a search, a found training or a unimodal training, from the shapes of its data."""

from __future__ import annotations

import os
import random
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from engine.estimate import Simulation, flops_per_second, report, seconds_to_read
from engine.loading import reading_processes, total_batch
from engine.updates import OptimizerStep, Precision
from search.relaxation import ARCHITECTURE, SoftmaxMixture
from search.strategies import is_black_box, strategy_of
from tasks.bmnas import networks
from tasks.bmnas.trainings import fusion_space
from util.cli import UserError
from util.distributed import init_distributed

if TYPE_CHECKING:
    from tasks.task import FusionTask, LabelledData


def estimate_search(task: FusionTask, args: Namespace, train: LabelledData, dev: LabelledData) -> dict[str, Any]:
    """Estimate memory and time of a search's epochs; prints a table and returns it as plain data.

    For a search by trainings, the estimate is of an epoch of one candidate. It takes ``args.epochs`` such epochs.
    """
    if is_black_box(args):
        genotype = fusion_space(task, args).sample(random.Random(args.seed))

        def build():
            backbones = task.build_backbones(args, weights="random")
            return networks.build_found_net(task, args, backbones, genotype, frozen=True)

        return _estimate_training(task, args, {train.split: train, dev.split: dev}, (train.split,), build)
    estimate = _Estimate(task, args, (train, dev))
    net = networks.build_search_net(task, args, task.build_backbones(args, weights="random"))
    relaxation = strategy_of(args, SoftmaxMixture).attach(net)
    relaxation.draw(ARCHITECTURE)
    with estimate.simulation as simulation:
        simulation.adopt(net)
        weights = estimate.step(net, net.weights())
        alphas = estimate.step(net, relaxation.gradient_parameters())
        simulation.hold_adam([*weights.parameters, *alphas.parameters])
        for data in (train, dev):
            estimate.features(net, data)
        estimate.training("weight steps, an epoch", net, weights, train)
        estimate.training("architecture steps, an epoch", net, alphas, dev)
    return estimate.report()


def estimate_found(
    task: FusionTask, args: Namespace, data: Mapping[str, LabelledData], trained: Sequence[str]
) -> dict[str, Any]:
    """Like `estimate_search`, for a found training; ``trained``: the splits that it trains on."""

    def build():
        genotype, backbones = networks.find_genotype(task, args), task.build_backbones(args, weights="random")
        return networks.build_found_net(task, args, backbones, genotype, frozen=args.freeze_backbones)

    return _estimate_training(task, args, data, trained, build)


def estimate_unimodal(task: FusionTask, args: Namespace, data: Mapping[str, LabelledData]) -> dict[str, Any]:
    """Like `estimate_search`, for a unimodal training."""
    return _estimate_training(
        task, args, data, ("train",), lambda: networks.build_unimodal_net(task, args, weights="random")
    )


def _estimate_training(task, args, data, trained, build):
    estimate = _Estimate(task, args, data.values())
    net = build()
    with estimate.simulation as simulation:
        simulation.adopt(net)
        weights = estimate.step(net, net.weights())
        simulation.hold_adam(weights.parameters)
        for dataset in data.values():
            estimate.features(net, dataset)
        for split, dataset in data.items():
            if split in trained:
                estimate.training(f"training on {split}, an epoch", net, weights, dataset)
            else:
                estimate.evaluation(f"evaluation on {split}", net, dataset)
    return estimate.report()


class _Estimate:
    """The phases of a run on some data sets; batches are read beforehand, since a simulation cannot read real data."""

    def __init__(self, task, args, datasets):
        if "RANK" in os.environ:
            raise UserError("--estimate runs in one process: run it without torchrun, with the batch of one process")
        device = init_distributed(args.device)
        copies = torch.cuda.device_count() if args.parallel and device.type == "cuda" else 1
        batch_size = max(1, total_batch(args) // copies)
        self.task, self.args = task, args
        readers = reading_processes(args.num_workers, device)
        self.simulation = Simulation(device, Precision(args.amp, device), batch_size, readers)
        self.like, self.seconds = {}, {}
        for dataset in datasets:
            batch = dataset.read([0, len(dataset) - 1])
            self.like[dataset.split] = batch
            inputs = set(batch) & set(task.modalities)
            self.seconds[dataset.split] = {name: seconds_to_read(dataset, [name]) for name in inputs}

    def features(self, net, dataset):
        """Measure the pass that computes and stores the features of frozen backbones."""
        for name in self._kept(net, dataset):
            count = int(dataset.distinct(name).max()) + 1
            batch = self.simulation.batch(self.like[dataset.split], net.backbone_batch)
            self._without_gradients(
                f"features of {name}, {dataset.split}, once",
                lambda batch=batch, name=name: net.extract(batch, name),
                net,
                count,
                net.backbone_batch,
                count * self.seconds[dataset.split][name],
            )

    def step(self, net, parameters):
        """The `OptimizerStep` of a recipe; `Simulation.hold_adam` counts the state of its optimiser."""
        options = {"precision": self.simulation.precision, "micro_batch": self.args.micro_batch}
        return OptimizerStep(net, self.task.loss, torch.optim.Adam(parameters), **options)

    def training(self, title, net, step, dataset):
        """Measure a training pass."""
        step.activate()
        net.train()
        batch, seconds = self._step_batch(net, dataset)
        self.simulation.measure(title, lambda: step.backward(batch), len(dataset), read_seconds=seconds)
        for parameter in net.parameters():
            parameter.grad = None

    def evaluation(self, title, net, dataset):
        """Measure a pass in evaluation mode."""
        batch, seconds = self._step_batch(net, dataset)
        self._without_gradients(title, lambda: net(batch), net, len(dataset), None, seconds)

    def report(self):
        """Print the table."""
        return report(self.simulation, flops_per_second(self.simulation.device, self.simulation.precision))

    def _without_gradients(self, title, work, net, samples, batch_size, seconds):
        net.eval()

        def forward():
            with torch.no_grad(), self.simulation.precision.autocast():
                work()

        self.simulation.measure(title, forward, samples, batch_size, seconds)

    def _kept(self, net, dataset):
        if self.args.cache_features == "off":
            return []
        return [n for n in net.cacheable() if net.needed(n) and dataset.distinct(n) is not None]

    def _step_batch(self, net, dataset):
        """A batch as a step reads it, and the seconds to read the raw inputs of an epoch."""
        kept = self._kept(net, dataset)
        batch = self.simulation.batch(self.like[dataset.split])
        for name in kept:
            one = self.simulation.batch({name: self.like[dataset.split][name]}, 1)
            mode = net.training
            net.eval()
            with torch.no_grad():
                features = net.extract(one, name)
            net.train(mode)
            del batch[name]
            batch[f"{name}_features"] = self.simulation.batch({"": features})[""]
        seconds = sum(s for name, s in self.seconds[dataset.split].items() if name not in kept)
        return batch, seconds * len(dataset)
