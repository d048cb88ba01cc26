"""Measures how the test scores of a trained network fall when inputs are removed or disturbed."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from datasets.own import open_own
from engine.loading import build_loader, total_batch
from engine.training import evaluate
from engine.updates import Precision
from tasks.found_models import FusionModel, OwnModel
from util.files import read_json, write_json
from util.nested import map_tensors, parts_of
from util.plots import plot_curves

RESULT_FILE, PICTURE = "robustness.json", "robustness.svg"
PLACEHOLDER, ZEROS, EMPTY = "learned values", "zeros", "as if missing"


class Disturbed(nn.Module):
    """A network whose batches are changed before it sees them.

    Args:
        net: The network.
        change: Function batch -> batch.
    """

    def __init__(self, net: nn.Module, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, batch: dict[str, Any]) -> Any:
        """Outputs of the network for the changed batch."""
        return self.net(self.change(dict(batch)))


class Spread:
    """Measures the standard deviation of each input over the batches of a pass, per tensor and without padding."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._sums: dict[tuple[str, str], list[float]] = {}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take a batch into account; returns it unchanged."""
        for name in self.names:
            for part, value in parts_of(batch[name]).items():
                if not is_disturbed(value):
                    continue
                known = _valid(batch[name], value).double()
                sums = self._sums.setdefault((name, part), [0.0, 0.0, 0.0])
                for place, number in enumerate((known.numel(), known.sum(), known.square().sum())):
                    sums[place] += float(number)
        return batch

    def deviation(self, name: str, part: str) -> float:
        """Standard deviation of a tensor of an input; 0 if it has none."""
        count, total, squares = self._sums.get((name, part), (0.0, 0.0, 0.0))
        return math.sqrt(max(0.0, squares / count - (total / count) ** 2)) if count else 0.0


def is_disturbed(value: torch.Tensor) -> bool:
    """Whether noise is added to a tensor: yes for values and pixels, no for lengths, masks and words."""
    return value.is_floating_point() or value.dtype in (torch.uint8, torch.int16)


def _valid(inputs, value):
    """The values of a tensor that are not padding."""
    if not isinstance(inputs, dict) or "length" not in inputs or value.dim() < 2:
        return value
    return value[torch.arange(value.shape[1], device=value.device) < inputs["length"][:, None]]


@dataclasses.dataclass
class Noise:
    """Adds Gaussian noise to one input; pixels are rounded and stay in their range.

    Args:
        name: The input.
        strength: Standard deviation of the noise, relative to that of the input.
        spread: A `Spread` that has seen the data.
        generator: CPU generator, so that the noise does not depend on the device.
    """

    name: str
    strength: float
    spread: Spread
    generator: torch.Generator

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with noise."""
        made = {part: self._add(part, value) for part, value in parts_of(batch[self.name]).items()}
        return {**batch, self.name: made[""] if isinstance(batch[self.name], torch.Tensor) else made}

    def _add(self, part, value):
        if not is_disturbed(value):
            return value
        noise = torch.randn(value.shape, generator=self.generator).to(value.device)
        noisy = value.float() + self.strength * self.spread.deviation(self.name, part) * noise
        if value.is_floating_point():
            return noisy.to(value.dtype)
        limits = torch.iinfo(value.dtype)
        return noisy.round().clamp(limits.min, limits.max).to(value.dtype)


@dataclasses.dataclass(frozen=True)
class WithoutWords:
    """A preparation of texts that drops each word with some probability, the same words in every process.

    Args:
        prepare: The encoder's preparation.
        rate: Probability of dropping a word.
        seed: Seed of the draws.
    """

    prepare: Callable[[list], Any]
    rate: float
    seed: int

    def __call__(self, texts: list) -> Any:
        """Prepare the thinned texts."""
        return self.prepare([text if text is None else self._thinned(text) for text in texts])

    def _thinned(self, text):
        digest = hashlib.blake2b(f"{self.seed} {text}".encode("utf-8", "replace"), digest_size=8).digest()
        rng = random.Random(int.from_bytes(digest, "little"))
        return " ".join(word for word in text.split() if rng.random() >= self.rate)


@dataclasses.dataclass(frozen=True)
class Missing:
    """A preparation that treats the input as missing in every sample."""

    prepare: Callable[[list], Any]

    def __call__(self, values: list) -> Any:
        """Prepare as many missing values."""
        return self.prepare([None] * len(values))


class Robustness:
    """Scores of a network on the unchanged and the disturbed test split.

    Args:
        model: The network, on its device.
        seed: Seed of the noise.

    Raises:
        UserError: The data of the run cannot be read.
    """

    def __init__(self, model: FusionModel, seed: int = 0) -> None:
        self.model, self.seed = model, seed
        self.data: Any = model.task.open_split(model.args, "test")
        self.names = [name for name in model.inputs if model.is_read(name)]
        self.spread = Spread(self.names)

    def _score(self, change=lambda batch: batch, prepare=None, description="test"):
        """Scores of one pass; ``prepare``: input -> preparation that replaces the usual one (own data)."""
        args, device, data = self.model.args, self.model.device, self.data
        if prepare:
            data = open_own(args.datadir, "test", {**data.prepare, **prepare}, args.small_dataset)
        options: dict[str, Any] = {"shuffle": False, "seed": self.seed, "num_workers": args.num_workers}
        loader = build_loader(data, total_batch(args), device=device, min_share=1, **options)
        precision, metric = Precision(args.amp, device), self.model.task.metric(args)
        passed: dict[str, Any] = {"device": device, "precision": precision, "description": description}
        return evaluate(Disturbed(self.model.net, change), loader, self.model.task.loss, metric, **passed)

    def clean(self) -> dict[str, float]:
        """Scores on the unchanged test split; also measures the inputs' deviations, which `noisy` needs."""
        return self._score(self.spread, description="as it is")

    def how_removed(self, name: str) -> str:
        """What replaces a removed input: learned values if the network has any, else zeros or a missing value."""
        if name in getattr(self.model.net, "optional", ()):
            return PLACEHOLDER
        return EMPTY if name in self._prepared() else ZEROS

    def _prepared(self):
        return self.data.prepare if isinstance(self.model, OwnModel) else {}

    def without(self, name: str) -> dict[str, float]:
        """Scores when every sample lacks the input ``name``."""
        how, description = self.how_removed(name), f"without {name}"
        if how == EMPTY:
            return self._score(prepare={name: Missing(self._prepared()[name])}, description=description)

        def removed(batch):
            if how == ZEROS:
                return {**batch, name: map_tensors(torch.zeros_like, batch[name])}
            present = torch.zeros(len(batch["label"]), dtype=torch.bool, device=batch["label"].device)
            return {**batch, f"{name}_present": present}

        return self._score(removed, description=description)

    def how_noisy(self, name: str) -> str:
        """Description of the strength of the noise for an input."""
        if self._is_text(name):
            return "share of words that are dropped"
        return "standard deviation of Gaussian noise, relative to that of the input on test"

    def _is_text(self, name):
        return isinstance(self.model, OwnModel) and self.model.manifest.modalities[name].kind == "text"

    def noisy(self, name: str, strength: float) -> dict[str, float]:
        """Scores when the input ``name`` is disturbed, see `how_noisy`; call `clean` first."""
        description = f"{name}, noise {strength:g}"
        if self._is_text(name):
            thinned = WithoutWords(self._prepared()[name], min(1.0, strength), self.seed)
            return self._score(prepare={name: thinned}, description=description)
        generator = torch.Generator().manual_seed(self.seed)
        return self._score(Noise(name, strength, self.spread, generator), description=description)


