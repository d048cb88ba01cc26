"""Reads the golden MMNas fixtures in `tests/data/mmnas`: fill rule, inputs and outputs, networks built by them.

Compared with the originals' files some large gradients of `ops` are kept as summaries only.
"""

import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from models.mmnas import fast
from models.mmnas.architecture import Architecture
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.heads import AnswerHead, GroundingHead, MatchingHead
from models.mmnas.net import MultimodalNet
from models.mmnas.published import from_published

DATA = Path(__file__).parent / "data" / "mmnas"
ARCHITECTURES = Path(__file__).parent.parent / "arch"
RTOL, ATOL = 1e-4, 1e-5


def generator(seed):
    return np.random.Generator(np.random.PCG64(seed))


def fill_tensor(key, shape):
    """The value that the fixtures' rule gives the original's state-dict entry ``key`` (without ``module.``)."""
    values = generator(zlib.crc32(key.encode())).standard_normal(tuple(shape))
    if key.endswith("a_2"):
        values = 1 + 0.1 * values
    elif key.endswith("b_2") or "bias" in key:
        values = 0.1 * values
    elif not key.endswith(("alpha_prob", "alpha_gate")):
        values = values / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return torch.from_numpy(np.asarray(values, np.float32))


def filled(entries):
    """A state dict by the rule from [key, shape] pairs."""
    return {key: fill_tensor(key, shape) for key, shape in entries}


def batch_of(spec, seed):
    """The batch dict of a network fixture's ``inputs``; the original's relations are given."""
    g, (b, n, t) = generator(seed), (spec["B"], spec["N"], spec["T"])
    regions = g.standard_normal((b, n, 2048)).astype(np.float32)
    g.random((b, n, 5))
    relations = g.standard_normal((b, n, n, 4)).astype(np.float32)
    tokens = g.integers(1, spec["token_size"], (b, t))
    for i, (n_reg, n_tok) in enumerate(zip(spec["n_reg"], spec["n_tok"], strict=True)):
        regions[i, n_reg:] = 0
        relations[i, n_reg:] = relations[i, :, n_reg:] = 0
        tokens[i, n_tok:] = 0
    arrays = {"regions": regions, "relations": relations, "tokens": tokens, "counts": np.array(spec["n_reg"])}
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def target_of(seed):
    """The target of a network fixture, (3, 50)."""
    return torch.from_numpy((generator(seed).random((3, 50)) ** 6).astype(np.float32))


# The plain network; the fast one as a GPU and as a CPU would run it.
PLAIN, PADDED, PACKED = WAYS = ("plain", "padded", "packed")


def sped_up(net, way):
    """``net`` in one of `WAYS`."""
    return net if way == PLAIN else fast.speed_up(net, pack=way == PACKED)


def build_net(spec, task="vqa", architecture=None, way=PLAIN):
    """The network of a fixture as constructed; without ``architecture`` the published supernet."""
    cfg = spec["cfg"]
    width, dropout = cfg["HSIZE"], cfg["DROPOUT_R"]
    if architecture is None:
        encoder_decoder = EncoderDecoder.searched(width, dropout, num_enc=12, num_dec=18)
    else:
        encoder_decoder = EncoderDecoder.fixed(architecture, width, dropout)
    heads = {"vgd": partial(GroundingHead, padded_regions="score"), "itm": MatchingHead}
    head = AnswerHead(width, dropout, 50) if task == "vqa" else heads[task](width, dropout)
    return sped_up(MultimodalNet(encoder_decoder, head, (40, 300)), way)


class Golden:
    """One fixture: ``spec`` is its JSON."""

    def __init__(self, name):
        self.spec = json.loads((DATA / f"{name}.json").read_text())
        arrays = DATA / f"{name}.npz"
        self.arrays = dict(np.load(arrays)) if arrays.exists() else {}

    def network(self, way=PLAIN):
        """The fixture's network in evaluation mode, filled through the names of the original's state dict."""
        genotype = self.spec["cfg"].get("GENOTYPE")
        architecture = Architecture.from_dict(genotype) if genotype else None
        net = build_net(self.spec, self.spec["task"], architecture, way)
        net.load_state_dict(from_published(filled(self.spec["state_dict"])))
        return net.eval()

    def batch(self):
        """Its inputs."""
        return batch_of(self.spec["inputs"], self.spec["inputs"]["seed"])

    def assert_output(self, name, value, rtol=RTOL, atol=ATOL):
        """Compare a tensor with the stored output ``name``, whole or by its summary."""
        value = value.detach().double().numpy()
        if name in self.arrays:
            np.testing.assert_allclose(value, self.arrays[name], rtol=rtol, atol=atol)
            return
        np.testing.assert_allclose(value.ravel()[:64], self.arrays[f"{name}.first64"], rtol=rtol, atol=atol)
        np.testing.assert_allclose([value.mean(), value.std()], self.arrays[f"{name}.mean_std"], rtol=rtol, atol=atol)
        total, absolute = self.arrays[f"{name}.sha_sum"]
        np.testing.assert_allclose([value.sum(), np.abs(value).sum()], [total, absolute], atol=rtol * absolute)


def active_operations(encoder_decoder):
    """The operations that give the output of the next forward pass: fixed ones, and active candidates."""
    for member in (member for block in (*encoder_decoder.enc, *encoder_decoder.dec) for member in block):
        searched = hasattr(member, "choice")
        yield list(member.operations.values())[member.choice.running()[0]] if searched else member


def path_weights(net):
    """Those of `weights` that the output of the next forward pass depends on: of candidates those of the active one."""
    active = list(active_operations(net.encoder_decoder))
    needed = {id(p) for operation in active for p in operation.parameters()}
    if any(operation.needs_relation for operation in active):
        needed |= {id(p) for p in net.relation_linear.parameters()}
    optional = {id(p) for part in (net.encoder_decoder, net.relation_linear) for p in part.parameters()}
    return [p for p in net.weights() if id(p) not in optional or id(p) in needed]
