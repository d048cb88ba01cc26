"""Translates state dicts between the parameter names of the original BM-NAS code and ours.

The original numbers the four candidate operations in search networks, and its found networks do not name the one
operation that they have. Our networks name operations in both, so translating a found network requires its genotype.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS
from util.cli import UserError

if TYPE_CHECKING:
    import torch

    from models.genotypes import FusionGenotype

_NAMES = PUBLISHED_STEP_OPERATIONS
_NODE = "fusion_net.cell._step_nodes.{i}.node_cell."
_PUBLISHED_NODE = re.compile(r"fusion_net\.cell\._step_nodes\.(\d+)\.node_cell\.(.+)")
_PUBLISHED_SEARCH_OP = re.compile(r"node_ops\.(\d+)\._ops\.(\d+)\.(.+)")
_PUBLISHED_FOUND_OP = re.compile(r"node_ops\.(\d+)\.(.+)")
_OUR_OP = re.compile(r"fusion\.nodes\.(\d+)\.ops\.(\d+)\.(\w+)\.(.+)")
_OUR_NODE = re.compile(r"fusion\.nodes\.(\d+)\.(.+)")
_NODE_PARTS = {"out_conv": "merge.conv", "bn": "merge.bn", "ln": "norm"}
_PUBLISHED_PARTS = {ours: theirs for theirs, ours in _NODE_PARTS.items()}


def from_published(
    state: Mapping[str, torch.Tensor], backbone_names: Mapping[str, str], genotype: FusionGenotype | None = None
) -> dict[str, torch.Tensor]:
    """Translate a state dict of the original to our names.

    Args:
        state: Name -> tensor of a complete original network.
        backbone_names: Our name of a backbone -> the original's, e.g. ``{"image": "imagenet"}``.
        genotype: The genotype of a found network; None for a search network.

    Returns:
        The same tensors under our names.

    Raises:
        UserError: a name does not occur in original networks, or the genotype has no such inner step.
    """
    ours = {theirs + ".": f"backbones.{name}." for name, theirs in backbone_names.items()}
    ours |= {"reshape_layers.": "reshape.", "central_classifier.": "classifier.", "fusion_net.cell.ln.": "fusion.norm."}
    return {_our_key(key, ours, genotype): value for key, value in state.items()}


def _our_key(key, prefixes, genotype):
    for theirs, ours in prefixes.items():
        if key.startswith(theirs):
            return ours + key[len(theirs) :]
    unknown = UserError(f"the state dict has the key {key!r}, which is not one of an original BM-NAS network")
    node = _PUBLISHED_NODE.fullmatch(key)
    if node is None:
        raise unknown
    i, rest = int(node[1]), node[2]
    search, found = _PUBLISHED_SEARCH_OP.fullmatch(rest), _PUBLISHED_FOUND_OP.fullmatch(rest)
    if search and int(search[2]) < len(_NAMES):
        k, name, rest = int(search[1]), _NAMES[int(search[2])], search[3]
    elif found and not search:
        k, rest = int(found[1]), found[2]
        name = _operation_name(genotype, i, k, key)
    elif rest.startswith(tuple(f"{part}." for part in _NODE_PARTS)):
        return f"fusion.nodes.{i}.{_replace_first(rest, _NODE_PARTS)}"
    else:
        raise unknown
    return f"fusion.nodes.{i}.ops.{k}.{name}.{_replace_first(rest, {'ln': 'norm'})}"


def _replace_first(key, names):
    first, rest = key.split(".", 1)
    return f"{names.get(first, first)}.{rest}"


def _operation_name(genotype, step, inner_step, key):
    try:
        return genotype.steps[step].inner_steps[inner_step]
    except (AttributeError, IndexError):
        raise UserError(f"the state dict has {key!r}, but its genotype has no such inner step") from None


def to_published(
    state: Mapping[str, torch.Tensor], backbone_names: Mapping[str, str], found: bool
) -> dict[str, torch.Tensor]:
    """Translate our state dict to the original's names. Architecture parameters are left out; it does not save them.

    Args:
        state: State dict of a `FusionNet` with a `FusionCell`.
        backbone_names: As in `from_published`.
        found: Whether the network is a found network (else a search network).

    Returns:
        The same tensors under the original's names.
    """
    theirs = {f"backbones.{name}.": published + "." for name, published in backbone_names.items()}
    theirs |= {
        "reshape.": "reshape_layers.",
        "classifier.": "central_classifier.",
        "fusion.norm.": "fusion_net.cell.ln.",
    }
    return {_their_key(k, theirs, found): v for k, v in state.items() if not k.endswith(("edges.logits", "gammas"))}


def _their_key(key, prefixes, found):
    for ours, theirs in prefixes.items():
        if key.startswith(ours):
            return theirs + key[len(ours) :]
    operation = _OUR_OP.fullmatch(key)
    if operation:
        i, k, name, rest = operation.groups()
        index = "" if found else f"_ops.{_NAMES.index(name)}."
        return _NODE.format(i=i) + f"node_ops.{k}.{index}{_replace_first(rest, {'norm': 'ln'})}"
    node = _OUR_NODE.fullmatch(key)
    assert node is not None, key
    i, rest = node.groups()
    part = next(ours for ours in _NODE_PARTS.values() if rest.startswith(f"{ours}."))
    return _NODE.format(i=i) + _PUBLISHED_PARTS[part] + rest[len(part) :]
