"""The fusion network against the originals: outputs, gradients, derived genotypes, a search trajectory."""

import numpy as np
import pytest
import torch
from torch import nn

from models.bmnas.cells import FusionCell
from models.bmnas.published import from_published
from models.genotypes import FusionGenotype
from search.derive import argmax
from tests.golden import Golden, arch_values, normal


def sizes(spec):
    c = spec["constructor"]
    return {name: c[name] for name in ("steps", "multiplier", "node_steps", "node_multiplier")}


def load_cell(golden, cell, genotype=None):
    """Load a stand-alone fusion fixture the way a published checkpoint is loaded."""
    ours = from_published({f"fusion_net.{k}": v for k, v in golden.state.items()}, {}, genotype)
    state = {key.removeprefix("fusion."): value for key, value in ours.items()}
    missing, unknown = cell.load_state_dict(state, strict=False)
    assert not unknown
    assert all(key.endswith(("edges.logits", "gammas")) for key in missing)


def fill_arch(cell, prefix=""):
    with torch.no_grad():
        for name, parameter in cell.arch_parameters().items():
            parameter.copy_(arch_values(prefix + name, parameter.shape))


def mixed_cell(spec):
    c = spec["constructor"]
    return FusionCell.mixed(c["num_input_nodes"], c["C"], c["L"], c["drpt"], **sizes(spec)).eval()


def assert_gradient_norms(golden, cell, genotype=None):
    """L2 norms of all weight gradients, keyed by the original's names."""
    gradients = {key: p.grad for key, p in cell.named_parameters() if p.grad is not None}
    names = {key: key for key in golden.spec["param_grad_l2_norms"]}
    ours = from_published({f"fusion_net.{k}": k for k in names}, {}, genotype)
    for key, theirs in ours.items():
        expected = golden.spec["param_grad_l2_norms"][theirs]
        found = gradients[key.removeprefix("fusion.")].norm().item()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=theirs)
    assert len(ours) == sum(not key.endswith(("edges.logits", "gammas")) for key in gradients)


@pytest.mark.parametrize("name", ["search_fusion_mmimdb", "search_fusion_ntu"])
class TestSearchFusion:
    def test_output_and_gradients(self, name):
        golden = Golden(name)
        cell = mixed_cell(golden.spec)
        load_cell(golden, cell)
        fill_arch(cell)
        output = cell(golden.inputs())
        golden.assert_output("out", output)
        loss = golden.spec["loss"]["R"]
        (output * normal(loss["seed"], loss["shape"])).sum().backward()
        for arch, parameter in cell.arch_parameters().items():
            golden.assert_output(f"grad.{arch}", parameter.grad, atol=1e-4)
        assert_gradient_norms(golden, cell)

    def test_order_of_architecture_parameters(self, name):
        spec = Golden(name).spec
        shapes = {key: list(p.shape) for key, p in mixed_cell(spec).arch_parameters().items()}
        assert list(shapes) == spec["arch_param_order_in_arch_parameters"]
        assert shapes == spec["arch_param_shapes"]

    def test_genotypes(self, name):
        spec = Golden(name).spec
        cell = mixed_cell(spec)
        fill_arch(cell)
        assert argmax(cell) == FusionGenotype.from_dict(spec["genotype"])
        checked = 0
        for case in spec["genotypes_for_random_arch_params"]:
            if "arch_key_prefix" in case:
                fill_arch(cell, case["arch_key_prefix"])
            else:
                with torch.no_grad():
                    for parameter in cell.arch_parameters().values():
                        parameter.zero_()
            assert argmax(cell) == FusionGenotype.from_dict(case["genotype"])
            checked += 1
        assert checked == 13


@pytest.mark.parametrize("name", ["found_fusion_mmimdb", "found_fusion_mmimdb_sum_cat", "found_fusion_ntu"])
def test_found_fusion(name):
    golden = Golden(name)
    c, genotype = golden.spec["constructor"], FusionGenotype.from_dict(golden.spec["genotype"])
    cell = FusionCell.fixed(genotype, c["num_input_nodes"], c["C"], c["L"], c["drpt"]).eval()
    load_cell(golden, cell, genotype)
    inputs = [x.requires_grad_() for x in golden.inputs()]
    output = cell(inputs)
    golden.assert_output("out", output)
    loss = golden.spec["loss"]["R"]
    (output * normal(loss["seed"], loss["shape"])).sum().backward()
    for index, x in enumerate(inputs):
        if index in golden.spec["inputs_without_gradient"]:
            assert x.grad is None
        else:
            golden.assert_output(f"grad.in{index}", x.grad)
    assert_gradient_norms(golden, cell, genotype)
    assert sum(p.numel() for p in cell.parameters()) == golden.spec["num_parameters"]


