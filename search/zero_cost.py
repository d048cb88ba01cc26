"""Zero-cost proxies: scores of an untrained network on one batch, which cost about as much as one weight step.

Larger is supposed to be better. They were proposed for other networks and data; `benchmarks/fusion_bench.py` measures
how well they predict accuracy here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from util.nested import map_tensors


def gradient_norm(net: nn.Module, loss: Callable[[Any, Any], torch.Tensor], batch: dict[str, Any]) -> float:
    """grad-norm (Abdelfattah et al., ICLR 2021): the sum over weight tensors of the norm of the loss's gradient.

    The network is in evaluation mode.

    Args:
        net: The network.
        loss: (outputs, batch) -> scalar.
        batch: The batch dict.
    """
    with _evaluating(net), torch.enable_grad():
        weights = _weights(net)
        gradients = torch.autograd.grad(loss(net(batch), batch), weights, allow_unused=True)
    return sum(float(gradient.norm()) for gradient in gradients if gradient is not None)


def synflow(net: nn.Module, batch: dict[str, Any], names: tuple[str, ...]) -> float:
    """SynFlow (Tanaka et al., NeurIPS 2020; Abdelfattah et al., ICLR 2021): log of the sum of w * dR/dw.

    R is the sum of the outputs of the network with weights ``|w|`` on inputs of ones. In evaluation mode an untrained
    batch norm changes nothing. Layer norm, which the authors' networks do not have, stays active.

    Args:
        net: The network.
        batch: The batch dict.
        names: Entries of the batch that are replaced by ones: floating-point inputs, tensors or dicts of them.
    """
    ones = {**batch, **{name: map_tensors(lambda x: torch.ones_like(x[:1]), batch[name]) for name in names}}
    ones["label"] = batch["label"][:1]
    weights = _weights(net)
    signs = [torch.sign(weight.detach()) for weight in weights]
    with _evaluating(net), torch.enable_grad():
        try:
            for weight in weights:
                weight.data.abs_()
            gradients = torch.autograd.grad(net(ones).sum(), weights, allow_unused=True)
            total = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
        finally:
            for weight, sign in zip(weights, signs, strict=True):
                weight.data.mul_(sign)
    return float(torch.tensor(abs(total), dtype=torch.float64).log())


@torch.no_grad()
def naswot(net: nn.Module, batch: dict[str, Any]) -> float:
    """NASWOT (Mellor et al., ICML 2021): log |det K|, where K_ij is the number of ReLU units that agree on being active
    for samples i and j.

    Args:
        net: The network, with at least one ReLU.
        batch: The batch dict.
    """
    with _evaluating(net), _Codes() as codes:
        net(batch)
    on = torch.cat(codes.found, dim=1).double()
    kernel = on @ on.T + (1 - on) @ (1 - on).T
    return float(torch.linalg.slogdet(kernel).logabsdet)


class _Codes(TorchDispatchMode):
    """Collects, for every ReLU that is computed, which of its outputs are positive, bool (N, units)."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default):
            self.found.append((result > 0).flatten(1))
        return result


def _weights(net):
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    mode = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(mode)
