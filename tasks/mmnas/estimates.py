"""``--estimate``: memory and time of a search or a training of MMNas, from the shapes of its data."""

from __future__ import annotations

import functools
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from engine.estimate import Simulation, flops_per_second, report, seconds_to_read
from engine.loading import reading_processes, total_batch
from engine.updates import OptimizerStep
from search.gates import SampledGates
from search.relaxation import ARCHITECTURE
from search.strategies import strategy_of
from tasks.mmnas import networks
from util.cli import UserError
from util.distributed import init_distributed

if TYPE_CHECKING:
    from tasks.task import AttentionTask, QuestionData


class Pass(NamedTuple):
    """Forward passes without updates, for an estimate.

    title: Name of the pass.
    like: A real batch dict of one or more samples.
    size: Samples of a batch.
    samples: Samples of the pass.
    seconds: Seconds that one process takes to read all samples.
    """

    title: str
    like: dict
    size: int
    samples: int
    seconds: float


def _passes(task, args, data, scored):
    """The forward passes of an epoch: those of the task, or a `Pass` over every split in ``scored``."""
    if task.estimate_passes is not None:
        return task.estimate_passes(args, data, scored)
    return [
        Pass(
            f"evaluation on {split}",
            data[split].read(range(min(total_batch(args), len(data[split])))),
            total_batch(args),
            len(data[split]),
            len(data[split]) * seconds_to_read(data[split], ["regions", "tokens"]),
        )
        for split in scored
    ]


def estimate_search(task: AttentionTask, args: Namespace, data: Mapping[str, QuestionData]) -> dict[str, Any]:
    """Estimate memory and time of a search's epochs; prints a table and returns it as plain data."""
    estimate, train = _Estimate(task, args, data, None), data["train"]
    net, steps = estimate.net, max(1, len(train) // total_batch(args))
    published = functools.partial(SampledGates, mode=args.alpha_mode)
    relaxation = strategy_of(args, published).attach(net)
    relaxation.draw(ARCHITECTURE)
    drawn = [choice.drawn for choice in net.choices()]
    relaxation.decide()
    passes = _passes(task, args, data, list(data)[-1:])
    with estimate.simulation as simulation:
        simulation.adopt(net)
        weights = estimate.step(net.weights())
        alphas = estimate.step(relaxation.gradient_parameters())
        simulation.hold_adam(weights.parameters)
        estimate.updates("weight steps, an epoch", weights, "train", len(train))
        chosen = [choice.drawn for choice in net.choices()]
        _set_drawn(net, drawn)
        title = f"architecture steps, an epoch from epoch {args.alpha_start} on"
        estimate.updates(title, alphas, "held_out", steps // args.alpha_every * total_batch(args))
        _set_drawn(net, chosen)
        estimate.passes(passes)
    return estimate.report()


def _set_drawn(net, drawn):
    for choice, value in zip(net.choices(), drawn, strict=True):
        choice.drawn = value


def estimate_training(task: AttentionTask, args: Namespace, data: Mapping[str, QuestionData]) -> dict[str, Any]:
    """Like `estimate_search`, for a training."""
    estimate = _Estimate(task, args, data, networks.find_architecture(args))
    passes = _passes(task, args, data, [split for split in data if split != "train"])
    with estimate.simulation as simulation:
        simulation.adopt(estimate.net)
        weights = estimate.step(estimate.net.weights())
        simulation.hold_adam(weights.parameters)
        estimate.updates("training, an epoch", weights, "train", len(data["train"]))
        estimate.passes(passes)
    return estimate.report()


class _Estimate:
    """The phases of a run; batches are read beforehand, since a simulation cannot read real data."""

    def __init__(self, task, args, data, architecture):
        if "RANK" in os.environ or args.GPU:
            raise UserError("--estimate runs in one process: run it without torchrun and without --GPU")
        device = init_distributed(args.device)
        self.data = data
        self.task, self.args = task, args
        readers = reading_processes(args.num_workers, device)
        self.simulation = Simulation(device, networks.build_precision(args, device), total_batch(args), readers)
        self.net = task.build_net(args, task.metadata(next(iter(data.values()))), architecture, trained=True)
        networks.set_padding(self.net, data)
        # Packing depends on the content of a batch, which a simulation does not have.
        self.net.pack = False
        size = {split: min(total_batch(args), len(dataset)) for split, dataset in data.items()}
        self.like = {split: dataset.read(range(size[split])) for split, dataset in data.items()}
        self.seconds = {split: seconds_to_read(dataset, ["regions", "tokens"]) for split, dataset in data.items()}

    def step(self, parameters):
        """The `OptimizerStep` of a recipe; `Simulation.hold_adam` counts the state of its optimiser."""
        options = {"precision": self.simulation.precision, "micro_batch": self.args.micro_batch, "min_part": 1}
        return OptimizerStep(self.net, self.task.loss(self.args), torch.optim.Adam(parameters), **options)

    def updates(self, title, step, split, samples):
        """Measure training steps on ``samples`` samples of a split."""
        step.activate()
        self.net.train()
        batch = self.simulation.batch(self.like[split])
        read = self.seconds[split] * samples
        self.simulation.measure(title, lambda: step.backward(batch), samples, read_seconds=read)
        for parameter in self.net.parameters():
            parameter.grad = None

    def passes(self, passes):
        """Measure forward passes, a list of `Pass`."""
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
