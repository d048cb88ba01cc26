"""How weight steps and architecture steps alternate.

`EpochwiseSearch`: first-order DARTS (Liu et al., ICLR 2019, section 2.3 with xi = 0), as in BM-NAS:
weights  w  <- w - lr * dL_train(w, alpha)/dw,  architecture  alpha  <- alpha - lr_a * dL_dev(w, alpha)/dalpha.
`InterleavedSearch`: an architecture step after every few weight steps, as in MMNas.
Both work with any `search.relaxation.Relaxation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.training import DivergedError, Evaluation, LossMeter, check_finite, train_one_epoch
from search.relaxation import ARCHITECTURE, WEIGHTS
from util.distributed import check_same_on_all_ranks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.loading import BatchLoader
    from engine.updates import OptimizerStep
    from search.choice import Choice
    from search.relaxation import Relaxation
    from tasks.task import Metric


def check_logits(choices: Iterable[Choice], epoch: int) -> None:
    """Check that the logits of all choices are finite after ``epoch``.

    Raises:
        DivergedError: the logits of a choice are not finite.
    """
    for choice in choices:
        if not bool(choice.logits.detach().isfinite().all()):
            raise DivergedError(
                f"the architecture logits of {choice.key} are not finite after epoch {epoch}; everything saved before "
                "this epoch is kept; a smaller --arch_learning_rate or --alpha_lr, --amp off, or a milder "
                "--strategy_option usually fixes it"
            )


class _Search:
    """Base class: an object that, called with the number of an epoch (from 0), runs it and returns its record.

    The record maps the name of a pass to its scores.

    Args:
        relaxation: The `Relaxation`, already attached to the network.
        weights: `OptimizerStep` of the weights.
        alphas: `OptimizerStep` of the relaxation's gradient parameters; its optimiser updates the logits.
        loaders: Loaders of the weight steps and of the architecture steps.
        device: Device that batches are moved to.
        epochs: Number of epochs of the search.
    """

    def __init__(
        self,
        relaxation: Relaxation,
        weights: OptimizerStep,
        alphas: OptimizerStep,
        loaders: tuple[BatchLoader, BatchLoader],
        device: torch.device,
        epochs: int,
    ) -> None:
        self.relaxation, self.weights, self.alphas = relaxation, weights, alphas
        self.weight_loader, self.architecture_loader = loaders
        self.device, self.epochs = device, epochs
        self._training_batches: Any = None

    def __call__(self, epoch: int) -> dict[str, Any]:
        self._training_batches = self._endless(self.weight_loader, epoch)
        self.relaxation.begin_epoch(epoch, self.epochs)
        for regularizer in self.relaxation.regularizers:
            regularizer.begin_epoch(epoch, self.epochs)
        record = self.run_epoch(epoch)
        check_logits(self.relaxation.choices, epoch)
        if self.relaxation.generator is not None:
            check_same_on_all_ranks(self.relaxation.generator.get_state().numpy().tobytes(), "sampled paths")
        return record

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Run the steps of an epoch and return its record."""
        raise NotImplementedError

    def weight_step(self, batch: dict[str, Any], size: int | None = None) -> tuple[torch.Tensor, Any]:
        """Draw candidates, then update the weights; arguments and result as in `OptimizerStep.step`."""
        self.relaxation.draw(WEIGHTS)
        return self.weights.step(batch, size)

    def architecture_step(self, batch: dict[str, Any], size: int | None = None) -> tuple[torch.Tensor, Any]:
        """Draw candidates, then update the logits; arguments and result as in `OptimizerStep.step`."""
        self.relaxation.draw(ARCHITECTURE)
        self.alphas.begin()
        loss, outputs = self.relaxation.architecture_gradient(self, batch, size)
        self.relaxation.finish_backward()
        for regularizer in self.relaxation.regularizers:
            regularizer.add_gradients(self.relaxation.choices, self.alphas.scaler.get_scale())
        self.alphas.apply()
        self.relaxation.finish_step()
        return loss, outputs

    def next_training_batch(self) -> tuple[int, dict[str, Any]]:
        """Next batch of the weight steps' data, in the epoch's order, for architecture steps that need training data.

        Returns:
            (number of samples in the batch over all processes, this process's part of the batch).
        """
        return next(self._training_batches)

    def _endless(self, loader, epoch):
        """Yield (samples of the whole batch, batch on the device); starts over at the end of the data."""
        while True:
            yield from loader.training_pass(epoch, self.device)


