"""What a search strategy has to say: how undecided candidates act together, and how their logits learn."""

import torch

from util.cli import UserError

WEIGHTS, ARCHITECTURE = "weights", "architecture"


class Relaxation:
    """Base of the strategies. Override `weights` for other mixtures, `draw` for sampled candidates.

    A step calls, in this order: `draw`; the forward (which calls `combine` and `weights`) and backward;
    for an architecture step also `finish_backward`, the optimiser's step, and `finish_step`.

    Args:
        generator: `torch.Generator` on the CPU for all that is drawn; processes with equal ones draw the same.
            None: a strategy that draws nothing.
    """

    # What --strategy calls it; set by `search.strategies.build_strategy`.
    name = "published"
    # Whether every candidate runs in every step, so that the space must be made for that.
    runs_all = False
    # Whether architecture steps move the logits; otherwise there are none.
    learns = True
    # Whether a step takes an ordered pair of different arguments, so that their order counts in a derivation.
    ordered_pairs = False

    def __init__(self, generator=None):
        self.generator = generator
        self.choices = []
        # `search.regularizers.Regularizer`s of the logits in architecture steps.
        self.regularizers = []

    def attach(self, space):
        """Relax the choices of ``space``, a `search.choice.SearchSpace`; returns self.

        Strategies that draw begin with the strongest candidates.

        Raises:
            UserError: the strategy does not apply to this space.
        """
        self.choices = space.choices()
        if self.runs_all and any(choice.single_path for choice in self.choices):
            raise UserError(
                f"--strategy {self.name} runs every candidate in every step, and MMNas' networks run one at a time; "
                "take another strategy"
            )
        space.relax(self)
        if self.generator is not None:
            self.decide()
        return self

    def begin_epoch(self, epoch, epochs):
        """Set what changes over the search; ``epoch`` counts from 0 to ``epochs`` - 1."""

    def draw(self, phase):
        """Draw what runs in the next step, of `WEIGHTS` or `ARCHITECTURE`."""

    def decide(self):
        """Let the strongest candidate of every choice give the output alone, until the next `draw`; draws nothing."""

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
        weights = self.weights(choice, logits)
        weights = (weights if row is None else weights[row]).to(outputs[0].dtype)
        return sum(weights[k] * output for k, output in zip(running, outputs, strict=True))

    def arguments(self, choice, states, step, logits):
        """Both arguments of a step where its `Draw` has pairs: two states, in order.

        Args:
            choice: The `Choice` of the edges.
            states: The states so far, tensors; those that no step may read can be None.
            step: Number of the step.
            logits: Those of the choice, see `weights`.
        """
        first, second = choice.drawn.pairs[step]
        return states[first], states[second]

    def architecture_gradient(self, search, batch, size=None):
        """Give the `gradient_parameters` the gradients of an architecture step on ``batch``.

        Args:
            search: The search loop (`search.loops`): its ``alphas`` and ``weights`` are `OptimizerStep`s, and its
                `next_training_batch` gives a batch of the weight steps' data.
            batch, size: See `OptimizerStep.step`.

        Returns:
            (loss, outputs), see `OptimizerStep.step`.
        """
        return search.alphas.backward(batch, size)

    def gradient_parameters(self):
        """Parameters that the backward pass of an architecture step gives gradients."""
        return [choice.logits for choice in self.choices]

    def finish_backward(self):
        """After the backward pass of an architecture step: give the logits the gradients that they lack."""

    def finish_step(self):
        """After the optimiser's step on the logits."""

    def conclude(self, score) -> dict:
        """Once after the last epoch, before an architecture is derived: learn what still needs dev scores.

        Args:
            score: () -> dev score of the network as it is drawn then, a tuple; larger is better.

        Returns:
            What the result says of it.
        """
        return {}

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
