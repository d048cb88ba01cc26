"""State dicts of the original MMNas code: its parameter names and ours, both ways.

Names differ in the path to an operation alone. Searched networks number their candidates in the original;
ours name them, so the lists of candidates are needed.
"""

import re

import torch

from models.mmnas.operations import DECODER_CANDIDATES, ENCODER_CANDIDATES
from util.cli import UserError

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
_OUR_BLOCK = re.compile(r"backbone\.(enc|dec)\.(\d+)\.(\d+)\.(?:operations\.(\w+)\.)?(.+)")
# Projects relations of words, which no operation reads; searched networks of the original hold it all the same.
_UNUSED = "linear_x_rel"
_WORD_RELATION_FEATURES = 3


def from_published(state, enc_candidates=ENCODER_CANDIDATES, dec_candidates=DECODER_CANDIDATES):
    """Translate an original's state dict, fixed or searched, into that of a `MultimodalNet`.

    Args:
        state: Name -> tensor; a ``module.`` prefix is taken off.
        enc_candidates, dec_candidates: Names of the candidates in their order; only a searched network needs them.

    Raises:
        UserError: a name that no original network has.
    """
    candidates = {"enc": enc_candidates, "dec": dec_candidates}
    names = {key: key.removeprefix("module.") for key in state}
    return {_our_key(name, candidates): state[key] for key, name in names.items() if not name.startswith(f"{_UNUSED}.")}


def _our_key(key, candidates):
    part, _, rest = key.partition(".")
    if part in _PARTS and rest:
        return f"{_PARTS[part]}.{rest}"
    block = _PUBLISHED_BLOCK.fullmatch(key)
    if block is None or (block[4] and int(block[4]) >= len(candidates[block[1]])):
        raise UserError(f"the state dict has the key {key!r}, which is not one of an original MMNas network")
    side, number, member, candidate, rest = block.groups()
    gate = f"operations.{candidates[side][int(candidate)]}." if candidate else ""
    return f"backbone.{side}.{number}.{member}.{gate}{rest}"


def to_published(state, enc_candidates=ENCODER_CANDIDATES, dec_candidates=DECODER_CANDIDATES):
    """Translate the state dict of a `MultimodalNet` into the original's names, ``module.`` prefix included.

    A searched network for questions or matching gets the unused weights that the original expects, as zeros.

    Args:
        state: Name -> tensor.
        enc_candidates, dec_candidates: As in `from_published`.
    """
    candidates = {"enc": list(enc_candidates), "dec": list(dec_candidates)}
    found = {"module." + _their_key(key, candidates): value for key, value in state.items()}
    searched = any(key.endswith("alpha_prob") for key in state)
    if searched and "head.attflat_y.linear_merge.weight" in state:
        bias = state["relation_linear.bias"]
        found[f"module.{_UNUSED}.weight"] = torch.zeros(len(bias), _WORD_RELATION_FEATURES)
        found[f"module.{_UNUSED}.bias"] = torch.zeros(len(bias))
    return found


def _their_key(key, candidates):
    for theirs, ours in _PARTS.items():
        if key.startswith(f"{ours}."):
            return theirs + key[len(ours) :]
    side, number, member, name, rest = _OUR_BLOCK.fullmatch(key).groups()
    gate = f"candidate_ops.{candidates[side].index(name)}." if name else ""
    return f"backnone.cells_{side}.0.dag.{number}.{member}.{gate}{rest}"
