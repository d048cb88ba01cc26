"""Second-order DARTS: architecture steps look one weight step ahead (Liu et al., ICLR 2019, section 2.3).

With w' = w - xi dL_train(w, alpha)/dw and xi the learning rate of the weights, the gradient of L_dev(w', alpha) is

  dL_dev(w', alpha)/dalpha - xi * d2L_train(w, alpha)/(dalpha dw) * dL_dev(w', alpha)/dw'.

The product with the mixed second derivative is computed exactly, by differentiating twice; the paper uses finite
differences. xi = 0 is the published search of BM-NAS. Every candidate runs, so only spaces that support this (BM-NAS)
can be searched.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.updates import in_float32
from search.relaxation import SoftmaxMixture
from util.distributed import mean_over_ranks, world_size


class SecondOrder(SoftmaxMixture):
    """The strategy ``second-order``, see the module.

    Args:
        generator: Unused, since nothing is drawn.
    """

    needs_mixture = True

    def architecture_gradient(
        self, search: Any, batch: dict[str, Any], size: int | None = None
    ) -> tuple[torch.Tensor, Any]:
        """As `Relaxation.architecture_gradient`, at the weights after a step on the next training batch."""
        step, logits = search.weights, [choice.logits for choice in self.choices]
        xi = step.optimizer.param_groups[0]["lr"]
        named = {id(parameter): name for name, parameter in step.net.named_parameters()}
        # The graph of the training loss is built on copies, so that the parameters themselves can be changed.
        copies = {named[id(p)]: p.detach().clone().requires_grad_() for p in step.parameters}
        gradient = self._training_gradient(step, copies, *search.next_training_batch())
        before = [parameter.detach().clone() for parameter in step.parameters]
        try:
            with torch.no_grad():
                for parameter, slope in zip(step.parameters, mean_over_ranks(gradient), strict=True):
                    parameter -= xi * slope
            for parameter in step.parameters:
                parameter.requires_grad_(True)
                parameter.grad = None
            loss, outputs = search.alphas.backward(batch, size)
            ahead = [torch.zeros_like(p) if p.grad is None else p.grad for p in step.parameters]
        finally:
            with torch.no_grad():
                for parameter, value in zip(step.parameters, before, strict=True):
                    parameter.copy_(value)
            for parameter in step.parameters:
                parameter.requires_grad_(False)
                parameter.grad = None
        mixed = torch.autograd.grad(gradient, logits, mean_over_ranks(ahead), materialize_grads=True)
        with torch.no_grad():
            for values, term in zip(logits, mean_over_ranks(mixed), strict=True):
                values.grad = -xi * term if values.grad is None else values.grad - xi * term
        return loss, outputs

    def _training_gradient(self, step, weights, size, batch):
        """dL_train/dw at ``weights`` (name -> tensor), with the graph that the second derivative needs.

        The mean over the ranks is the gradient for the whole batch of ``size`` samples, as in `OptimizerStep`. The
        network's buffers do not change.
        """
        if hasattr(step.loss, "prepare"):
            batch = step.loss.prepare(batch)
        buffers = {name: buffer.clone() for name, buffer in step.net.named_buffers()}
        # Fused attention kernels cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH), step.precision.autocast():
            outputs = torch.func.functional_call(step.net, {**weights, **buffers}, (batch,))
        share = len(batch["label"]) * world_size() / size
        loss = share * step.loss(in_float32(outputs), batch)
        return torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