def measure(model: FusionModel, strengths: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Score a network with each input removed and disturbed, and write the result into its run folder.

    Args:
        model: The network, on its device.
        strengths: Strengths of the noise, see `Robustness.how_noisy`.
        seed: Seed of the noise.

    Returns:
        Content of ``robustness.json``.
    """
    test = Robustness(model, seed)
    result: dict[str, Any] = {
        "run": str(model.folder),
        "split": "test",
        "samples": len(test.data),
        "synthetic": test.data.synthetic,
        "same_data_as_tested": _is_tested(model, test.data),
        "metric": model.task.metric(model.args).description,
        "seed": seed,
        "clean": test.clean(),
        "without": {},
        "noise": {},
        "not_read": [name for name in model.inputs if not model.is_read(name)],
    }
    for name in test.names:
        result["without"][name] = {"instead": test.how_removed(name), "scores": test.without(name)}
        scores = {
            f"{strength:g}": test.noisy(name, strength) if strength else result["clean"] for strength in strengths
        }
        result["noise"][name] = {"strength": test.how_noisy(name), "scores": scores}
    score = model.task.metric(model.args).name
    result["curves"] = curves_of(result, strengths, score)
    write_json(model.folder / RESULT_FILE, result)
    panels = {curve["title"]: {**curve, "epochs": curve["x"]} for curve in result["curves"]}
    plot_curves(panels, model.folder / PICTURE, title=f"{score} on test")
    return result


def _is_tested(model, data):
    """Whether the training was tested on the same data; None if its result does not record that."""
    path = model.folder / "result.json"
    tested = read_json(path)["data"]["identity"].get("test") if path.is_file() else None
    return None if tested is None else tested == data.identity


def curves_of(result: Mapping[str, Any], strengths: Sequence[float], score: str) -> list[dict[str, Any]]:
    """One panel per input: the score by the strength of its noise, without noise, and without the input.

    The format is described in docs/report.md; `report.py` draws such curves.
    """
    curves = []
    for name, noise in result["noise"].items():
        values = [noise["scores"].get(f"{s:g}", result["clean"])[score] for s in strengths]
        alone = result["without"][name]
        lines = {score: values, "as it is": [result["clean"][score]] * len(strengths)}
        lines[f"without it ({alone['instead']})"] = [alone["scores"][score]] * len(strengths)
        label = "words dropped" if "words" in noise["strength"] else "noise"
        curves.append({"title": name, "x_label": label, "x": list(strengths), "series": lines})
    return curves
