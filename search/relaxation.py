"""What a search strategy has to say: how undecided candidates act together, and how their logits learn."""

import torch

from search.choice import Draw

WEIGHTS, ARCHITECTURE = "weights", "architecture"


class Relaxation:
    """Base of the strategies. Override `weights` for other mixtures, `draw` for sampled candidates.

    A step calls, in this order: `draw`; the forward (which calls `combine` and `weights`) and backward;
    for an architecture step also `finish_backward`, the optimiser's step, and `finish_step`.

    Args:
        generator: `torch.Generator` on the CPU for all that is drawn; processes with equal ones draw the same.
            None: a strategy that draws nothing.
    """

    def __init__(self, generator=None):
        self.generator = generator
        self.choices = []

    def attach(self, space):
        """Relax the choices of ``space``, a `search.choice.SearchSpace`; returns self.

        Strategies that draw begin with the strongest candidates, others with all of them.
        """
        self.choices = space.choices()
        space.relax(self)
        for choice in self.choices:
            choice.drawn = None
        if self.generator is not None:
            self.decide()
        return self

    def begin_epoch(self, epoch, epochs):
        """Set what changes over the search; ``epoch`` counts from 0 to ``epochs`` - 1."""

    def draw(self, phase):
        """Choose what runs in the next step, of `WEIGHTS` or `ARCHITECTURE`: here every candidate."""
        for choice in self.choices:
            choice.drawn = None

    def decide(self):
        """Let the strongest candidate of every choice give the output alone, until the next `draw`; draws nothing."""
        for choice, logits in zip(self.choices, logits_on_cpu(self.choices), strict=True):
            choice.drawn = Draw(tuple(logits.argmax(-1).flatten().tolist()))

    def weights(self, choice, logits):
        """Weights of the candidates in the output, with gradients to ``logits``.

        Args:
            choice: The `Choice`.
            logits: Its logits (rows, n); given, since replicas on other devices hold copies.

        Returns:
            Float tensor shaped like ``logits``.
        """
        raise NotImplementedError

    def combine(self, choice, candidates, logits, row=None, gates=None):
        """The output of a choice.

        Args:
            choice: The `Choice`.
            candidates: For each candidate a function without arguments that returns its output.
            logits, gates: Those of the choice, see `weights`.
            row: Row of the logits; None: they have one.
        """
        running = choice.running(row or 0)
        outputs = [candidates[k]() for k in running]
        if choice.drawn is not None and not choice.drawn.gated:
            return outputs[0]
        weights = self.weights(choice, logits)
        weights = (weights if row is None else weights[row]).to(outputs[0].dtype)
        return sum(weights[k] * output for k, output in zip(running, outputs, strict=True))

    def gradient_parameters(self):
        """Parameters that the backward pass of an architecture step gives gradients."""
        return [choice.logits for choice in self.choices]

    def finish_backward(self):
        """After the backward pass of an architecture step: give the logits the gradients that they lack."""

    def finish_step(self):
        """After the optimiser's step on the logits."""

    def state_dict(self):
        """Position in the stream of random numbers."""
        return {"state": self.generator.get_state()} if self.generator else {}

    def load_state_dict(self, state):
        """Continue from `state_dict`."""
        if self.generator:
            self.generator.set_state(state["state"])


def logits_on_cpu(choices):
    """Detached logits of the choices on the CPU, by one transfer: each one waits for the device."""
    logits = [choice.logits.detach() for choice in choices]
    if not logits:
        return []
    flat = torch.cat([values.flatten() for values in logits]).cpu()
    parts = flat.split([values.numel() for values in logits])
    return [part.view(values.shape) for part, values in zip(parts, logits, strict=True)]
