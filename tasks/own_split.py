"""Facts about the train split that networks on your own data depend on: vocabulary, moments of labels, class weights.

A training computes them from the split and stores them in its run folder (``inputs.json``), so that the network can be
used without the data.
"""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from datasets.own import open_own, read_manifest
from datasets.own.manifest import Manifest, manifest_of, read_facts
from datasets.text.numbers import WordNumbers, frequent_words
from datasets.text.word_vectors import NONE, load_word_vectors
from models import losses
from models.encoders import libraries
from models.encoders.build import Plan, Words
from util.cli import UserError
from util.files import json_text, read_json

if TYPE_CHECKING:
    from engine.run import Run
    from models.backbone_net import UnimodalNet
    from models.bmnas.fusion_net import FusionNet
    from tasks.task import FusionTask

INPUTS_FILE = "inputs.json"
FORMAT, VERSION = "own-inputs", 1
# Entries of a prepared folder's manifest that are only needed to read its data.
_OF_THE_FOLDER = ("sums", "array_sums", "fingerprints", "request")


class Split(Protocol):
    """Facts about the train split, see the module's docstring."""

    def words(self, plan: Plan) -> Words:
        """The vocabulary of a text encoder ``words``, with word vectors."""

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of labels that are numbers.

        Raises:
            UserError: All labels are equal.
        """

    def class_weights(self, classes: int) -> list[float]:
        """Weight of each class: all classes have the same total weight, and the mean weight of a sample is 1."""


class TrainSplit:
    """Computes the facts of `Split` from a prepared folder.

    Args:
        args: The script's arguments; ``datadir`` and ``word_vectors`` are used.
    """

    def __init__(self, args: Namespace) -> None:
        self._args = args

    def words(self, plan: Plan) -> Words:
        """See `Split`."""
        train = open_own(self._args.datadir, "train")
        texts = (text for text in train.raw(plan.modality, range(len(train))) if text is not None)
        words = frequent_words(texts)
        vectors = load_word_vectors(self._args.word_vectors or NONE, list(words))
        matrix = None if vectors is None else torch.from_numpy(vectors.matrix)
        return Words(len(words), matrix, WordNumbers(words, plan.max_tokens))

    def _labels(self):
        train = open_own(self._args.datadir, "train")
        return train.read(range(len(train)), only=())["label"]

    def moments(self) -> tuple[float, float]:
        """See `Split`."""
        labels = self._labels().double()
        mean, deviation = float(labels.mean()), float(labels.std(correction=0))
        if not deviation > 0:
            raise UserError(f"{self._args.datadir}: all labels of train are equal, so there is nothing to learn")
        return mean, deviation

    def class_weights(self, classes: int) -> list[float]:
        """See `Split`."""
        counts = torch.bincount(self._labels(), minlength=classes)
        return [float(counts.sum() / (int((counts > 0).sum()) * count)) if count else 0.0 for count in counts]


def keep_inputs(run: Run, task: FusionTask, plans: Mapping[str, Plan], net: FusionNet | UnimodalNet) -> None:
    """Write what a user of the network needs in addition to its weights into the run folder, as ``inputs.json``.

    Args:
        run: The `Run` of a training.
        task: The task of its data.
        plans: Modality -> `Plan`, for all modalities.
        net: The network.
    """
    facts = read_facts(run.args.datadir)
    request = facts.get("request") or {}
    data = {name: value for name, value in facts.items() if name not in _OF_THE_FOLDER}
    data |= {"picture_size": request.get("picture_size", 256), "audio_rate": request.get("audio_rate", 0)}
    loss, words = task.loss, {}
    for name, backbone in net.backbones.items():
        if isinstance(backbone.preparation, WordNumbers):
            words[name] = {"words": list(backbone.preparation.words), "width": backbone.embedding.embedding_dim}
    labels: dict[str, Any] = {}
    if isinstance(loss, losses.StandardisedError):
        labels = {"mean": loss.mean, "deviation": loss.deviation}
    elif isinstance(loss, losses.WeightedCrossEntropy):
        labels = {"weights": loss.weights.tolist()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "data": data,
        "plans": {name: dataclasses.asdict(plan) for name, plan in plans.items()},
        "reads": list(net.backbones),
        "words": words,
        "labels": labels,
    }
    run.write(INPUTS_FILE, json_text(content) + "\n")


class SavedSplit:
    """Reads the facts of `Split` from the run folder of a training.

    Args:
        folder: The run folder.

    Raises:
        UserError: ``inputs.json`` is missing or damaged.

    Attributes:
        manifest: `Manifest` of the data.
        facts: The data's ``own.json`` without entries that only its reader needs; ``picture_size``, ``audio_rate``.
        plans: Modality -> `Plan`.
        reads: Modalities for which the network has an encoder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / INPUTS_FILE
        if not self.path.is_file():
            raise UserError(f"{folder} has no {INPUTS_FILE}; name the run folder of a training on own data")
        content = read_json(self.path)
        try:
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise ValueError
            self.facts = content["data"]
            self.plans = {name: _plan(values) for name, values in content["plans"].items()}
            self.reads = list(content["reads"])
            self._words, self._numbers = dict(content["words"]), dict(content["labels"])
            if not (set(self.reads) <= set(self.plans) == set(self.manifest.modalities)):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise UserError(f"{self.path} is not what a training writes (format {FORMAT}); restore the file") from None

    @cached_property
    def manifest(self) -> Manifest:
        """`Manifest` of the data."""
        return manifest_of(self.facts, self.path.parent)

    def words(self, plan: Plan) -> Words:
        """See `Split`; the vectors are zeros of the right size, to be overwritten by the checkpoint."""
        try:
            saved = self._words[plan.modality]
            words, width = tuple(map(str, saved["words"])), int(saved["width"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(f"{self.path} lacks the words of {plan.modality}; restore the file") from None
        return Words(len(words), torch.zeros(len(words), width), WordNumbers(words, plan.max_tokens))

    def moments(self) -> tuple[float, float]:
        """See `Split`."""
        return self._number("mean"), self._number("deviation")

    def class_weights(self, classes: int) -> list[float]:
        """See `Split`."""
        return list(self._number("weights"))

    def _number(self, name):
        if name not in self._numbers:
            raise UserError(f"{self.path} lacks {name} of the labels; restore the file")
        return self._numbers[name]


def _plan(values):
    """A `Plan` without weights, which are in the network's checkpoint."""
    size = values["size"]
    size = tuple(tuple(shape) for shape in size) if isinstance(size, list) else size
    taps = values["taps"] if values["taps"] is None else tuple(values["taps"])
    return Plan(**{**values, "size": size, "taps": taps, "weights": libraries.NONE})


def check_same_data(folder: Path | str, datadir: Path | str) -> None:
    """Check that data have the inputs and the label that a network was trained on.

    Args:
        folder: Run folder of the training. Without ``inputs.json`` there, nothing is checked.
        datadir: The prepared data.

    Raises:
        UserError: The inputs or the label differ.
    """
    if not (Path(folder) / INPUTS_FILE).is_file():
        return
    trained, given = SavedSplit(folder).manifest, read_manifest(datadir)
    known, found = ({name: (one.kind, one.size) for name, one in m.modalities.items()} for m in (trained, given))
    what = next((name for name in (*known, *found) if known.get(name) != found.get(name)), None)
    if what is not None:
        one, other = (_described(sizes.get(what)) for sizes in (found, known))
        reason = f"has {one} as the input {what}, but the training had {other}"
    elif (trained.label.kind, trained.label.classes) != (given.label.kind, given.label.classes):
        reason = f"has another label ({given.label.name}, {given.label.kind}), or other classes"
    else:
        return
    raise UserError(f"{datadir} {reason}; {folder} can only be tested on data like its own ({trained.name})")


def _described(form):
    if form is None:
        return "nothing"
    kind, size = form
    return kind if size is None else f"{kind} of size {size}"
