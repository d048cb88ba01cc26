"""``--estimate``: what a search or a training of MMNas would need, from the real shapes."""

import argparse
import functools
import os
from types import SimpleNamespace

import torch

from engine.estimate import Simulation, flops_per_second, report, seconds_to_read
from engine.loading import reading_processes, total_batch
from search.relaxation import ARCHITECTURE
from tasks.mmnas import networks
from util.cli import UserError
from util.distributed import init_distributed


def estimate_search(task, args, data):
    """Memory and time of a search's epochs; prints a table and returns it as plain data."""
    estimate, train = _Estimate(task, args, data, None), data["train"]
    net, steps = estimate.net, max(1, len(train) // total_batch(args))
    relaxation = networks.build_relaxation(args).attach(net)
    relaxation.draw(ARCHITECTURE)
    drawn = [choice.drawn for choice in net.choices()]
    relaxation.decide()
    passes = task.passes(args, data, list(data)[-1:])
    with estimate.simulation as simulation:
        simulation.adopt(net)
        weights = networks.build_weight_step(task, args, estimate.run, net, simulation.precision, steps)
        alphas = networks.build_alpha_step(task, args, estimate.run, net, simulation.precision, relaxation)
        simulation.hold_adam(weights.parameters)
        estimate.updates("weight steps, an epoch", weights, "train", len(train))
        chosen = [choice.drawn for choice in net.choices()]
        _set_drawn(net, drawn)
        title = f"architecture steps, an epoch from epoch {args.alpha_start} on"
        estimate.updates(title, alphas, "held out", steps // args.alpha_every * total_batch(args))
        _set_drawn(net, chosen)
        estimate.passes(passes)
    return estimate.report()


def _set_drawn(net, drawn):
    for choice, value in zip(net.choices(), drawn, strict=True):
        choice.drawn = value


def estimate_training(task, args, data):
    """Memory and time of a training's epochs; as `estimate_search`."""
    estimate = _Estimate(task, args, data, networks.find_architecture(args))
    passes = task.passes(args, data, [split for split in data if split != "train"])
    with estimate.simulation as simulation:
        simulation.adopt(estimate.net)
        steps = max(1, len(data["train"]) // total_batch(args))
        updater = networks.build_weight_step(task, args, estimate.run, estimate.net, simulation.precision, steps)
        simulation.hold_adam(updater.parameters)
        estimate.updates("training, an epoch", updater, "train", len(data["train"]))
        estimate.passes(passes)
    return estimate.report()


class _Estimate:
    """The phases of a run, with what can only be asked of real data asked beforehand."""

    def __init__(self, task, args, data, architecture):
        if "RANK" in os.environ or args.GPU:
            raise UserError("--estimate is for one process: run it without torchrun and without --GPU")
        device = init_distributed(args.device)
        self.data = data
        self.run = SimpleNamespace(args=argparse.Namespace(), device=device)
        readers = reading_processes(args.num_workers, device)
        self.simulation = Simulation(device, networks.build_precision(args, device), total_batch(args), readers)
        self.net = task.build_net(args, task.tables(next(iter(data.values()))), architecture, trained=True)
        networks.set_padding(self.net, data)
        # What is left out of a packed batch depends on its content.
        self.net.pack = False
        size = {split: min(total_batch(args), len(dataset)) for split, dataset in data.items()}
        self.like = {split: dataset.read(range(size[split])) for split, dataset in data.items()}
        self.seconds = {split: seconds_to_read(dataset, ["regions", "tokens"]) for split, dataset in data.items()}

    def updates(self, title, updater, split, samples):
        """Steps of ``updater`` on ``samples`` samples of a split."""
        updater.activate()
        self.net.train()
        batch = self.simulation.batch(self.like[split])
        read = self.seconds[split] * samples
        self.simulation.measure(title, lambda: updater.backward(batch), samples, read_seconds=read)
        for parameter in self.net.parameters():
            parameter.grad = None

    def passes(self, passes):
        """Passes of forwards, `networks.Pass`."""
        self.net.eval()
        for title, like, size, samples, seconds in passes:
            batch = self.simulation.batch(like, size)
            self.simulation.measure(title, functools.partial(self._forward, batch), samples, size, seconds)

    def _forward(self, batch):
        with torch.no_grad(), self.simulation.precision.autocast():
            self.net(batch)

    def report(self):
        """Print the table."""
        return report(self.simulation, flops_per_second(self.simulation.device, self.simulation.precision))
