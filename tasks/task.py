"""Defines what a task is: its data, networks, loss and metric in one checked object. The recipes (scripts) do the rest.

To add a task, write one module that builds a `FusionTask` (BM-NAS) or an `AttentionTask` (MMNas), and the scripts; see
``docs/extend.md``.
"""

from __future__ import annotations

import dataclasses
import inspect
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from util.cli import UserError

if TYPE_CHECKING:
    import torch

Batch = dict[str, Any]


class SplitData(Protocol):
    """One split of a data set.

    Attributes:
        split: Its name.
        description: Describes the data in results.
        synthetic: Whether the data are synthetic.
        identity: A string that changes only with the content, for ``--resume``.
    """

    split: str
    description: str
    synthetic: bool
    identity: str

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch of samples: tensors with a batch axis by name, ``label`` among them."""

    def read(self, indices: Sequence[int], **which: Any) -> Batch:
        """Like `__getitems__`; ``only=names`` and ``without=names`` select the inputs, ``epoch`` the view."""


class LabelledData(SplitData, Protocol):
    """A split for BM-NAS.

    Attributes:
        num_labels: Number of classes.
        fingerprint: Like ``identity``, but it changes with everything that decoded inputs depend on. It is part of the
            key of stored features.
    """

    num_labels: int
    fingerprint: str

    def distinct(self, name: str) -> Any:
        """int64 (samples, views): number of the distinct input of each sample; None if inputs differ in each epoch."""


class QuestionData(SplitData, Protocol):
    """A split for MMNas: texts about regions of images.

    Attributes:
        vocabulary: `datasets.text.Vocabulary` of the words.
        feature_size: Width of a region's feature vector.
        extraction: How features are extracted from an image (dict), or None if unknown.
        has_answers: Whether the split can be scored.
    """

    vocabulary: Any
    feature_size: int
    extraction: dict | None
    has_answers: bool


class Metric(Protocol):
    """A score of a pass over data.

    Attributes:
        name: The score that selects an epoch (larger is better), a key of the dict of `compute`.
    """

    name: str

    def reset(self) -> None:
        """Start a pass."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Add the network's outputs for a batch."""

    def compute(self) -> dict[str, float]:
        """Scores of the pass, over all processes."""


class DescribedMetric(Metric, Protocol):
    """A score for BM-NAS.

    Attributes:
        description: What the score means, in words, for logs and results.
    """

    description: str


