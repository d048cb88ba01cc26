"""MMNas on VQA and matching in the originals' way: the reference side of `vqa_step.py` and `itm_eval.py`.

This is a plain implementation of the description of network and search. It shares nothing with `models.mmnas` except
the precision of the LSTM. Its costly parts are intended: everything is padded to 100 regions and 14 words, attention is
written out with filled masks, relations between all boxes are in the batch, the loss adds 0 * sum(parameters), and
architecture steps record the inactive operations only to detach them, and compute gradients of weights that they do not
update.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from models.mmnas.recurrent import run_lstm

ENCODER, DECODER = ("self_att_64", "feed_forward"), ("self_att_64", "rel_self_att_64", "guided_att_64", "feed_forward")
# Candidates that a search prefers at first; the pattern repeats along the blocks.
ENCODER_START, DECODER_START = (0, 1), (1, 2, 3)
HEAD, RELATION, WORD, POOLING, RATE = 64, 64, 300, 512, 0.1


class Norm(nn.Module):
    """Layer normalisation over the last axis, with the unbiased standard deviation."""

    def __init__(self, width):
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (deviation + 1e-6) + self.b_2


class Perceptron(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, width, hidden, out_width):
        super().__init__()
        self.fc = nn.ModuleDict({"linear": nn.Linear(width, hidden)})
        self.linear = nn.Linear(hidden, out_width)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(RATE)

    def forward(self, x):
        return self.linear(self.dropout(self.relu(self.fc["linear"](x))))


class Attention(nn.Module):
    """Attention with heads of width 64; the logarithms of relation weights, if any, are added to the scores."""

    def __init__(self, width, relations):
        super().__init__()
        self.linear_v, self.linear_k, self.linear_q = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.linear_r = nn.Linear(RELATION, width // HEAD) if relations else None
        self.linear_merge = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(RATE)

    def forward(self, values, keys, queries, mask, relation=None):
        values, keys, queries = (
            linear(side).view(len(side), -1, linear.out_features // HEAD, HEAD).transpose(1, 2)
            for linear, side in ((self.linear_v, values), (self.linear_k, keys), (self.linear_q, queries))
        )
        scores = torch.matmul(queries, keys.transpose(-2, -1)).float() / math.sqrt(HEAD)
        if self.linear_r is not None:
            weights = F.relu(self.linear_r(relation)).permute(0, 3, 1, 2)
            scores = torch.log(torch.clamp(weights.float(), min=1e-6)) + scores
        shares = self.dropout(F.softmax(scores.masked_fill(mask, -1e9), dim=-1))
        merged = torch.matmul(shares, values).transpose(1, 2).contiguous()
        return self.linear_merge(merged.view(len(merged), merged.shape[1], -1))


class Operation(nn.Module):
    """One of the published candidate operations, with its residual connection and normalisation."""

    def __init__(self, name, width):
        super().__init__()
        self.name = name
        if name == "feed_forward":
            self.mlp = Perceptron(width, 4 * width, width)
        else:
            self.mhatt = Attention(width, relations=name == "rel_self_att_64")
        self.dropout, self.ln = nn.Dropout(RATE), Norm(width)

    def forward(self, x, y, x_mask, y_mask, relation):
        if self.name == "feed_forward":
            core = self.mlp(x)
        elif self.name == "guided_att_64":
            core = self.mhatt(y, y, x, y_mask)
        else:
            core = self.mhatt(x, x, x, x_mask, relation)
        return self.ln(x + self.dropout(core))


class MixedOperation(nn.Module):
    """Candidates of a block with their architecture parameters and gates."""

    def __init__(self, names, width, preferred):
        super().__init__()
        start = torch.full((len(names),), -1.0)
        start[preferred] = 1.0
        self.alpha_prob, self.alpha_gate = nn.Parameter(start), nn.Parameter(torch.zeros(len(names)))
        self.candidate_ops = nn.ModuleList(Operation(name, width) for name in names)
        self.choose(preferred, full=False)

    def choose(self, active, full):
        """Set the path of the next forward; ``full`` runs the other candidates too."""
        self.active, self.full = active, full
        with torch.no_grad():
            self.alpha_gate.zero_()
            self.alpha_gate[active] = 1.0
        for parameter in self.candidate_ops.parameters():
            parameter.grad = None

    def forward(self, *inputs):
        if not self.full:
            return self.candidate_ops[self.active](*inputs)
        out = self.alpha_gate[self.active] * self.candidate_ops[self.active](*inputs)
        for place, operation in enumerate(self.candidate_ops):
            if place != self.active:
                out = out + self.alpha_gate[place] * operation(*inputs).detach()
        return out

    @torch.no_grad()
    def set_alpha_gradient(self):
        """Add to the gradient of the logits what follows from the gates' gradients."""
        shares = self.alpha_prob.softmax(0)
        self.alpha_prob.grad += (torch.diag(shares) - torch.outer(shares, shares)) @ self.alpha_gate.grad


