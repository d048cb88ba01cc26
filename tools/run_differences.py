"""Reads run folders and finds the differences between two of them.

A run becomes one flat dict, name -> value. Names are paths such as ``log.jsonl/0/train/loss`` or
``best.pth/net/fusion.edges.logits``; values are numbers, strings, None or tensors. Losses come first and weights last,
so that the first difference is the earliest one.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine.report import RENAMED
from util.checkpoint import load_checkpoint
from util.cli import UserError
from util.files import read_json

# Entries that may differ, by name, with the reason.
IGNORED = {
    "seconds": "time",
    "share of epoch": "time",
    "epoch_share": "time",
    "peak_memory_mb": "memory",
    "latency": "time",
    "git_commit": "version",
    "versions": "version",
    "device": "machine",
    "threads": "machine",
    "run": "identity, command and commits",
    "checksum": "of all the above",
    "search_id": "identity",
    "task": "a name that earlier versions did not record",
    "arguments": "paths and flags; the frozen command line watches the flags",
    "folder": "path",
    "from": "path",
    "space_from": "path",
    "predictions": "paths; predictions.json itself is compared",
    "backbones_started_from": "paths",
    "protocol": "words for people",
    "description": "words for people",
    "warnings": "words for people",
}
# Names of parts of the MMNas network in version 0.1.0, as rules of `rename`.
SINCE_0_1_0 = [
    (re.compile(r"/backbone\.(enc|dec)"), r"/encoder_decoder.\1"),
    (re.compile(r"alpha_prob$"), "alpha_logits"),
    (re.compile(r"/parameters/backbone$"), "/parameters/encoder_decoder"),
]
# Entries of last.pth that are compared; the others are random states and times.
CHECKPOINT_ENTRIES = ("epoch", "stopped", "objects", "net", "genotype")
# Differences are relative, but absolute for values below this: a loss of 1e-9 is as good as one of 2e-9.
FLOOR = 1e-3
_FIRST = ("log.jsonl", "genotype.json", "arch.json", "result.json")


def read_run(folder):
    """Everything in a run folder that must not change: dict name -> number, string, None or tensor.

    Raises:
        UserError: A file cannot be read.
    """
    folder, values = Path(folder), {}
    jsons = [path.name for path in folder.glob("*.json*") if path.name not in ("args.json", "run.json", *_FIRST)]
    for name in (*_FIRST, *sorted(jsons)):
        if (folder / name).exists():
            _flatten(name, _read_lines(folder / name) if name.endswith(".jsonl") else read_json(folder / name), values)
    for path in sorted(folder.glob("*.pth")):
        content = load_checkpoint(path)
        if path.name == "last.pth":
            content = {name: content[name] for name in CHECKPOINT_ENTRIES if name in content}
        _flatten(path.name, content, values)
    return values


def _read_lines(path):
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error})") from None


def _flatten(name, value, values):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in IGNORED:
                _flatten(f"{name}/{RENAMED.get(key, key)}", inner, values)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            _flatten(f"{name}/{number}", inner, values)
    else:
        values[name] = value


def read_mapping(path):
    """Read a mapping file: a JSON list of ``[pattern, replacement]``.

    Each pattern is a regular expression that is replaced in the names of the old run; a replacement of null leaves
    matching names out.

    Raises:
        UserError: The file has another form.
    """
    pairs = read_json(path)
    form = f'{path}: expected a JSON list of ["pattern", "replacement or null"]'
    if not isinstance(pairs, list):
        raise UserError(form)
    rules = []
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise UserError(f"{form}, found {pair!r}")
        if not isinstance(pair[1], (str, type(None))):
            raise UserError(f"{form}, found {pair!r}")
        try:
            rules.append((re.compile(pair[0]), pair[1]))
        except re.error as error:
            raise UserError(f"{path}: {pair[0]!r} is not a regular expression ({error})") from None
    return rules


def rename(values, rules):
    """The old run ``values`` under the names of the new version, by the rules of `read_mapping`."""
    renamed = {}
    for old_name, value in values.items():
        name = old_name
        for pattern, replacement in rules:
            if replacement is not None:
                name = pattern.sub(replacement, name)
            elif pattern.search(name):
                break
        else:
            renamed[name] = value
    return renamed


@dataclass
class Comparison:
    """Result of `compare`.

    Attributes:
        values: Number of values compared; a tensor counts once.
        largest: The largest relative difference; infinite if a value is missing or is not a number.
        first: The first difference, as text, or None.
        differing: Number of values that differ by more than is allowed.
        notes: Further remarks, as texts.
    """

    values: int = 0
    largest: float = 0.0
    first: str = None
    differing: int = 0
    notes: list = field(default_factory=list)

    @property
    def same(self):
        """Whether the runs agree."""
        return not self.differing

    def add(self, size, allowed, words):
        """Count a value that differs by ``size``; ``allowed``: whether that is acceptable; ``words`` describes it."""
        self.values += 1
        self.largest = max(self.largest, size)
        if not allowed:
            self.differing += 1
            self.first = self.first or words


def compare(old, new, *, exact=False, tolerance=1e-4):
    """Compare two runs.

    Everything in ``old`` must be in ``new``, except for plain values in its checkpoints, whose absence is noted.
    Tensors that only ``new`` has count as differences; its other new entries are noted. Tensors whose names are in only
    one of the runs are paired by file, shape and value.

    Args:
        old, new: Results of `read_run`.
        exact: Whether every number must agree to the last bit.
        tolerance: Otherwise the largest `difference` allowed.

    Returns:
        A `Comparison`.
    """
    result = Comparison()
    renamed = _pair_by_value(old, new)
    if renamed:
        first = " -> ".join(next(iter(renamed.items())))
        result.notes.append(f"{len(renamed)} tensors have other names and are compared by value, e.g. {first}")
    for name, value in old.items():
        new_name = renamed.get(name, name)
        if new_name in new:
            size, same_bits = difference(value, new[new_name])
            words = f"{name}: {_show(value)} -> {_show(new[new_name])} (difference {size:.1e})"
            result.add(size, same_bits if exact else size <= tolerance, words)
        elif ".pth/" in name and not isinstance(value, torch.Tensor):
            result.notes.append(f"only the old run has {name}")
        else:
            result.add(math.inf, False, f"{name} is missing in the new run")
    counterparts = {*old, *renamed.values()}
    for name in [name for name in new if name not in counterparts]:
        if isinstance(new[name], torch.Tensor):
            result.add(math.inf, False, f"{name} is only in the new run")
        else:
            result.notes.append(f"only the new run has {name}")
    return result


def difference(old, new):
    """The difference of two values.

    Args:
        old, new: Two numbers, strings, Nones or tensors.

    Returns:
        (size, same bits): the size is relative to the larger number, or to the largest one in both tensors, or to
        `FLOOR` if that is larger. It is infinite if the values cannot be subtracted.
    """
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        return _tensor_difference(old, new)
    if _is_number(old) and _is_number(new):
        if math.isnan(old) and math.isnan(new):
            return 0.0, True
        size = abs(old - new) / max(abs(old), abs(new), FLOOR) if math.isfinite(old - new) else math.inf
        same_bits = old == new and math.copysign(1, old) == math.copysign(1, new)
        return (0.0 if old == new else size), same_bits
    same = type(old) is type(new) and not isinstance(old, torch.Tensor) and old == new
    return (0.0 if same else math.inf), same


def _tensor_difference(old, new):
    if old.shape != new.shape or old.dtype != new.dtype:
        return math.inf, False
    if _bytes(old) == _bytes(new):
        return 0.0, True
    if not old.dtype.is_floating_point:
        return math.inf, False
    old, new = old.double(), new.double()
    if not torch.equal(old.isfinite(), new.isfinite()):
        return math.inf, False
    old, new = old.nan_to_num(), new.nan_to_num()
    largest = max(old.abs().max().item(), new.abs().max().item(), FLOOR)
    return (old - new).abs().max().item() / largest, False


def _pair_by_value(old, new):
    """Pair the tensors whose names are in only one run: equal ones first, then others of a shape in order of value."""
    groups = {}
    for side, (mine, theirs) in enumerate(((old, new), (new, old))):
        for name, value in mine.items():
            if name not in theirs and isinstance(value, torch.Tensor):
                place = name.split("/")[0], tuple(value.shape), value.dtype
                groups.setdefault(place, ([], []))[side].append(name)
    pairs = {}
    for left, right in groups.values():
        for name in list(left):
            twin = next((other for other in right if difference(old[name], new[other])[1]), None)
            if twin is not None:
                pairs[name] = twin
                left.remove(name)
                right.remove(twin)
        left.sort(key=lambda name: _order(old[name]))
        right.sort(key=lambda name: _order(new[name]))
        pairs.update(zip(left, right, strict=False))
    return pairs


def _order(tensor):
    return tensor.double().sum().item(), tensor.double().abs().sum().item()


def _bytes(tensor):
    # Bytes, so that -0.0 differs from 0.0, and NaN equals NaN.
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _show(value):
    if isinstance(value, torch.Tensor):
        return f"tensor {tuple(value.shape)}"
    return repr(value)
