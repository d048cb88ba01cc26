"""Bilevel architecture search: weight steps on train, architecture steps on dev, and a watch over the architecture.

First-order DARTS (Liu et al., ICLR 2019, section 2.3 with xi = 0), as BM-NAS uses it:
weights  w  <- w - lr * dL_train(w, alpha)/dw,  architecture  alpha  <- alpha - lr_a * dL_dev(w, alpha)/dalpha.
"""

import logging
import math

import torch

from engine.training import train_one_epoch
from util.plots import plot_probabilities

logger = logging.getLogger("mdarts")

# Below this probability of `skip` an edge is as good as cut; undecided edges stand at 0.5.
NONE_DOMINATES = 0.25


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


class ArchitectureWatch:
    """What the search is doing: genotype, probabilities, entropies, collapse, and when to stop.

    Args:
        net: Has ``genotype()`` and ``probabilities()`` (title -> row -> operation -> probability).
        has_weights: Operation name -> whether it learns anything.
        patience: Stop after this many epochs without a change of the genotype; 0 never stops.
    """

    def __init__(self, net, has_weights, patience=0):
        self.net, self.has_weights, self.patience = net, has_weights, patience
        self.genotype, self.unchanged = None, 0

    def look(self):
        """Return an epoch's record: genotype, probabilities, entropies, warnings, ``stable_epochs`` and ``stop``."""
        genotype = self.net.genotype()
        self.unchanged = self.unchanged + 1 if genotype == self.genotype else 0
        logger.info("genotype%s: %s", " (unchanged)" if self.unchanged else "", genotype)
        self.genotype = genotype
        probabilities = self.net.probabilities()
        return {
            "genotype": genotype.to_dict(),
            "probabilities": probabilities,
            "entropy": {title: mean_entropy(rows) for title, rows in probabilities.items()},
            "warnings": self.warnings(genotype, probabilities),
            "stable_epochs": self.unchanged,
            "stop": bool(self.patience) and self.unchanged >= self.patience,
        }

    def warnings(self, genotype, probabilities):
        """Signs of a collapsed search, in words."""
        found = []
        names = [name for step in genotype.steps for name in step.inner_steps]
        if not any(self.has_weights(name) for name in names):
            found.append(f"the cell has collapsed onto operations without weights ({', '.join(names)})")
        for title, rows in probabilities.items():
            skips = [row["skip"] for row in rows.values() if "skip" in row]
            if skips and max(skips) < NONE_DOMINATES:
                found.append(f"every edge of {title} clearly prefers `none`")
        return found

    def state_dict(self):
        """Last genotype and how long it has stood."""
        return {"genotype": self.genotype.to_dict() if self.genotype else None, "unchanged": self.unchanged}

    def load_state_dict(self, state):
        """Continue from `state_dict`."""
        kind = type(self.net.genotype())
        self.genotype = kind.from_dict(state["genotype"]) if state["genotype"] else None
        self.unchanged = state["unchanged"]


def save_architecture(run, genotype, epoch):
    """Draw the genotype of ``epoch`` into the run folder."""
    run.write(f"architectures/epoch_{epoch}.svg", genotype.to_svg(title=f"epoch {epoch}"))


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
            "metrics": {split: record[split] for split in ("train", "dev")},
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
    """Arrange the probabilities of logged epochs for `util.plots.plot_probabilities`."""
    panels, epochs = {}, [record["epoch"] for record in records]
    for title, rows in records[-1]["probabilities"].items() if records else ():
        series = {}
        for row, operations in rows.items():
            shown = ["skip"] if "skip" in operations else list(operations)
            for name in shown:
                label = row if "skip" in operations else name if len(rows) == 1 else f"{row} {name}"
                series[label] = [record["probabilities"][title][row][name] for record in records]
        panels[title + (" (skip)" if title.startswith(("alphas", "betas")) else "")] = {
            "epochs": epochs,
            "series": series,
        }
    return panels
