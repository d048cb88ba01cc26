"""Architecture search: how weight steps and architecture steps take turns, and a watch over the architecture.

`Alternating`: first-order DARTS (Liu et al., ICLR 2019, section 2.3 with xi = 0), as BM-NAS uses it:
weights  w  <- w - lr * dL_train(w, alpha)/dw,  architecture  alpha  <- alpha - lr_a * dL_dev(w, alpha)/dalpha.
`Interleaved`: sampled paths with gates (Cai et al., ICLR 2019, section 3.2), as MMNas uses it.
"""

import logging
import math

import torch

from engine.loading import to_device
from engine.report import scores_of
from engine.training import LossMeter, check_finite, train_one_epoch
from util.distributed import check_same_on_all_ranks, rank
from util.plots import plot_probabilities
from util.progress import progress

logger = logging.getLogger("mdarts")

# More lines than this in one panel of probabilities cannot be told apart.
MOST_LINES = 16


def alpha_optimizer(parameters, learning_rate, weight_decay):
    """The published optimiser of architecture parameters: Adam with betas (0.5, 0.999)."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.999), weight_decay=weight_decay)


class Alternating:
    """One search epoch: a pass of weight steps over train, then a pass of architecture steps over dev.

    The dev score comes from the outputs that each architecture step has anyway.

    Args:
        weights, alphas: `Updater` of the weights and of the architecture parameters.
        train_loader, dev_loader: Their data.
        metric: See `train_one_epoch`.
        device: Where the batches go.
        second_forward: See `train_one_epoch`; for the dev pass.
    """

    def __init__(self, weights, alphas, train_loader, dev_loader, metric, device, second_forward=False):
        self.weights, self.alphas = weights, alphas
        self.train_loader, self.dev_loader = train_loader, dev_loader
        self.metric, self.device = metric, device
        self.second_forward = second_forward

    def __call__(self, epoch):
        """Run epoch number ``epoch``; returns ``{"train": {...}, "dev": {...}}``."""
        shared = {"metric": self.metric, "epoch": epoch, "device": self.device}
        train = train_one_epoch(self.weights, self.train_loader, description="train", **shared)
        dev = train_one_epoch(
            self.alphas, self.dev_loader, description="dev (alphas)", second_forward=self.second_forward, **shared
        )
        return {"train": train, "dev": dev}


class Interleaved:
    """One search epoch: weight steps on sampled paths, with an architecture step on held-out data now and then.

    Args:
        paths: Has ``sample(mode, generator)``, which draws what the next forward runs, ``set_alpha_gradients()``,
            which turns gradients of gates into those of the architecture parameters, and ``rescale_alphas()``.
        weights, alphas: `Updater` of the weights (of the paths that are sampled) and of the architecture
            parameters (through their gates).
        train_loader, held_out_loader: Their data; the latter begins anew where it ends within an epoch.
        device: Where the batches go.
        generator: `torch.Generator` of the paths, the same on every rank.
        start: First epoch, from 0, with architecture steps.
        every: An architecture step follows every so many weight steps.
        mode: How architecture steps sample: ``full`` or ``two``.
    """

    def __init__(
        self, paths, weights, alphas, train_loader, held_out_loader, device, generator, *, start=0, every=1, mode="full"
    ):
        self.paths, self.weights, self.alphas = paths, weights, alphas
        self.train_loader, self.held_out_loader = train_loader, held_out_loader
        self.device, self.generator = device, generator
        self.start, self.every, self.mode = start, every, mode

    def __call__(self, epoch):
        """Run epoch number ``epoch``; returns the losses of ``train`` and, if it has such steps, of ``alphas``.

        Raises:
            UserError: a loss is not finite, or there are too few samples for the processes.
        """
        self.weights.net.train()
        losses = {"train": LossMeter(), "alphas": LossMeter()}
        held_out = self._held_out(epoch) if epoch >= self.start else None
        self.train_loader.batch_sampler.epoch = epoch
        sizes = self.train_loader.batch_sampler.training_sizes()
        batches = progress(self.train_loader, f"epoch {epoch} search", disable=rank() > 0)
        for i, (size, batch) in enumerate(zip(sizes, batches, strict=True)):
            self.weights.activate()
            self.paths.sample("single", self.generator)
            batch = to_device(batch, self.device)
            losses["train"].update(self.weights.step(batch, size)[0], len(batch["label"]))
            if held_out is not None and (i + 1) % self.every == 0:
                size, batch = next(held_out)
                losses["alphas"].update(self._architecture_step(batch, size), len(batch["label"]))
        check_same_on_all_ranks(self.generator.get_state().numpy().tobytes(), "sampled paths")
        done = {name: meter for name, meter in losses.items() if meter.count}
        return {name: {"loss": check_finite(meter.compute(), name, epoch)} for name, meter in done.items()}

    def _held_out(self, epoch):
        while True:
            self.held_out_loader.batch_sampler.epoch = epoch
            sizes = self.held_out_loader.batch_sampler.training_sizes()
            for size, batch in zip(sizes, self.held_out_loader, strict=True):
                yield size, to_device(batch, self.device)

    def _architecture_step(self, batch, size):
        self.alphas.activate()
        self.paths.sample(self.mode, self.generator)
        self.alphas.begin()
        loss, _ = self.alphas.backward(batch, size)
        self.paths.set_alpha_gradients()
        self.alphas.apply()
        if self.mode == "two":
            self.paths.rescale_alphas()
        return loss


class ArchitectureWatch:
    """What the search is doing: genotype, probabilities, entropies, collapse, and when to stop.

    Args:
        net: Has ``genotype()`` and ``probabilities()`` (title -> row -> operation -> probability).
        collapse: (genotype, probabilities) -> list of warnings, in words.
        patience: Stop after this many epochs without a change of the genotype; 0 never stops.
        start: The epoch, from 0, up to which standing still says nothing: architecture steps begin in it.
    """

    def __init__(self, net, collapse, patience=0, start=0):
        self.net, self.collapse, self.patience, self.start = net, collapse, patience, start
        # Epochs without a change: in a row, and of them those that patience counts.
        self.genotype, self.unchanged, self.waited = None, 0, 0

    def look(self, epoch):
        """Return the record of ``epoch``: genotype, probabilities, entropies, warnings, ``stable_epochs``, ``stop``."""
        genotype = self.net.genotype()
        same = genotype == self.genotype
        self.unchanged = self.unchanged + 1 if same else 0
        self.waited = min(self.waited + 1, max(0, epoch - self.start)) if same else 0
        logger.info("genotype%s: %s", " (unchanged)" if self.unchanged else "", genotype)
        self.genotype = genotype
        probabilities = self.net.probabilities()
        return {
            "genotype": genotype.to_dict(),
            "probabilities": probabilities,
            "entropy": {title: mean_entropy(rows) for title, rows in probabilities.items()},
            "warnings": self.collapse(genotype, probabilities),
            "stable_epochs": self.unchanged,
            "stop": self._is_over(),
        }

    def _is_over(self):
        return bool(self.patience) and self.waited >= self.patience

    def reconsider(self, run):
        """Let a resumed run go on that had stopped, where its patience is larger now or counts anew.

        Args:
            run: The `Run`, restored; one that was made ``longer`` counts from here.
        """
        if run.longer:
            self.waited = 0
        elif run.stopped:
            run.stopped = self._is_over()

    def state_dict(self):
        """Last genotype and how long it has stood."""
        genotype = self.genotype.to_dict() if self.genotype else None
        return {"genotype": genotype, "unchanged": self.unchanged, "waited": self.waited}

    def load_state_dict(self, state):
        """Continue from `state_dict`."""
        kind = type(self.net.genotype())
        self.genotype = kind.from_dict(state["genotype"]) if state["genotype"] else None
        self.unchanged = state["unchanged"]
        self.waited = state.get("waited", self.unchanged)  # version 0.1.0 had no other count


def save_architecture(run, genotype, epoch, title=None):
    """Draw the genotype of ``epoch`` into the run folder."""
    run.write(f"architectures/epoch_{epoch}.svg", genotype.to_svg(title=title or f"epoch {epoch}"))


def finish_search(run, selection, net, **facts):
    """Draw the best genotype, plot the probabilities and write the result; return the result."""
    best = run.load_best()
    genotype = type(net.genotype()).from_dict(best["genotype"])
    record = run.record_of(best["epoch"])
    run.write("genotype.svg", genotype.to_svg(title=f"found in epoch {best['epoch']}"))
    if run.is_main:
        plot_probabilities(probability_panels(run.records()), run.folder / "probabilities.svg")
    logger.info("genotype of epoch %d: %s", best["epoch"], genotype)
    return run.write_result(
        {
            "kind": "search",
            "protocol": selection.explanation,
            "selected_epoch": best["epoch"],
            "epochs": run.epoch,
            "stopped early": run.stopped,
            "metrics": scores_of(record),
            "genotype": genotype.to_dict(),
            "parameters": net.count_parameters(),
            **facts,
        }
    )


def mean_entropy(rows):
    """Mean entropy of the rows' distributions, in nats (log 2 for two undecided operations)."""
    entropies = [-sum(p * math.log(p) for p in row.values() if p > 0) for row in rows.values()]
    return sum(entropies) / len(entropies)


def probability_panels(records):
    """Arrange the probabilities of logged epochs for `util.plots.plot_probabilities`.

    A title whose rows would give more than `MOST_LINES` lines gets a panel for each row.
    """
    panels, epochs = {}, [record["epoch"] for record in records]

    def add(panel, label, title, row, name):
        series = panels.setdefault(panel, {"epochs": epochs, "series": {}})["series"]
        series[label] = [record["probabilities"][title][row][name] for record in records]

    for title, rows in records[-1]["probabilities"].items() if records else ():
        crowded = sum(map(len, rows.values())) > MOST_LINES
        for row, operations in rows.items():
            if "skip" in operations:
                add(f"{title} (skip)", row, title, row, "skip")
                continue
            for name in operations:
                whole = f"{row} {name}" if len(rows) > 1 else name
                add(f"{title}, {row}" if crowded else title, name if crowded else whole, title, row, name)
    return panels