class Backbone(Protocol):
    """A unimodal network whose inner features a fusion reads. Shapes of features do not depend on the samples.

    Attributes:
        channels: Channels of each feature that a fusion may read, from the input to the output. One further feature may
            follow for the head alone, such as a mean over positions; it has no entry here.
        cacheable: Whether reading stored features is faster than computing them.
        deterministic_features: Whether its features are the same in training mode: no dropout, no batch norm.
        trained: Whether it is trained when the others are frozen; optional, False if the attribute is missing.
        stops_early: Whether it stops after the last requested feature; optional, True if the attribute is missing.
        source: Describes in results where its weights come from.
    """

    channels: Sequence[int]
    cacheable: bool
    deterministic_features: bool
    source: str

    def __call__(self, inputs: Any, count: int | None = None) -> list[torch.Tensor]:
        """The first ``count`` (None: all) features (N, C, ...) of inputs: a tensor (N, ...), or a dict of them."""

    def head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Class logits (N, K) from all features.

        A feature of three or more axes may already be max-pooled by `models.backbone_net.pool_feature`, and the logits
        must not depend on that. This holds if the head takes a maximum over positions, or reads a last feature (N, C).
        """

    def modules_of(self, count: int) -> list[torch.nn.Module]:
        """The modules that the first ``count`` features depend on."""


@dataclasses.dataclass(frozen=True)
class Modality:
    """One input of a BM-NAS task and its backbone.

    Attributes:
        features: Names of the backbone's features, in order.
        head_only: Whether training only its head makes sense, because the backbone has pretrained weights.
        published: Prefix of the backbone in the original's state dicts; None if there is no original.
    """

    features: tuple[str, ...]
    head_only: bool
    published: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionTask:
    """A task of BM-NAS: classify samples of several modalities by fusing features of their backbones.

    Attributes:
        name: Short name, as in the scripts' names.
        modalities: Name of an input in a batch -> `Modality`, in the order of the features.
        open_split: (args, split) -> `LabelledData`.
        open_splits: (args, splits) -> split -> `LabelledData`, where splits share what is opened; None: `open_split`
            opens one after the other.
        build_backbones: (args, weights=None) -> name of a modality -> `Backbone`. ``weights="random"`` if a checkpoint
            of the complete network is loaded next.
        build_unimodal_backbone: (args, weights=None) -> the `Backbone` of ``args.modality``, for training.
        loss: (outputs, batch) -> scalar, the mean over the samples.
        metric: args -> `DescribedMetric`.
        pool: args -> (rows, columns) to which the reshape layers pool features.
        train_splits: Value of ``--train_on`` -> splits that an epoch trains on, in this order.
        multilabel: Whether a label is a row of zeros and ones (N, K) instead of a class number (N,).
        optional: Modalities whose inputs may be missing; ``{name}_present``, bool (N,), in a batch marks those present.
        later_wins_ties: Select the later of two epochs with equal scores.
        inherited: The task's own flags that a found script inherits from the search.
        demo: Defaults of all scripts under ``--demo``.
        demo_data: Arguments of ``datasets/make_demo.py`` that make the demo's data; (): there are none.
        feature_names: Names of all features that a fusion may read, in order; follows from ``modalities``.
        num_features: Their number.
    """

    name: str
    modalities: Mapping[str, Modality]
    open_split: Callable[[Namespace, str], LabelledData]
    build_backbones: Callable[..., dict[str, Any]]
    build_unimodal_backbone: Callable[..., Any]
    loss: Callable[[Any, Batch], Any]
    metric: Callable[[Namespace], DescribedMetric]
    pool: Callable[[Namespace], tuple[int, int]]
    train_splits: Mapping[str, tuple[str, ...]]
    multilabel: bool
    open_splits: Callable[[Namespace, Iterable[str]], dict[str, LabelledData]] | None = None
    optional: frozenset[str] = frozenset()
    later_wins_ties: bool = False
    inherited: frozenset[str] = frozenset()
    demo: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    demo_data: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = dataclasses.field(init=False, default=())
    num_features: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        faults = _faults(self)
        if not faults and not all(modality.features for modality in self.modalities.values()):
            faults.append("every modality offers at least one feature")
        if not faults:
            names = tuple(name for modality in self.modalities.values() for name in modality.features)
            object.__setattr__(self, "feature_names", names)
            object.__setattr__(self, "num_features", len(names))
        if not {"train", "train+dev"} <= set(self.train_splits):
            faults.append('train_splits has "train" and "train+dev"')
        _refuse(f"the task {self.name}", faults)

    @property
    def last_features(self) -> tuple[int, ...]:
        """Index of each modality's last feature: what late fusion reads."""
        last, count = [], 0
        for modality in self.modalities.values():
            count += len(modality.features)
            last.append(count - 1)
        return tuple(last)

    @property
    def published_names(self) -> dict[str, str]:
        """Name of a modality -> prefix of its backbone in the original's state dicts."""
        return {name: modality.published for name, modality in self.modalities.items() if modality.published}


