"""``--strategy random`` and ``evolution`` in BM-NAS: train complete networks from scratch on frozen features."""

from __future__ import annotations

import copy
import logging
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from engine.loading import total_batch
from engine.training import BestEpoch, Evaluation, train_one_epoch
from engine.updates import OptimizerStep, data_parallel
from models.bmnas.cost import fusion_cost, fusion_counts
from models.bmnas.genotype_space import FusionSpace
from models.genotypes import FusionGenotype
from search.strategies import black_box_of, objectives_of
from search.trainings import TrainingSearch, run_trainings
from tasks.bmnas import networks
from util.distributed import rank
from util.schedules import CosineRestarts

if TYPE_CHECKING:
    from engine.loading import BatchLoader
    from engine.run import Run
    from engine.updates import Precision
    from models.bmnas.fusion_net import FusionNet
    from tasks.task import FusionTask, LabelledData

logger = logging.getLogger("mdarts")

RULE = "genotype of the training, and its epoch, with the best dev score"


def fusion_space(task: FusionTask, args: Namespace) -> FusionSpace:
    """The space of the genotypes that the flags allow."""
    operations, sizes = networks.step_operations(args), networks.cell_sizes(args)
    return FusionSpace(operations, task.num_features, sizes, task.feature_names, args.chain_cells)


class FusionTraining:
    """The training of one candidate: the recipe of the found scripts with ``--freeze_backbones``, only on train.

    Backbones that are ``trained`` with the fusion are copied, so that trainings do not share their weights. Weights and
    dropout are seeded only by ``--seed``, so that equal genotypes give equal trainings.

    Args:
        task, args, run: As in the recipes.
        supernet: The network whose frozen backbones and stored features all trainings share; it is not trained.
        loaders: Loaders of ``train`` and ``dev``.
        precision: See `engine.updates.Precision`.
        genotype: The candidate to train.
    """

    def __init__(
        self,
        task: FusionTask,
        args: Namespace,
        run: Run,
        supernet: FusionNet,
        loaders: Mapping[str, BatchLoader],
        precision: Precision,
        genotype: FusionGenotype,
    ) -> None:
        torch.manual_seed(args.seed)
        # Backbones that are trained with the fusion start from the same weights in every training.
        backbones = {
            name: backbone if name in supernet.frozen else copy.deepcopy(backbone)
            for name, backbone in supernet.backbones.items()
        }
        self.net = networks.build_found_net(task, args, backbones, genotype, frozen=True).to(run.device)
        self.costs, self._batch = fusion_counts(self.net), total_batch(args)
        self._loader, self._metric, self._device = loaders["train"], task.metric(args), run.device
        dataset: Any = self._loader.dataset
        batches = len(dataset) / self._batch
        adam = torch.optim.Adam(self.net.weights(), lr=args.eta_max, weight_decay=args.weight_decay)
        cycle = (args.eta_max, args.eta_min, args.Ti, args.Tm, batches)
        cosine = CosineRestarts(*cycle, restarts=args.lr_restarts)
        options = {"precision": precision, "parallel": data_parallel(run, precision), "micro_batch": args.micro_batch}
        unused = not self.net.uses_all_weights()
        self._weights = OptimizerStep(self.net, task.loss, adam, schedule=cosine, find_unused=unused, **options)
        scored: dict[str, Any] = {"device": run.device, "precision": precision, "description": "dev", "order": 0}
        self._score = Evaluation(loaders["dev"], task.loss, self._metric, **scored)
        # Ranks start from equal weights but draw different dropout masks.
        torch.manual_seed(args.seed + 1_000_003 * rank())

    def epoch(self, epoch: int) -> dict[str, Any]:
        """See `search.trainings.Training`."""
        train = train_one_epoch(self._weights, self._loader, self._metric, epoch=epoch, device=self._device)
        return {"train": train, "dev": self._score(self.net)}

    def measure(self) -> dict[str, Any]:
        """See `search.trainings.Training`."""
        return fusion_cost(self.net, self._batch)

    def state_dict(self) -> dict[str, Any]:
        """State of the optimiser, and of the network without its frozen backbones."""
        frozen = tuple(f"backbones.{name}." for name in self.net.frozen)
        state = {key: value for key, value in self.net.state_dict().items() if not key.startswith(frozen)}
        return {"net": state, "weights": self._weights.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.net.load_state_dict({**self.net.state_dict(), **state["net"]})
        self._weights.load_state_dict(state["weights"])


def search_by_trainings(
    task: FusionTask,
    args: Namespace,
    run: Run,
    net: FusionNet,
    data: Mapping[str, LabelledData],
    loaders: Mapping[str, BatchLoader],
    precision: Precision,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Train ``--budget`` candidates for ``--training_epochs`` each; returns the content of ``result.json``.

    Args:
        task, args, run, data, loaders, precision: As in the recipes. The first split of ``data`` trains the candidates,
            the second one scores them.
        net: The supernet; only its backbones are used.
        facts: Facts for the result.
    """
    train, dev = data
    placed = {"train": loaders[train], "dev": loaders[dev]}

    def start(genotype):
        return FusionTraining(task, args, run, net, placed, precision, genotype)

    metric = task.metric(args).name
    search = TrainingSearch(
        black_box_of(args, fusion_space(task, args)),
        start,
        FusionGenotype.from_dict,
        epochs=args.training_epochs,
        selection=BestEpoch("dev", metric, RULE, task.later_wins_ties),
        objectives=objectives_of(args),
    )
    return run_trainings(run, search, tracked={"net": net.trainable_state()}, facts=facts)
