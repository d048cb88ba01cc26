"""What each process of `test_distributed.py` runs: a few weight and architecture steps; rank 0 saves the outcome."""

import sys
from argparse import Namespace
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from engine.updates import Precision, Updater, data_parallel
from models.bilevel.cells import FusionCell
from models.genotypes import FusionGenotype
from util.distributed import init_distributed, leave, rank, world_size
from util.samplers import EpochBatchSampler

# Step 0 reaches nothing: DDP has to look for idle parameters.
IDLE = {
    "edges": [["skip", 0], ["skip", 1], ["skip", 1], ["skip", 2]],
    "steps": [{"inner_edges": [["skip", 0], ["skip", 1]], "inner_steps": ["ConcatFC"], "inner_concat": [2]}] * 2,
    "concat": [4],
}


class Net(nn.Module):
    def __init__(self, fusion):
        super().__init__()
        self.fusion, self.classifier = fusion, nn.Linear(fusion.width, 4)

    def forward(self, batch):
        return self.classifier(self.fusion(list(batch["inputs"].unbind(1))))


def loss_of(outputs, batch):
    return F.cross_entropy(outputs, batch["label"])


def main(kind, path):
    device = init_distributed("cpu")
    torch.manual_seed(0)
    if kind == "search":
        fusion = FusionCell.mixed(3, 6, 4, 0.0, steps=2, multiplier=2, node_steps=2, node_multiplier=2)
    else:
        fusion = FusionCell.fixed(FusionGenotype.from_dict(IDLE), 3, 6, 4, 0.0)
    # Evaluation mode: batch norm by running statistics, so that a share of a batch computes what the whole does.
    net = Net(fusion).eval()
    arch = list(fusion.arch_parameters().values())
    weights = [p for p in net.parameters() if all(p is not a for a in arch)]
    run = SimpleNamespace(args=Namespace(parallel=False), device=device)
    parallel = data_parallel(run, Precision(), find_unused=not fusion.uses_all_weights())
    updaters = [Updater(net, weights, loss_of, torch.optim.SGD(weights, 0.1), parallel=parallel)]
    if arch:
        # Plain steps: Adam would blow rounding of a tiny gradient up to a whole step.
        parallel = data_parallel(run, Precision())
        updaters.append(Updater(net, arch, loss_of, torch.optim.SGD(arch, 1.0), parallel=parallel))

    data = {"inputs": torch.randn(24, 3, 6, 4), "label": torch.randint(0, 4, (24,))}
    sampler = EpochBatchSampler(24, 5, shuffle=True, seed=1, rank=rank(), world_size=world_size())
    for updater in updaters * 2:
        updater.activate()
        for size, indices in zip(sampler.sizes(), sampler, strict=True):
            batch = {key: value[indices] for key, value in data.items()}
            updater.step(batch, size)
    if rank() == 0:
        torch.save(net.state_dict(), path)
    del updaters, updater
    leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
