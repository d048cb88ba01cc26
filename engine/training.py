"""Passes over data, the choice of the best epoch, the loop over epochs, and the training of a fixed network."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from engine.model_card import FILE as MODEL_CARD
from engine.model_card import card_text
from engine.updates import Precision, in_float32
from util.cli import UserError
from util.distributed import gather, rank, share_buffers
from util.nested import to_device
from util.progress import progress

if TYPE_CHECKING:
    from torch import nn

    from engine.loading import BatchLoader
    from engine.run import Run
    from engine.updates import Loss, OptimizerStep
    from models.backbone_net import UnimodalNet
    from models.bmnas.fusion_net import FusionNet
    from models.mmnas.net import MultimodalNet
    from tasks.task import Metric

    Network = FusionNet | UnimodalNet | MultimodalNet

logger = logging.getLogger("mdarts")


def train_one_epoch(
    optimizer_step: OptimizerStep,
    loader: BatchLoader,
    metric: Metric,
    *,
    epoch: int,
    device: torch.device,
    description: str = "train",
    second_forward: bool = False,
    step: Callable[..., tuple[torch.Tensor, Any]] | None = None,
) -> dict[str, float]:
    """Run one pass of updates over a split, in training mode.

    Args:
        optimizer_step: See `OptimizerStep`.
        loader: The split's loader; the order of its batches depends on ``epoch``.
        metric: See `tasks.task.Metric`.
        epoch: Number of the epoch, from 0.
        device: Device that batches are moved to.
        description: Name of the pass in the progress bar and in messages.
        second_forward: Compute loss and metric in a second forward pass after each update, as the original search
            does, and not from the outputs of the update.
        step: Called instead of `OptimizerStep.step`, with the same arguments and result.

    Returns:
        A dict of ``loss`` and the metric's values.

    Raises:
        DivergedError: the loss is not finite.
        UserError: there are fewer samples than the processes need.
    """
    optimizer_step.net.train()
    metric.reset()
    losses = LossMeter()
    for size, batch in loader.training_pass(epoch, device, f"epoch {epoch} {description}"):
        loss, outputs = (step or optimizer_step.step)(batch, size)
        if second_forward:
            outputs = optimizer_step.predict(batch)
            loss = optimizer_step.loss(outputs, batch)
        losses.update(loss, len(batch["label"]))
        metric.update(outputs, batch)
    return {"loss": check_finite(losses.compute(), description, epoch), **metric.compute()}


class DivergedError(UserError):
    """The loss of an epoch is not finite."""


def check_finite(loss: float, description: str, epoch: int) -> float:
    """Return the mean loss of a pass if it is finite.

    Raises:
        DivergedError: the loss is not finite.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {description} loss of epoch {epoch} is {loss}; everything saved before this epoch is "
            "kept; a smaller learning rate, --amp off, or data without NaN usually fixes it"
        )
    return loss


@torch.no_grad()
def evaluate(
    net: nn.Module,
    loader: BatchLoader,
    loss: Loss,
    metric: Metric,
    *,
    device: torch.device,
    precision: Precision | None = None,
    description: str = "evaluate",
) -> dict[str, float]:
    """Compute loss and metric in one pass over a split, in evaluation mode.

    Args:
        net: The network.
        loader: The split's loader.
        loss: (outputs, batch) -> scalar, a mean over samples.
        metric: See `tasks.task.Metric`.
        device: Device that batches are moved to.
        precision: Precision of the run; None: float32.
        description: Name of the pass in the progress bar.

    Returns:
        A dict of ``loss`` and the metric's values.
    """
    precision = precision or Precision()
    share_buffers(net)
    net.eval()
    metric.reset()
    losses = LossMeter()
    for batch in progress(loader, description, disable=rank() > 0):
        batch = to_device(batch, device)
        with precision.autocast():
            outputs = in_float32(net(batch))
        losses.update(loss(outputs, batch), len(batch["label"]))
        metric.update(outputs, batch)
    return {"loss": losses.compute(), **metric.compute()}


