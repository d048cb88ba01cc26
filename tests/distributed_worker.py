"""What each process of `test_distributed.py` runs: a few weight and architecture steps; rank 0 saves the outcome."""

import sys
from argparse import Namespace
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from engine.loading import EpochBatchSampler, build_loader
from engine.training import evaluate, train_one_epoch
from engine.updates import OptimizerStep, Precision, data_parallel
from metrics.classification import Accuracy, MultilabelF1
from metrics.grounding import GroundingAccuracy
from metrics.vqa_accuracy import VQAAccuracy
from models.bmnas.cells import FusionCell
from models.genotypes import FusionGenotype
from util.cli import UserError
from util.distributed import check_same_on_all_ranks, init_distributed, leave, rank, world_size

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
    run = SimpleNamespace(args=Namespace(parallel=False), device=device, processes=world_size())
    options = {"parallel": data_parallel(run, Precision()), "find_unused": not fusion.uses_all_weights()}
    updaters = [OptimizerStep(net, loss_of, torch.optim.SGD(weights, 0.1), **options)]
    if arch:
        # Plain steps: Adam would blow rounding of a tiny gradient up to a whole step.
        parallel = data_parallel(run, Precision())
        updaters.append(OptimizerStep(net, loss_of, torch.optim.SGD(arch, 1.0), parallel=parallel))

    data = {"inputs": torch.randn(24, 3, 6, 4), "label": torch.randint(0, 4, (24,))}
    sampler = EpochBatchSampler(24, 5, shuffle=True, seed=1, rank=rank(), world_size=world_size())
    for updater in updaters * 2:
        updater.activate()
        for size, indices in zip(sampler.sizes(), sampler, strict=True):
            batch = {key: value[indices] for key, value in data.items()}
            updater.step(batch, size)
    state = net.state_dict() | ({"few": few(device)} if kind == "idle" else {})
    if rank() == 0:
        torch.save(state, path)
    del updaters, updater
    leave()


class Few(Dataset):
    """One sample, with what every metric asks for."""

    def __len__(self):
        return 1

    def __getitems__(self, indices):
        count = len(indices)
        assert count, "nobody is asked for nothing"
        index = torch.tensor(indices)
        box = torch.tensor([[0.0, 0.0, 9.0, 9.0]]).expand(count, 4)
        kinds = {"class": torch.zeros(count, dtype=torch.int64), "labels": torch.eye(3)[index], "box": box}
        size = torch.tensor([[20.0, 20.0]]).expand(count, 2)
        return {"label": torch.ones(count), "index": index, "boxes": box[:, None], "image_size": size, **kinds}