class Pooling(nn.Module):
    """Attention pooling: a weighted sum over the positions."""

    def __init__(self, width):
        super().__init__()
        self.mlp = Perceptron(width, POOLING, 1)
        self.linear_merge = nn.Linear(width, 2 * width)

    def forward(self, x, mask):
        scores = self.mlp(x).float().masked_fill(mask.squeeze(1).squeeze(1).unsqueeze(2), -1e9)
        return self.linear_merge(torch.sum(F.softmax(scores, dim=1) * x, dim=1))


class OriginalNet(nn.Module):
    """The complete network; its parameters are named as in the published checkpoints, including misspellings.

    Args:
        width: Width H of the network.
        words: Size of the vocabulary.
        answers: Number of answers.
        features: Width of a region's features.
        architecture: (encoder, decoder), one operation name per block; None: the supernet.
    """

    def __init__(self, width, words, answers, features, architecture=None):
        super().__init__()
        self.embedding = nn.Embedding(words, WORD)
        self.lstm = nn.LSTM(WORD, width, batch_first=True)
        self.imgfeat_linear = nn.Linear(features, width)
        if architecture is None:
            enc = [MixedOperation(ENCODER, width, ENCODER_START[i % 2]) for i in range(12)]
            dec = [MixedOperation(DECODER, width, DECODER_START[i % 3]) for i in range(18)]
        else:
            enc, dec = ([Operation(name, width) for name in side] for side in architecture)
        self.backnone = nn.ModuleDict({"cells_enc": _cells(enc), "cells_dec": _cells(dec)})
        self.attflat_x, self.attflat_y = Pooling(width), Pooling(width)
        self.proj_norm, self.proj = Norm(2 * width), nn.Linear(2 * width, answers)
        self.linear_y_rel = nn.Linear(4, RELATION)

    def forward(self, features, relations, tokens):
        """Logits (B, answers) for features (B, 100, D), relations (B, 100, 100, 4) and int64 tokens (B, 14)."""
        x_mask = (tokens.abs() == 0)[:, None, None]
        y_mask = (features.abs().sum(-1) == 0)[:, None, None]
        x = run_lstm(self.lstm, self.embedding(tokens))
        y, relation = self.imgfeat_linear(features), F.relu(self.linear_y_rel(relations))
        for block in self.backnone["cells_enc"][0]["dag"]:
            x = block[0](x, None, x_mask, None, None)
        for block in self.backnone["cells_dec"][0]["dag"]:
            y = block[0](y, x, y_mask, x_mask, relation)
        return self.proj(self.proj_norm(self.attflat_x(x, x_mask) + self.attflat_y(y, y_mask)))


class OriginalMatchingNet(OriginalNet):
    """The network of image-text matching; arguments are those of `OriginalNet`, without ``answers``."""

    def __init__(self, width, words, features, architecture=None):
        super().__init__(width, words, 1, features, architecture)

    def forward(self, features, relations, tokens):
        """Scores (B,) in 0..1 of pairs, each with its own copy of image and caption."""
        return super().forward(features, relations, tokens).squeeze(1).sigmoid()


def _cells(blocks):
    return nn.ModuleList([nn.ModuleDict({"dag": nn.ModuleList(nn.ModuleList([block]) for block in blocks)})])


class OriginalSteps:
    """Weight steps or architecture steps in the originals' way.

    Args:
        net: `OriginalNet` on its device.
        precision: `engine.updates.Precision`.
        rate: Learning rate of the weights, or of the architecture parameters with ``architecture``.
        architecture: Whether `step` moves the architecture parameters.
    """

    def __init__(self, net, precision, rate, architecture=False):
        self.net, self.precision, self.architecture = net, precision, architecture
        self.scaler = precision.scaler()
        named = dict(net.named_parameters())
        self.weights = [value for name, value in named.items() if ".alpha_" not in name]
        self.not_gates = [value for name, value in named.items() if not name.endswith("alpha_gate")]
        self.mixed = [module for module in net.modules() if isinstance(module, MixedOperation)]
        if architecture:
            alphas = [mixed.alpha_prob for mixed in self.mixed]
            self.optimizer = torch.optim.Adam(alphas, rate, betas=(0.0, 0.999))
        else:
            self.optimizer = torch.optim.Adam(self.weights, rate, betas=(0.9, 0.98), eps=1e-9)

    def choose(self, path):
        """Set the active candidate of every block; a fixed network has no choices, so ``path`` is empty."""
        for mixed, active in zip(self.mixed, path, strict=True):
            mixed.choose(active, full=self.architecture)

    def outputs(self, batch):
        """Logits for a batch dict with features, relations and tokens, see `OriginalNet.forward`."""
        with self.precision.autocast():
            return self.net(batch["features"], batch["relations"], batch["tokens"]).float()

    def step(self, batch):
        """Forward pass, loss, backward pass, clipping (of weights), and the optimiser."""
        reached = self.not_gates if self.architecture else self.net.parameters()
        loss = F.binary_cross_entropy_with_logits(self.outputs(batch), batch["label"], reduction="sum")
        loss = loss + 0 * sum(parameter.sum() for parameter in reached)
        self.net.zero_grad()
        self.scaler.scale(loss).backward()
        for mixed in self.mixed if self.architecture else ():
            mixed.set_alpha_gradient()
        self.scaler.unscale_(self.optimizer)
        if not self.architecture:
            nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