def test_found_cell_is_the_searched_cell_with_one_hot_choices():
    """A supernet whose softmaxes are one-hot on a genotype with x = y computes what the fixed cell computes."""
    torch.manual_seed(0)
    supernet = FusionCell.mixed(3, 8, 4, 0.0, steps=1, multiplier=1, node_steps=1, node_multiplier=1).eval()
    features = [torch.randn(2, 8, 4) for _ in range(3)]
    for index, operation in enumerate(supernet.nodes[0].ops[0]):
        with torch.no_grad():
            supernet.edges.logits.copy_(torch.tensor([[60.0, -60.0], [-60.0, 60.0], [60.0, -60.0]]))
            supernet.nodes[0].edges.logits.copy_(torch.tensor([[-60.0, 60.0], [60.0, -60.0]]))
            supernet.nodes[0].gammas.fill_(-60.0)
            supernet.nodes[0].gammas[0, index] = 60.0
        genotype = FusionGenotype.from_dict(
            {
                "edges": [["skip", 1], ["skip", 1]],
                "steps": [{"inner_edges": [["skip", 0], ["skip", 0]], "inner_steps": [operation], "inner_concat": [2]}],
                "concat": [3],
            }
        )
        found = FusionCell.fixed(genotype, 3, 8, 4, 0.0).eval()
        missing, _ = found.load_state_dict(supernet.state_dict(), strict=False)
        assert not missing
        torch.testing.assert_close(found(features), supernet(features))


class _SmallNet(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.fusion = mixed_cell(spec)
        self.classifier = nn.Linear(96, 5)

    def forward(self, batch):
        return self.classifier(self.fusion(batch["inputs"]))


def _no_dropout(module):
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.0


@pytest.mark.parametrize("second_forward", [False, True])
def test_search_trajectory(second_forward):
    """15 real search steps through the engine: learning rates, losses, final weights and architecture."""
    from engine.updates import OptimizerStep
    from util.schedules import CosineRestarts

    golden = Golden("search_steps_small")
    net = _SmallNet(golden.spec)
    net.load_state_dict(from_published(golden.state, {}), strict=False)
    fill_arch(net.fusion)
    _no_dropout(net)
    net.train()
    arch = list(net.fusion.arch_parameters().values())
    weights = [p for p in net.parameters() if all(p is not a for a in arch)]
    optimizer = torch.optim.Adam(weights, weight_decay=3e-4)
    schedule = CosineRestarts(1e-3, 1e-6, 1, 2, batches_per_epoch=3.0)
    criterion = nn.CrossEntropyLoss()

    def loss_of(outputs, batch):
        return criterion(outputs, batch["label"])

    train = OptimizerStep(net, loss_of, optimizer, schedule=schedule)
    dev = OptimizerStep(net, loss_of, torch.optim.Adam(arch, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3))
    for entry in golden.spec["log"]:
        b = entry["b"]
        batch = {
            "inputs": [normal(9600 + 10 * b + i, (6, 12, 4)) for i in range(4)],
            "label": (torch.arange(6) * (b + 2)) % 5,
        }
        updater = train if entry["phase"] == "train" else dev
        updater.activate()
        loss, _ = updater.step(batch)
        if second_forward and entry["phase"] != "train":
            loss = loss_of(updater.predict(batch), batch).item()
            np.testing.assert_allclose(loss, entry["loss_after_arch_step"], rtol=1e-4)
        elif entry["phase"] == "train":
            np.testing.assert_allclose(loss, entry["loss"], rtol=1e-4)
            np.testing.assert_allclose(optimizer.param_groups[0]["lr"], entry["lr"], rtol=1e-9)
    for name, parameter in net.fusion.arch_parameters().items():
        golden.assert_output(f"final.{name}", parameter)
    golden.assert_output("final.central_classifier.weight", net.classifier.weight)
    assert argmax(net.fusion) == FusionGenotype.from_dict(golden.spec["genotype_after"])
