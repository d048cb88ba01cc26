"""Trained networks that predict from raw inputs: they know their task, their classes, and how to prepare inputs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from datasets.own.dataset import tensors_of
from datasets.own.raw import RawInputs
from datasets.own.tables import BadRow
from engine.updates import in_float32
from metrics.classification import THRESHOLD
from util.cli import UserError
from util.nested import to_device

if TYPE_CHECKING:
    from models.backbone_net import UnimodalNet
    from models.bmnas.fusion_net import FusionNet
    from models.mmnas.net import MultimodalNet
    from tasks.mmnas.checkpoints import Checkpoint
    from tasks.own_split import SavedSplit
    from tasks.task import AttentionTask, FusionTask


class FusionModel(nn.Module):
    """A trained network of BM-NAS: fusion or unimodal.

    Args:
        net: The network.
        task: Its task.
        args: The arguments of its training.
        folder: The run folder.
        classes: Names of the classes; the others are named ``class 7`` by their number.
        label: Kind of label; None: ``classes`` or ``class``, according to the task.

    Attributes:
        label: ``class``, ``classes`` (several per sample) or ``number``.
        label_name: Name of what is predicted.
        inputs: Names of the inputs that the network has a backbone for.
    """

    def __init__(
        self,
        net: FusionNet | UnimodalNet,
        task: FusionTask,
        args: Namespace,
        folder: Path,
        *,
        classes: Sequence[str] = (),
        label: str | None = None,
    ) -> None:
        super().__init__()
        self.net: Any = net
        self.task, self.args, self.folder = task, args, folder
        self.label_name = "label"
        self.label = label or ("classes" if task.multilabel else "class")
        count = args.num_outputs
        self.classes = [*classes[:count], *(f"class {number}" for number in range(len(classes), count))]
        self.inputs = tuple(net.backbones)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.parameters()).device

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Outputs (N, K) for a batch of the task's data; `probabilities` converts them."""
        return self.net(batch)

    def is_read(self, name: str) -> bool:
        """Whether the outputs depend on the input ``name``."""
        return bool(self.net.needed(name))

    def may_lack(self, name: str) -> bool:
        """Whether the network has learned values for a missing input ``name``, or does not read it at all."""
        return not self.is_read(name) or name in getattr(self.net, "optional", ())

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities (N, K) of the classes; if the label is a number, the numbers (N, 1) in their own units."""
        if self.label == "number":
            loss: Any = self.task.loss
            return outputs * loss.deviation + loss.mean
        return outputs.sigmoid() if self.label == "classes" else outputs.softmax(1)

    def predict(self, samples: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
        """Predict one sample or several.

        Args:
            samples: A sample, or a list of samples. A sample is a dict input -> raw value. For own data see
                `datasets.own.raw.RawInputs.value`; for the papers' tasks a value is an array as the data set provides
                it, without the batch axis. A missing input is None or left out.

        Returns:
            A dict for a sample, a list of dicts for a list. It has ``prediction`` (a class, a list of classes, or a
            number); for classes also ``probabilities``, class -> float; for a single class also its ``probability``.

        Raises:
            UserError: An input is unknown or invalid, or an input is missing that the network needs.
        """
        if isinstance(samples, Mapping):
            return self.predict([samples])[0]
        if not samples:
            return []
        for sample in samples:
            if unknown := [name for name in sample if name not in self.known_inputs()]:
                raise UserError(f"the network has no input {unknown[0]!r}; it has {', '.join(self.known_inputs())}")
        names = [name for name in self.inputs if self.is_read(name)]
        return self.predict_values({name: [self.read(name, sample.get(name)) for sample in samples] for name in names})

    @torch.no_grad()
    def predict_values(self, values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """Like `predict`, but from values that `read` has already converted.

        Args:
            values: For every input that the network reads (see `is_read`), the results of `read`, one per sample.
        """
        batch = to_device(self.batch(values), self.device)
        return self._described(self.probabilities(in_float32(self.net.eval()(batch))).cpu())

    def known_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that a sample may have, including those that the network does not read."""
        return self.inputs

    def read(self, name: str, value: Any) -> Any:
        """Convert a raw value to the form in which the data set provides it; None if it is missing."""
        return value

    def batch(self, values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """The batch dict of values, see `predict_values`."""
        made: dict[str, Any] = {}
        for name, column in values.items():
            there = [value is not None for value in column]
            if not all(there):
                self.check_may_lack(name)
                made[f"{name}_present"] = torch.tensor(there)
            if any(there):
                made[name] = self.tensors(name, column)
        if empty := next((row for row in zip(*values.values(), strict=True) if all(one is None for one in row)), None):
            raise UserError(f"a sample has none of the {len(empty)} inputs that the network reads: {', '.join(values)}")
        return made

    def check_may_lack(self, name: str) -> None:
        """Raise a `UserError` if the input ``name`` may not be missing."""
        if not self.may_lack(name):
            raise UserError(
                f"{self.folder}: the network cannot do without {name}; provide it, or train a network for missing "
                "inputs with --modality_dropout 0.2"
            )

    def tensors(self, name: str, values: Sequence[Any]) -> Any:
        """Values of one input as tensors that the network reads; zeros for those that are None."""
        first = next(torch.as_tensor(np.asarray(value)) for value in values if value is not None)
        rows = [torch.zeros_like(first) if value is None else torch.as_tensor(np.asarray(value)) for value in values]
        if wrong := next((row for row in rows if row.shape != first.shape), None):
            raise UserError(
                f"{name}: samples have the shapes {tuple(first.shape)} and {tuple(wrong.shape)}; expected equal shapes"
            )
        return torch.stack(rows)

    def _described(self, values):
        rows: list[dict[str, Any]] = []
        for row in values.double():
            if self.label == "number":
                rows.append({"prediction": float(row[0])})
                continue
            named = dict(zip(self.classes, row.tolist(), strict=True))
            if self.label == "classes":
                chosen: Any = [name for name, value in named.items() if value > THRESHOLD]
                rows.append({"prediction": chosen, "probabilities": named})
            else:
                best = max(named, key=named.__getitem__)
                rows.append({"prediction": best, "probability": named[best], "probabilities": named})
        return rows


class OwnModel(FusionModel):
    """A trained network on your own data.

    Args:
        net, task, args, folder: See `FusionModel`.
        split: What its training recorded about the data.

    Attributes:
        manifest: `datasets.own.manifest.Manifest` of the data.
        facts: Their ``own.json``, see `tasks.own_split.SavedSplit`.
        raw: Reads raw inputs as the preparation of the data did.
    """

    def __init__(
        self, net: FusionNet | UnimodalNet, task: FusionTask, args: Namespace, folder: Path, *, split: SavedSplit
    ) -> None:
        label = split.manifest.label
        super().__init__(net, task, args, folder, classes=label.classes, label=label.kind)
        self.manifest, self.facts, self.label_name = split.manifest, split.facts, label.name
        self.raw = RawInputs(split.manifest, split.facts)

    def known_inputs(self) -> tuple[str, ...]:
        """All inputs of the data."""
        return tuple(self.manifest.modalities)

    def read(self, name: str, value: Any) -> Any:
        """Convert a raw value (see `datasets.own.raw.RawInputs.value`) as preparation does; None if it is missing."""
        try:
            return self.raw.value(name, value)
        except BadRow as reason:
            raise UserError(f"{name}: the value {reason}") from None

    def tensors(self, name: str, values: Sequence[Any]) -> Any:
        """Convert values from `datasets.own.OwnData.raw` to tensors that the network reads."""
        prepare = self.net.backbones[name].preparation
        return tensors_of(self.manifest.modalities[name], values) if prepare is None else prepare(list(values))


class AttentionModel(nn.Module):
    """A trained network of MMNas; the prediction scripts (``predict_vqa.py``, ...) read pictures and texts for it.

    Args:
        net: The network.
        task: Its task.
        args: The arguments of its training.
        folder: The run folder.
        checkpoint: Its `tasks.mmnas.checkpoints.Checkpoint`, with vocabulary and answers in ``metadata``.
    """

    def __init__(
        self, net: MultimodalNet, task: AttentionTask, args: Namespace, folder: Path, checkpoint: Checkpoint
    ) -> None:
        super().__init__()
        self.net: Any = net
        self.task, self.args, self.folder = task, args, folder
        self.metadata, self.architecture = checkpoint.metadata or {}, checkpoint.architecture

    def forward(self, batch: dict[str, Any]) -> Any:
        """Outputs of the network for a batch, see `models.mmnas.net`."""
        return self.net(batch)
