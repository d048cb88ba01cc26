"""``--strategy random`` and ``evolution`` in MMNas: train complete networks from scratch, for a few epochs each."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from engine.loading import total_batch
from engine.training import BestEpoch, train_one_epoch, with_state
from engine.updates import OptimizerStep, data_parallel
from models.mmnas.architecture import Architecture, ArchitectureSpace
from models.mmnas.cost import architecture_cost, architecture_counts
from search.strategies import black_box_of, objectives_of
from search.trainings import TrainingSearch, run_trainings
from tasks.mmnas import networks
from tasks.mmnas.data import describe
from util.distributed import rank
from util.schedules import WarmupStepDecay

if TYPE_CHECKING:
    from engine.loading import BatchLoader
    from engine.run import Run
    from engine.updates import Precision
    from models.mmnas.net import MultimodalNet
    from tasks.task import AttentionTask, QuestionData

RULE = "architecture of the training, and its epoch, with the best {} score"


class ArchitectureTraining:
    """The training of one candidate: the recipe of the training scripts, on the data of the weight steps.

    Weights and dropout depend on ``--seed`` only, so that equal architectures have equal trainings. What the task does
    before an epoch, such as mining negatives, is done with this network and in the epochs of this training.

    Args:
        task, args, run, data: As in the recipes.
        words: Initial word vectors of every training, float (V, E).
        loader: Loader of the data of the weight steps.
        precision: See `engine.updates.Precision`.
        scorer: (name of the split that is scored, function net -> scores).
        architecture: The candidate to train.
    """

    def __init__(
        self,
        task: AttentionTask,
        args: Namespace,
        run: Run,
        data: Mapping[str, QuestionData],
        words: torch.Tensor,
        loader: BatchLoader,
        precision: Precision,
        scorer: tuple[str, Callable[[Any], dict[str, float]]],
        architecture: Architecture,
    ) -> None:
        torch.manual_seed(args.seed)
        # With their width given, the word vectors are not read from their file again.
        sized = Namespace(**{**vars(args), "word_size": words.shape[1]})
        self.net = task.build_net(sized, task.metadata(data["train"]), architecture, trained=True).to(run.device)
        with torch.no_grad():
            self.net.embedding.weight.copy_(words)
        self._architecture, self._device, self._loader, self._scorer = architecture, run.device, loader, scorer
        self._sizes = {"hsize": args.hsize, "batch": total_batch(args), "device": run.device}
        self.costs = architecture_counts(architecture, args.hsize)
        self._metric = task.training_metric(args, data["train"])
        fused = args.fused_adam or None
        adam = torch.optim.Adam(self.net.weights(), lr=args.lr, betas=(0.9, 0.98), eps=1e-9, fused=fused)
        steps = len(loader)
        options = {"reduction": task.loss_reduction, "clip": args.clip, "micro_batch": args.micro_batch, "min_part": 1}
        options |= {"precision": precision, "parallel": data_parallel(run, precision)}
        options |= {"schedule": WarmupStepDecay(args.lr, steps, args.lr_decay_epochs, args.lr_decay)}
        unused = not self.net.uses_all_weights()
        self._weights = OptimizerStep(self.net, task.loss(args), adam, find_unused=unused, **options)
        self._before = task.before_epoch(args, run, self.net, data, precision)
        # Ranks start from equal weights, but draw different dropout masks.
        torch.manual_seed(args.seed + 1_000_003 * rank())

    def epoch(self, epoch: int) -> dict[str, Any]:
        """See `search.trainings.Training`."""
        record = self._before(epoch) if self._before else {}
        train = train_one_epoch(self._weights, self._loader, self._metric, epoch=epoch, device=self._device)
        split, score = self._scorer
        return {**record, "train": train, split: score(self.net)}

    def measure(self) -> dict[str, Any]:
        """See `search.trainings.Training`."""
        return architecture_cost(self._architecture, **self._sizes)

    def state_dict(self) -> dict[str, Any]:
        """State of network and optimiser, and of what is done before an epoch."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self):
        return with_state(net=self.net, weights=self._weights, before_epoch=self._before)


def search_by_trainings(
    task: AttentionTask,
    args: Namespace,
    run: Run,
    net: MultimodalNet,
    data: Mapping[str, QuestionData],
    loaders: Mapping[str, BatchLoader],
    precision: Precision,
    split: str,
) -> dict[str, Any]:
    """Train ``--budget`` architectures for ``--training_epochs`` each; returns the content of ``result.json``.

    Args:
        task, args, run, data, loaders, precision: As in the recipes.
        net: The supernet; only its word vectors are used.
        split: The split that is scored.
    """
    words = net.embedding.weight.detach().clone()
    scorer = (split, task.build_scorer(args, run, data[split], precision, split))

    def start(architecture):
        return ArchitectureTraining(task, args, run, data, words, loaders["train"], precision, scorer, architecture)

    search = TrainingSearch(
        black_box_of(args, ArchitectureSpace(*networks.candidates(args), args.enc_blocks, args.dec_blocks)),
        start,
        Architecture.from_dict,
        epochs=args.training_epochs,
        selection=BestEpoch(split, task.validation.score, RULE.format(split.replace("_", "-"))),
        objectives=objectives_of(args),
    )
    return run_trainings(run, search, tracked={}, facts=describe(task, run, data))