class OfKind(nn.Module):
    """Outputs for one kind of label, which stands in the label's place from then on."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(1, 3)

    def forward(self, batch):
        batch["label"] = batch[self.kind]
        outputs = self.layer(torch.ones(len(batch["label"]), 1))
        return (outputs[:, :1], outputs[:, None, [0, 1, 2, 2]] / 99) if self.kind == "box" else outputs


def few(device):
    """Scores of a single sample by every kind of metric: float64 (6,); training on it is refused if two share it."""
    scores = []
    answers = [{"answers": [{"answer": "a"}] * 10}]
    metrics = {
        Accuracy(): "class",
        MultilabelF1(threshold=0.0): "labels",
        VQAAccuracy(["a", "b", "c"], [7], answers): "class",
        GroundingAccuracy(): "box",
    }
    options = {"seed": 0, "num_workers": 0, "device": device, "min_share": 1}
    for metric, kind in metrics.items():
        torch.manual_seed(0)
        loader = build_loader(Few(), 2, shuffle=False, **options)
        found = evaluate(OfKind(kind), loader, lambda outputs, batch: batch["index"].sum() + 1.0, metric, device=device)
        scores += [value for name, value in found.items() if name != "loss" or kind == "box"]
    net, told = OfKind("class"), ""
    updater = OptimizerStep(net, loss_of, torch.optim.SGD(net.parameters(), 0.1), min_part=1)
    try:
        loader = build_loader(Few(), 2, shuffle=True, **options)
        train_one_epoch(updater, loader, Accuracy(), epoch=0, device=device)
    except UserError as error:
        told = str(error).split(";")[0]
    assert told == ("1 samples are too few to train on with 2 processes: each needs one" if world_size() > 1 else "")
    return torch.tensor(scores, dtype=torch.float64)


def questions(count):
    """A batch of random questions about random regions, images of 2 to 5 regions, questions of 1 to 4 words."""
    generator = torch.Generator().manual_seed(3)
    counts = torch.arange(count) % 4 + 2
    shown = (torch.arange(5) < counts[:, None])[..., None]
    corners = 50 * torch.rand(count, 5, 2, generator=generator)
    sides = 5 + 20 * torch.rand(count, 5, 2, generator=generator)
    words = torch.randint(1, 9, (count, 4), generator=generator)
    return {
        "regions": torch.randn(count, 5, 7, generator=generator) * shown,
        "boxes": torch.cat([corners, corners + sides], dim=-1) * shown,
        "counts": counts,
        "tokens": words * (torch.arange(4) <= torch.arange(count)[:, None] % 4),
        "label": torch.rand(count, 3, generator=generator),
    }


def answer_loss(outputs, batch):
    return F.binary_cross_entropy_with_logits(outputs, batch["label"], reduction="sum") / len(outputs)


def expressions(count):
    """As `questions`, with a box that two thirds of the images have a region at."""
    batch = questions(count)
    inside = (torch.arange(count) % 3 > 0)[:, None]
    return batch | {"label": torch.where(inside, batch["boxes"][:, 1] + 1, batch["boxes"][:, 1] + 400)}


def supernet(kind, path):
    """Interleaved weight and architecture steps of a gated network; rank 0 saves the outcome and the sampled paths."""
    from models.mmnas.encoder_decoder import EncoderDecoder
    from models.mmnas.heads import AnswerHead, GroundingHead
    from models.mmnas.losses import GroundingLoss
    from models.mmnas.net import MultimodalNet
    from search.gates import SampledGates
    from search.relaxation import ARCHITECTURE, WEIGHTS

    device = init_distributed("cpu")
    torch.manual_seed(0)
    encoder_decoder = EncoderDecoder.searched(64, 0.0, num_enc=2, num_dec=3)
    # Evaluation mode: no dropout, which every process would draw for itself.
    grounding = kind == "grounding"
    head, loss = (GroundingHead(64, 0.0), GroundingLoss()) if grounding else (AnswerHead(64, 0.0, 3), answer_loss)
    net = MultimodalNet(encoder_decoder, head, (9, 6), region_size=7).eval()
    run = SimpleNamespace(args=Namespace(parallel=False), device=device, processes=world_size())
    weights = net.weights()
    options = {"reduction": "mean" if grounding else "sum", "parallel": data_parallel(run, Precision())}
    sgd = torch.optim.SGD(weights, 0.1)
    of_weights = OptimizerStep(net, loss, sgd, clip=1.0, find_unused=True, **options)
    gates, paths = SampledGates(torch.Generator().manual_seed(5)).attach(net), []
    alphas = torch.optim.SGD([choice.logits for choice in net.choices()], 0.1)
    of_alphas = OptimizerStep(net, loss, alphas, parameters=gates.gradient_parameters(), **options)
    data = expressions(23) if grounding else questions(23)
    sampler = EpochBatchSampler(23, 6, shuffle=True, seed=1, rank=rank(), world_size=world_size())
    for size, indices in zip(sampler.sizes(), sampler, strict=True):
        batch = {key: value[indices] for key, value in data.items()}
        of_weights.activate()
        gates.draw(WEIGHTS)
        of_weights.step(batch, size)
        of_alphas.activate()
        gates.draw(ARCHITECTURE)
        of_alphas.begin()
        of_alphas.backward(batch, size)
        gates.finish_backward()
        of_alphas.apply()
        paths += [choice.running()[0] for choice in net.choices()]
    check_same_on_all_ranks(paths, "sampled paths")
    if rank() == 0:
        torch.save({**net.state_dict(), "paths": torch.tensor(paths)}, path)
    del of_weights, of_alphas
    leave()


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1] in ("search", "idle") else supernet(*sys.argv[1:])