class Validation(NamedTuple):
    """What is scored after every epoch of a training.

    Attributes:
        split: Its data.
        score: The score that ``--select_on val`` uses, a key of the scorer's dict.
    """

    split: str
    score: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionTask:
    """A task of MMNas: answer a text about an image with an encoder (words) and a decoder (regions).

    Attributes:
        name: Short name, as in the scripts' names.
        open_search: args -> {"train": data of the weight steps, "held_out": data of the architecture steps}, and the
            split that scores the derived architecture, if it is another one.
        open_training: args -> {"train": ...} and every split that can be scored.
        open_eval_split: (args, metadata) -> (name, `QuestionData`) of the split of ``--RUN val`` or ``test``.
        metadata: data -> plain dict of what a network needs and a checkpoint must contain: words, answers, ...
        build_net: (args, metadata, architecture, trained=False) -> network. ``architecture=None``: the supernet;
            ``trained``: a checkpoint is loaded next, so no word vectors are needed.
        loss: args -> loss, see `engine.updates.OptimizerStep`.
        loss_reduction: ``sum`` for the gradient of the sum over the samples, else ``mean``.
        training_metric: (args, data) -> `Metric` of the outputs of training steps.
        metric_text: args -> description of the scores.
        build_scorer: (args, run, data, precision, split) -> function net -> scores.
        validation: A `Validation`, or its split and score as a tuple.
        write_predictions: (args, run, data, scorer) -> paths of the files; called after ``scorer``.
        checkpoint_args: Arguments that a checkpoint stores besides the network's sizes: all that scores depend on.
        demo: Defaults of all scripts under ``--demo``.
        before_epoch: (args, run, net, data, precision) -> None, or a function to call before the updates of each
            epoch, see `engine.training.train_network`.
        estimate_passes: (args, data, splits) -> the forward passes of an epoch, for ``--estimate``; None if the splits
            are scored sample by sample.
        validate_args: args -> None; raises `UserError` if flags of the task contradict each other.
        candidate_args: Defaults of a search by trainings: those of a training, where a search has others.
    """

    name: str
    open_search: Callable[[Namespace], dict[str, QuestionData]]
    open_training: Callable[[Namespace], dict[str, QuestionData]]
    open_eval_split: Callable[[Namespace, dict | None], tuple[str, QuestionData]]
    metadata: Callable[[QuestionData], dict]
    build_net: Callable[..., Any]
    loss: Callable[[Namespace], Callable[[Any, Batch], Any]]
    loss_reduction: str
    training_metric: Callable[[Namespace, QuestionData], Metric]
    metric_text: Callable[[Namespace], str]
    build_scorer: Callable[..., Callable[[Any], dict[str, float]]]
    validation: Validation
    write_predictions: Callable[..., Sequence[Path | str]]
    checkpoint_args: tuple[str, ...]
    demo: Mapping[str, Any]
    before_epoch: Callable[..., Any] = lambda *unused: None
    estimate_passes: Callable[..., list] | None = None
    validate_args: Callable[[Namespace], None] = lambda args: None
    candidate_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = _faults(self)
        if isinstance(self.validation, str) or len(self.validation) != 2:
            faults.append("validation is a tuple of a split and a score")
        else:
            object.__setattr__(self, "validation", Validation(*self.validation))
        if self.loss_reduction not in ("mean", "sum"):
            faults.append('loss_reduction is "mean" or "sum"')
        _refuse(f"the task {self.name}", faults)


def _faults(task: FusionTask | AttentionTask) -> list[str]:
    """Descriptions of the fields of a task that have the wrong type."""
    faults = []
    for field in dataclasses.fields(task):
        value, kind = getattr(task, field.name), str(field.type)
        if kind.startswith("Callable") and not callable(value) and not (value is None and "None" in kind):
            faults.append(f"{field.name} is a function")
        elif kind.startswith("Mapping") and not isinstance(value, Mapping):
            faults.append(f"{field.name} is a dict")
        elif kind.startswith(("tuple", "frozenset")) and isinstance(value, str):
            faults.append(f"{field.name} is a {kind}")
    return faults


def _refuse(subject: str, faults: list[str]) -> None:
    if faults:
        raise UserError(f"{subject} does not fit tasks/task.py; expected: {'; '.join(faults)}")


def check_parts(value: Any, protocol: type, what: str) -> None:
    """Check that an object has all attributes and methods of a protocol, before a long run starts.

    Args:
        value: The object.
        protocol: One of the protocols above.
        what: Describes the object in the error.

    Raises:
        UserError: attributes or methods are missing; the message names them.
    """
    names = {name for kind in protocol.__mro__ if kind is not object for name in vars(kind).get("__annotations__", {})}
    names |= {
        name
        for kind in protocol.__mro__
        if kind not in (object, Protocol)
        for name, part in vars(kind).items()
        if inspect.isfunction(part) and name not in ("__init__", "_no_init_or_replace_init", "__subclasshook__")
    }
    if missing := sorted(name for name in names if not hasattr(value, name)):
        raise UserError(
            f"{what} ({type(value).__name__}) lacks {', '.join(missing)}; see {protocol.__name__} in tasks/task.py"
        )


def data_facts(folder: str | Path, data: Mapping[str, SplitData]) -> dict[str, Any]:
    """Facts about the data for a result: plain values.

    Args:
        folder: Folder of the data.
        data: Split name -> data, at least one.
    """
    first = next(iter(data.values()))
    return {
        "folder": str(folder),
        "description": first.description,
        "synthetic": first.synthetic,
        "samples": {split: len(dataset) for split, dataset in data.items()},
        "identity": {split: dataset.identity for split, dataset in data.items()},
    }