class Evaluation:
    """Scores networks on one split: calling it with a network returns the dict of `evaluate`.

    Args:
        loader, loss, metric, device, precision, description: See `evaluate`.
        order: The epoch that determines the order of a shuffled loader; None: the order of its last use.
    """

    def __init__(
        self,
        loader: BatchLoader,
        loss: Loss,
        metric: Metric,
        *,
        device: torch.device,
        precision: Precision,
        description: str,
        order: int | None = None,
    ) -> None:
        self.loader, self.loss, self.order = loader, loss, order
        self.metric: Any = metric  # Any, since tasks use attributes of it that `Metric` does not have
        self.options: dict[str, Any] = {"device": device, "precision": precision, "description": description}

    def __call__(self, net: nn.Module) -> dict[str, float]:
        if self.order is not None:
            self.loader.batch_sampler.epoch = self.order
        return evaluate(net, self.loader, self.loss, self.metric, **self.options)


class LossMeter:
    """Mean of per-batch means, weighted by batch size, over all ranks. It stays on the device until `compute`."""

    def __init__(self) -> None:
        self.total: torch.Tensor | float = 0.0
        self.count = 0

    def update(self, loss: torch.Tensor, count: int) -> None:
        """Add the mean loss of a batch of ``count`` samples."""
        self.total = self.total + loss.double() * count
        self.count += count

    def compute(self) -> float:
        """Return the mean over all samples of all ranks; NaN without samples."""
        parts = gather((float(self.total), self.count))
        count = sum(part[1] for part in parts)
        return sum(part[0] for part in parts) / count if count else math.nan


