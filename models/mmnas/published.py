"""Translates state dicts: between the original's parameter names and ours, and from our version 0.1.0.

The original's names differ in the path to an operation and in the name of the logits. Its searched networks number
their candidates, while ours name them, so translating a searched network requires the lists of candidates.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch

from models.mmnas.space import DECODER_CANDIDATES, ENCODER_CANDIDATES
from util.cli import UserError

State = dict[str, torch.Tensor]

_PARTS = {
    "embedding": "embedding",
    "lstm": "lstm",
    "bboxfeat_linear": "box_linear",
    "imgfeat_linear": "region_linear",
    "linear_y_rel": "relation_linear",
    **{
        part: f"head.{part}"
        for part in ("attflat_x", "attflat_y", "attfc_y", "proj_norm", "proj", "proj_scores", "proj_reg")
    },
}
_PUBLISHED_BLOCK = re.compile(r"backnone\.cells_(enc|dec)\.0\.dag\.(\d+)\.(\d+)\.(?:candidate_ops\.(\d+)\.)?(.+)")
_OUR_BLOCK = re.compile(r"encoder_decoder\.(enc|dec)\.(\d+)\.(\d+)\.(?:operations\.(\w+)\.)?(.+)")
# Projects relations between words, which no operation reads; the original's searched networks contain it anyway.
_UNUSED = "linear_x_rel"
_WORD_RELATION_FEATURES = 3
# The original's name of the logits, and ours.
_THEIR_LOGITS, _OUR_LOGITS = "alpha_prob", "alpha_logits"


def current_keys(state: State) -> State:
    """Rename the keys of a `MultimodalNet` of our version 0.1.0 to the current ones; current keys stay."""
    return {_current_key(key): value for key, value in state.items()}


def rename_old_keys(module: torch.nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """``load_state_dict`` pre-hook that renames the keys below ``prefix`` as `current_keys` does, in place."""
    for key in [key for key in state if key.startswith(prefix)]:
        current = prefix + _current_key(key.removeprefix(prefix))
        if current != key:
            state[current] = state.pop(key)


def _current_key(key: str) -> str:
    if key.startswith("backbone."):
        key = f"encoder_decoder.{key.removeprefix('backbone.')}"
    if key.endswith(f".{_THEIR_LOGITS}"):
        key = key.removesuffix(_THEIR_LOGITS) + _OUR_LOGITS
    return key


def from_published(
    state: State,
    enc_candidates: Sequence[str] = ENCODER_CANDIDATES,
    dec_candidates: Sequence[str] = DECODER_CANDIDATES,
) -> State:
    """Translate the state dict of an original network, fixed or searched, to that of a `MultimodalNet`.

    Args:
        state: Name -> tensor; a ``module.`` prefix is removed.
        enc_candidates, dec_candidates: Names of the candidates, in order; only used for a searched network.

    Returns:
        The same tensors under our names.

    Raises:
        UserError: a name does not occur in original networks.
    """
    candidates = {"enc": enc_candidates, "dec": dec_candidates}
    names = {key: key.removeprefix("module.") for key in state}
    return {_our_key(name, candidates): state[key] for key, name in names.items() if not name.startswith(f"{_UNUSED}.")}


def _our_key(key: str, candidates: dict[str, Sequence[str]]) -> str:
    part, _, rest = key.partition(".")
    if part in _PARTS and rest:
        return f"{_PARTS[part]}.{rest}"
    block = _PUBLISHED_BLOCK.fullmatch(key)
    if block is None or (block[4] and int(block[4]) >= len(candidates[block[1]])):
        raise UserError(f"the state dict has the key {key!r}, which is not one of an original MMNas network")
    side, number, member, candidate, rest = block.groups()
    gate = f"operations.{candidates[side][int(candidate)]}." if candidate else ""
    return _current_key(f"encoder_decoder.{side}.{number}.{member}.{gate}{rest}")


def to_published(
    state: State,
    enc_candidates: Sequence[str] = ENCODER_CANDIDATES,
    dec_candidates: Sequence[str] = DECODER_CANDIDATES,
) -> State:
    """Translate the state dict of a `MultimodalNet` to the original's names, with the ``module.`` prefix.

    For a searched network for questions or matching, the unused weights that the original expects are added as zeros.

    Args:
        state: Name -> tensor.
        enc_candidates, dec_candidates: As in `from_published`.

    Returns:
        The same tensors under the original's names.
    """
    candidates = {"enc": list(enc_candidates), "dec": list(dec_candidates)}
    translated = {"module." + _their_key(key, candidates): value for key, value in state.items()}
    searched = any(key.endswith(_OUR_LOGITS) for key in state)
    if searched and "head.attflat_y.linear_merge.weight" in state:
        bias = state["relation_linear.bias"]
        translated[f"module.{_UNUSED}.weight"] = torch.zeros(len(bias), _WORD_RELATION_FEATURES)
        translated[f"module.{_UNUSED}.bias"] = torch.zeros(len(bias))
    return translated


def _their_key(key: str, candidates: dict[str, Sequence[str]]) -> str:
    for theirs, ours in _PARTS.items():
        if key.startswith(f"{ours}."):
            return theirs + key[len(ours) :]
    side, number, member, name, rest = _OUR_BLOCK.fullmatch(key).groups()
    rest = _THEIR_LOGITS if rest == _OUR_LOGITS else rest
    gate = f"candidate_ops.{candidates[side].index(name)}." if name else ""
    return f"backnone.cells_{side}.0.dag.{number}.{member}.{gate}{rest}"
