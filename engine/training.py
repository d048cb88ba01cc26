"""Updates, epochs and the loop around them, for every task: networks map a batch dict to outputs."""

import contextlib
import math
import time

import torch
from torch import nn

from engine.loading import split_batch, to_device
from util.cli import UserError
from util.distributed import gather, rank, share_buffers, world_size
from util.progress import progress


class Precision:
    """Autocast and, for float16, gradient scaling.

    Args:
        amp: ``off``, ``bf16`` or ``fp16``.
        device: Where the network runs.
    """

    def __init__(self, amp="off", device=torch.device("cpu")):  # noqa: B008 - a constant
        self.amp, self.device = amp, device
        self.dtype = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]

    def autocast(self):
        """Context of a forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self):
        """A gradient scaler, idle unless float16 is used."""
        return torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")


class Updater:
    """One optimiser and the parameters it moves: everything else in the network gets no gradient.

    Args:
        net: The network; batch dict -> outputs.
        parameters: Parameters that the optimiser moves.
        criterion: (outputs, batch) -> scalar loss, a mean over the batch.
        optimizer: Optimiser over ``parameters``.
        schedule: Gives a learning rate per step; None leaves the optimiser's own.
        precision: See `Precision`.
        parallel: Wraps the network (`DataParallel`, DDP); called while only ``parameters`` ask for
            gradients, so that DDP averages exactly those.
        micro_batch: Samples of a forward and backward pass; gradients add up over the batch. Batch norm then
            takes its statistics from this many samples. 0: the whole batch at once.
    """

    def __init__(
        self, net, parameters, criterion, optimizer, *, schedule=None, precision=None, parallel=None, micro_batch=0
    ):
        self.net = net
        self.parameters = list(parameters)
        self.criterion = criterion
        self.optimizer = optimizer
        self.schedule = schedule
        self.precision = precision or Precision()
        self.scaler = self.precision.scaler()
        self.micro_batch = micro_batch
        self.activate()
        self.model = parallel(net) if parallel else net

    def activate(self):
        """Let exactly this updater's parameters ask for gradients."""
        own = {id(parameter) for parameter in self.parameters}
        for parameter in self.net.parameters():
            parameter.requires_grad_(id(parameter) in own)

    def step(self, batch, weight=1.0):
        """One update.

        Args:
            batch: Batch dict on the device.
            weight: Factor on the loss (a rank's share of an uneven batch).

        Returns:
            (loss, outputs), both detached, from before the update.
        """
        if self.schedule is not None:
            learning_rate = self.schedule.step()
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, outputs = self.backward(batch, weight)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss, outputs

    def backward(self, batch, weight=1.0):
        """Add the gradient of the mean loss over ``batch`` to that of the parameters; see `step`."""
        parts, total, outputs = split_batch(batch, self.micro_batch), 0.0, []
        for i, (size, part) in enumerate(parts):
            share = size / len(batch["label"])
            with self._communication(last=i + 1 == len(parts)):
                with self.precision.autocast():
                    found = self.model(part)
                loss = self.criterion(found.float(), part)
                self.scaler.scale(loss * (weight * share)).backward()
            total = total + loss.detach() * share
            outputs.append(found.detach().float())
        return total, torch.cat(outputs)

    def _communication(self, last):
        """DDP averages gradients once, after the last micro-batch."""
        parallel = isinstance(self.model, nn.parallel.DistributedDataParallel)
        return contextlib.nullcontext() if last or not parallel else self.model.no_sync()

    @torch.no_grad()
    def predict(self, batch):
        """Outputs without an update, in the network's present mode."""
        with self.precision.autocast():
            return self.net(batch).float()

    def state_dict(self):
        """State of optimiser, schedule and scaler."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state):
        """Continue from `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])


class _InAutocast(nn.Module):
    """DataParallel runs replicas in threads, which do not inherit the autocast type."""

    def __init__(self, net, precision):
        super().__init__()
        self.net, self.precision = net, precision

    def forward(self, batch):
        with self.precision.autocast():
            return self.net(batch)


def data_parallel(run, precision, find_unused=False):
    """Return what an `Updater` wraps a network in: DDP under torchrun, DataParallel if asked, or None."""
    if world_size() > 1:
        devices = [run.device.index] if run.device.type == "cuda" else None
        return lambda net: nn.parallel.DistributedDataParallel(net, devices, find_unused_parameters=find_unused)
    if run.args.parallel and run.device.type == "cuda" and torch.cuda.device_count() > 1:
        first = run.device.index or 0
        devices = [first, *(index for index in range(torch.cuda.device_count()) if index != first)]
        return lambda net: nn.DataParallel(_InAutocast(net, precision), devices)
    return None


def train_one_epoch(updater, loader, metric, *, epoch, device, description="train", second_forward=False):
    """One pass of updates in training mode.

    Args:
        updater: See `Updater`.
        loader: From `build_loader`; its order is set by ``epoch``.
        metric: Object with ``reset``, ``update(outputs, batch)`` and ``compute``.
        epoch: Number of the epoch, from 0.
        device: Where the batches go.
        description: Name of the pass in the progress bar and in errors.
        second_forward: Measure loss and metric by another forward after each update, as the original
            search does, instead of from the outputs that the update has anyway.

    Returns:
        dict of "loss" and the metric's values.

    Raises:
        UserError: the loss is not finite.
    """
    updater.activate()
    updater.net.train()
    metric.reset()
    loader.batch_sampler.epoch = epoch
    sizes, losses = loader.batch_sampler.sizes(), LossMeter()
    for size, batch in zip(sizes, progress(loader, f"epoch {epoch} {description}", disable=rank() > 0), strict=True):
        batch = to_device(batch, device)
        loss, outputs = updater.step(batch, len(batch["label"]) * world_size() / size)
        if second_forward:
            outputs = updater.predict(batch)
            loss = updater.criterion(outputs, batch)
        losses.update(loss, len(batch["label"]))
        metric.update(outputs, batch)
    result = {"loss": losses.compute(), **metric.compute()}
    if not math.isfinite(result["loss"]):
        raise UserError(
            f"the {description} loss of epoch {epoch} is {result['loss']}; what was saved before this epoch is "
            "kept; a smaller --eta_max, --amp off, or data without NaN usually mends it"
        )
    return result


@torch.no_grad()
def evaluate(net, loader, criterion, metric, *, device, precision=None, description="evaluate"):
    """Loss and metric in evaluation mode; returns a dict like `train_one_epoch`."""
    precision = precision or Precision()
    share_buffers(net)
    net.eval()
    metric.reset()
    losses = LossMeter()
    for batch in progress(loader, description, disable=rank() > 0):
        if not len(batch["label"]):  # fewer samples in the last batch than ranks
            continue
        batch = to_device(batch, device)
        with precision.autocast():
            outputs = net(batch)
        outputs = outputs.float()
        losses.update(criterion(outputs, batch), len(batch["label"]))
        metric.update(outputs, batch)
    return {"loss": losses.compute(), **metric.compute()}


class LossMeter:
    """Mean of per-batch means, weighted by batch size, over all ranks; stays on the device until asked."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def update(self, loss, count):
        """Add the mean ``loss`` of ``count`` samples."""
        self.total = self.total + loss.double() * count
        self.count += count

    def compute(self):
        """The mean; NaN without samples."""
        parts = gather((float(self.total), self.count))
        count = sum(part[1] for part in parts)
        return sum(part[0] for part in parts) / count if count else math.nan


class Selection:
    """Keeps the best epoch by one metric of one split.

    Args:
        split: Split whose score decides, or ``last`` for the last epoch.
        metric: Name of the score, the larger the better.
        explanation: What the choice means, in words, for logs and results.
        later_wins_ties: Of epochs with equal scores the latest counts, instead of the first.
    """

    def __init__(self, split, metric, explanation, later_wins_ties=False):
        self.split, self.metric, self.explanation = split, metric, explanation
        self.later_wins_ties = later_wins_ties
        self.epoch, self.score = None, None

    def update(self, epoch, record):
        """Look at an epoch's record (split -> values); return whether it is the best so far."""
        score = None if self.split == "last" else record[self.split][self.metric]
        if self.split != "last" and self.epoch is not None and not self._better(score):
            return False
        self.epoch, self.score = epoch, score
        return True

    def _better(self, score):
        if math.isnan(self.score):
            return self.later_wins_ties or not math.isnan(score)
        return score > self.score or (self.later_wins_ties and score == self.score)

    def state_dict(self):
        """Best epoch and score."""
        return {"epoch": self.epoch, "score": self.score}

    def load_state_dict(self, state):
        """Continue from `state_dict`."""
        self.epoch, self.score = state["epoch"], state["score"]


def fit(run, epochs, one_epoch, selection, best_state):
    """Run epochs until ``epochs`` or a stop, saving after each; an interrupted run continues where it was.

    Args:
        run: The `Run`; it knows the epoch to start with and what to save.
        epochs: Number of epochs.
        one_epoch: epoch -> record: split -> dict of floats, other entries as they are; a true
            ``record["stop"]`` ends the run.
        selection: See `Selection`.
        best_state: () -> dict that is saved as ``best.pth`` when an epoch is the best so far.
    """
    while run.epoch < epochs and not run.stopped:
        epoch, started = run.epoch, time.perf_counter()
        record = one_epoch(epoch)
        run.stopped = bool(record.pop("stop", False))
        best = selection.update(epoch, record)
        record = {"epoch": epoch, **record, "best": best, "seconds": round(time.perf_counter() - started, 3)}
        run.finish_epoch(record, {**best_state(), **selection.state_dict()} if best else None)