class BestEpoch:
    """Selects the best epoch by one score on one split.

    Args:
        split: The split whose score decides; ``last`` selects the last epoch.
        metric: Name of the score; larger is better. None for ``last``.
        explanation: Description of the choice, for logs and results.
        later_wins_ties: Select the last of several epochs with equal scores instead of the first.

    Attributes:
        epoch, score: The best epoch so far and its score; None before the first epoch.
    """

    def __init__(self, split: str, metric: str | None, explanation: str, later_wins_ties: bool = False) -> None:
        self.split, self.metric, self.explanation = split, metric, explanation
        self.later_wins_ties = later_wins_ties
        self.epoch: int | None = None
        self.score: Any = None

    @property
    def by_score(self) -> bool:
        """Whether a score decides; otherwise the last epoch is selected."""
        return self.split != "last"

    def update(self, epoch: int, record: Mapping[str, Any]) -> bool:
        """Consider the record of an epoch (split -> scores), and return whether this epoch is the best so far."""
        score = record[self.split][self.metric] if self.by_score else None
        if self.by_score and self.epoch is not None and not self._better(score):
            return False
        self.epoch, self.score = epoch, score
        return True

    def _better(self, score):
        if math.isnan(self.score):
            return self.later_wins_ties or not math.isnan(score)
        return score > self.score or (self.later_wins_ties and score == self.score)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch and its score."""
        return {"epoch": self.epoch, "score": self.score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.epoch, self.score = state["epoch"], state["score"]


def fit(
    run: Run,
    epochs: int,
    one_epoch: Callable[[int], dict[str, Any]],
    selection: BestEpoch,
    best_state: Callable[[], dict[str, Any]],
) -> None:
    """The loop over epochs. It saves a checkpoint after each, so an interrupted run continues where it stopped.

    Args:
        run: The `Run`. It knows the first epoch to run and the objects to save.
        epochs: Number of epochs.
        one_epoch: Function that runs an epoch, given its number, and returns its record: split -> dict of floats, and
            other entries. If ``record["stop"]`` is true, the run ends after this epoch. An ``epoch_share`` is added to
            entries with ``seconds``.
        selection: See `BestEpoch`.
        best_state: Function without arguments that returns the content of ``best.pth``. It is called when an epoch is
            the best so far.
    """
    while run.epoch < epochs and not run.stopped:
        epoch, started = run.epoch, time.perf_counter()
        record = one_epoch(epoch)
        run.stopped = bool(record.pop("stop", False))
        chosen, seconds = selection.update(epoch, record), time.perf_counter() - started
        for part in record.values():
            if isinstance(part, dict) and "seconds" in part:
                part["epoch_share"] = part["seconds"] / seconds
        best = chosen and selection.by_score  # False if the last epoch is selected anyway
        record = {"epoch": epoch, **record, "best": best, "seconds": round(seconds, 3)}
        run.finish_epoch(record, {**best_state(), **selection.state_dict()} if chosen else None)
    if run.stopped:
        message = "stopped after %d of %d epochs; to continue, resume it with more --epochs or another --patience"
        logger.info(message, run.epoch, epochs)


def train_network(
    run: Run,
    net: Network,
    weights: OptimizerStep,
    loaders: Mapping[str, BatchLoader],
    metric: Metric,
    selection: BestEpoch,
    /,
    *,
    scorers: Mapping[str, Callable[[Any], dict[str, float]]] | None = None,
    every_epoch: Collection[str] = (),
    before_epoch: Callable[[int], dict[str, Any]] | None = None,
    trained: Sequence[str] = ("train",),
    genotype: dict[str, Any] | None = None,
    checkpoint_extras: Mapping[str, Any] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Train a fixed network for ``run.args.epochs`` epochs, then score the network of the selected epoch.

    Args:
        run: The `Run`.
        net: The network.
        weights: `OptimizerStep` of its weights.
        loaders: Name of a split -> loader: ``train``, ``dev`` and ``test``.
        metric: See `tasks.task.Metric`.
        selection: The `BestEpoch` that chooses the epoch.
        scorers: Name of a split -> function net -> scores; None: an `Evaluation` of every split that is not trained on.
        every_epoch: Splits to score in every epoch in addition to the one that ``selection`` uses.
        before_epoch: Called with the number of each epoch before its updates; returns further entries of its record.
            If it has ``state_dict`` and ``load_state_dict``, its state is part of the checkpoints.
        trained: Splits to train on, in this order, with one pass each per epoch.
        genotype: The genotype as a dict, for ``best.pth`` and the result.
        checkpoint_extras: Further entries of ``best.pth``.
        **facts: Further entries of the result.

    Returns:
        The result, as written to ``result.json``.

    Raises:
        DivergedError: the loss is not finite.
    """
    if scorers is None:
        scorers = _evaluations(loaders, trained, weights, metric, run.device)

    def one_epoch(epoch):
        record = before_epoch(epoch) if before_epoch else {}
        options = {"epoch": epoch, "device": run.device}
        for split in trained:
            record[split] = train_one_epoch(weights, loaders[split], metric, description=split, **options)
        return record | {split: s(net) for split, s in scorers.items() if split in {selection.split, *every_epoch}}

    run.track(net=net.trainable_state(), weights=weights, selection=selection, **with_state(before_epoch=before_epoch))
    about = {"genotype": genotype, **(checkpoint_extras or {})}
    fit(run, run.args.epochs, one_epoch, selection, lambda: {"net": net.state_dict(), **about})
    return _score_selected(run, net, selection, scorers, trained, {"genotype": genotype, **facts})


def _evaluations(loaders, trained, weights, metric, device):
    options = {"device": device, "precision": weights.precision}
    return {
        split: Evaluation(loader, weights.loss, metric, description=split, **options)
        for split, loader in loaders.items()
        if split not in trained
    }


def with_state(**objects: Any) -> dict[str, Any]:
    """Filter the named objects: keep those that have a ``state_dict``."""
    return {name: value for name, value in objects.items() if hasattr(value, "state_dict")}


def _score_selected(run, net, selection, scorers, trained, facts):
    """Score the network of the selected epoch on the splits that the epoch itself did not score; write the result."""
    best = run.load_best()
    net.load_state_dict(best["net"])
    epoch = best["epoch"]
    record = run.record_of(epoch)
    metrics = {split: record[split] if split in record else scorer(net) for split, scorer in scorers.items()}
    for split, values in metrics.items():
        run.log_scores(split, values)
    logger.info("selected epoch %d: %s", epoch, selection.explanation)
    result = run.write_result(
        {
            "kind": "training",
            "trained_on": "+".join(trained),
            "protocol": selection.explanation,
            "selected_epoch": epoch,
            "epochs": run.epoch,
            "metrics": metrics,
            "training_mode_metrics": {split: record[split] for split in trained},
            "parameters": net.count_parameters(),
            **facts,
        }
    )
    run.write(MODEL_CARD, card_text(result))
    return result