class EpochwiseSearch(_Search):
    """A pass of weight steps over train, then a pass of architecture steps over dev.

    The dev score is computed from the outputs of the architecture steps.

    Args:
        relaxation, weights, alphas, loaders, device, epochs: See `_Search`.
        metric: See `train_one_epoch`.
        second_forward: See `train_one_epoch`; applies to the dev pass.
    """

    def __init__(
        self,
        relaxation: Relaxation,
        weights: OptimizerStep,
        alphas: OptimizerStep,
        loaders: tuple[BatchLoader, BatchLoader],
        device: torch.device,
        epochs: int,
        *,
        metric: Metric,
        second_forward: bool = False,
    ) -> None:
        super().__init__(relaxation, weights, alphas, loaders, device, epochs)
        self.metric, self.second_forward = metric, second_forward

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Run both passes and return ``{"train": {...}, "dev": {...}}``; only ``train`` if logits are not trained."""
        shared: dict[str, Any] = {"metric": self.metric, "epoch": epoch, "device": self.device}
        train = train_one_epoch(self.weights, self.weight_loader, description="train", step=self.weight_step, **shared)
        if not self.relaxation.learns:
            return {"train": train}
        dev = train_one_epoch(
            self.alphas,
            self.architecture_loader,
            description="dev (alphas)",
            step=self.architecture_step,
            second_forward=self.second_forward,
            **shared,
        )
        return {"train": train, "dev": dev}

    def dev_scorer(self) -> Evaluation:
        """An `Evaluation` of the network, as it is relaxed at the time, on the data of the architecture steps."""
        return Evaluation(
            self.architecture_loader,
            self.alphas.loss,
            self.metric,
            device=self.device,
            precision=self.alphas.precision,
            description="dev",
            order=0,
        )


class InterleavedSearch(_Search):
    """Weight steps, with an architecture step on held-out data after every few of them.

    If the held-out data are exhausted within an epoch, they start over.

    Args:
        relaxation, weights, alphas, loaders, device, epochs: See `_Search`.
        start: First epoch (from 0) with architecture steps.
        every: Number of weight steps per architecture step.
    """

    def __init__(
        self,
        relaxation: Relaxation,
        weights: OptimizerStep,
        alphas: OptimizerStep,
        loaders: tuple[BatchLoader, BatchLoader],
        device: torch.device,
        epochs: int,
        *,
        start: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__(relaxation, weights, alphas, loaders, device, epochs)
        self.start, self.every = start, every

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Run the steps and return the losses of ``train`` and, if there are architecture steps, of ``alphas``.

        Raises:
            UserError: a loss is not finite, or there are too few samples for the processes.
        """
        self.weights.net.train()
        losses = {"train": LossMeter(), "alphas": LossMeter()}
        architecture = epoch >= self.start and self.relaxation.learns
        held_out = self._endless(self.architecture_loader, epoch) if architecture else None
        batches = self.weight_loader.training_pass(epoch, self.device, f"epoch {epoch} search")
        for i, (size, batch) in enumerate(batches):
            losses["train"].update(self.weight_step(batch, size)[0], len(batch["label"]))
            if held_out is not None and (i + 1) % self.every == 0:
                size, batch = next(held_out)
                losses["alphas"].update(self.architecture_step(batch, size)[0], len(batch["label"]))
        done = {name: meter for name, meter in losses.items() if meter.count}
        return {name: {"loss": check_finite(meter.compute(), name, epoch)} for name, meter in done.items()}
